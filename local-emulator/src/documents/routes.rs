//! Tests that API.md, the SAM template and the router of `cargo lambda watch` have the endpoints
//! that the functions declare.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::root;
use crate::{
    lambda::{HTTP_FUNCTIONS, RESERVED, function_names, routes},
    openapi,
};

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// `METHOD /path` of every endpoint of the functions.
fn endpoints() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for function in &HTTP_FUNCTIONS {
        for endpoint in (function.endpoints)().iter() {
            let route = format!("{} {}", endpoint.method(), endpoint.path());
            assert!(found.insert(route.clone()), "{route} is declared twice");
        }
    }
    found
}

/// The paths of each function; event functions have none.
fn paths() -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut found: BTreeMap<_, BTreeSet<_>> =
        function_names().map(|name| (name, BTreeSet::new())).collect();
    for (name, path) in routes() {
        found.entry(name).or_default().insert(path.to_owned());
    }
    found
}

/// `METHOD /path` of the emulator's own routes. A router can't list its routes, so they are read
/// from the source.
fn own_routes() -> BTreeSet<String> {
    let files = ["health", "invoke_api", "live", "metrics", "openapi", "pages/mod"];
    let found: BTreeSet<String> =
        files.iter().flat_map(|file| routes_of(&format!("local-emulator/src/{file}.rs"))).collect();
    assert!(found.len() > 10, "{found:?}");
    found
}

/// `METHOD /path` of every route in one file.
fn routes_of(file: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for call in read(file).split(".route(").skip(1) {
        let mut depth = 1;
        let end = call
            .char_indices()
            .find(|(_, char)| {
                depth += i32::from(*char == '(') - i32::from(*char == ')');
                depth == 0
            })
            .unwrap()
            .0;
        let call = &call[..end];
        let path = call.split('"').nth(1).unwrap();
        for method in ["get", "post", "put", "patch", "delete"] {
            if call.contains(&format!("{method}(")) {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

#[test]
fn endpoints_are_declared_completely() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut ids = BTreeSet::new();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let route = format!("{} {path}", method.to_uppercase());
            let id = operation["operationId"].as_str().unwrap();
            assert!(
                !id.is_empty() && ids.insert(id.to_owned()),
                "{route}: {id:?} is no id, or not the only one"
            );
            assert_ne!(operation["summary"], "", "{route} has no summary");
            let success = operation["responses"]
                .as_object()
                .unwrap()
                .iter()
                .find(|(status, _)| status.starts_with('2'));
            assert_ne!(
                success.unwrap().1["description"],
                "",
                "{route}: its answer is not described"
            );
            described.insert(route);
        }
    }
    assert_eq!(described, endpoints());
}

/// One function in the SAM template.
#[derive(Debug, Default)]
struct Deployed {
    paths: BTreeSet<String>,
    memory: Option<i64>,
    timeout: Option<i64>,
}

/// The functions of `infra/sam/template.yaml` by their names in the code, and the settings that
/// they share. The template's format allows reading it line by line.
fn template() -> (BTreeMap<String, Deployed>, Deployed) {
    let (mut functions, mut all) = (BTreeMap::<String, Deployed>::new(), Deployed::default());
    let mut name = None;
    for line in read("infra/sam/template.yaml").lines() {
        let text = line.trim();
        if let Some(folder) = text.strip_prefix("CodeUri: ") {
            let function = folder
                .strip_prefix("../../target/lambda/")
                .and_then(|folder| folder.strip_suffix('/'))
                .unwrap()
                .to_owned();
            assert!(
                functions.insert(function.clone(), Deployed::default()).is_none(),
                "{function} is in the template twice"
            );
            name = Some(function);
        }
        let here = name.as_ref().map_or(&mut all, |name| functions.get_mut(name).unwrap());
        if let Some(memory) = text.strip_prefix("MemorySize: ") {
            here.memory = Some(memory.parse().unwrap());
        } else if let Some(timeout) = text.strip_prefix("Timeout: ") {
            here.timeout = Some(timeout.parse().unwrap());
        } else if text.contains("Type: HttpApi,") {
            let path =
                text.split("Method: ANY, Path: \"").nth(1).and_then(|rest| rest.split('"').next());
            let path =
                path.unwrap_or_else(|| panic!("not `Method: ANY, Path: \"…\"`: {text}")).to_owned();
            assert!(here.paths.insert(path), "a route is there twice: {text}");
        }
    }
    (functions, all)
}

#[test]
fn functions_are_deployed_with_the_routes_that_they_declare() {
    let (functions, all) = template();
    let declared = paths();
    assert!(
        functions.keys().eq(declared.keys()),
        "the functions of infra/sam/template.yaml: {functions:?}"
    );
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let mut watched = BTreeMap::<&str, BTreeSet<String>>::new();
    for (path, function) in
        workspace["workspace"]["metadata"]["lambda"]["watch"]["router"].as_table().unwrap()
    {
        watched.entry(function.as_str().unwrap()).or_default().insert(path.clone());
    }
    for (function, code) in declared {
        let deployed = &functions[function];
        assert_eq!(deployed.paths, code, "{function}: infra/sam/template.yaml and the code");
        assert_eq!(
            watched.remove(function).unwrap_or_default(),
            code,
            "{function}: the router in Cargo.toml and the code"
        );
        // `cargo lambda deploy` reads these; the two ways to deploy must not differ.
        let manifest: toml::Table =
            read(&format!("functions/{function}/Cargo.toml")).parse().unwrap();
        let deploy = &manifest["package"]["metadata"]["lambda"]["deploy"];
        assert_eq!(
            deploy["memory"].as_integer(),
            deployed.memory.or(all.memory),
            "{function}: memory"
        );
        assert_eq!(
            deploy["timeout"].as_integer(),
            deployed.timeout.or(all.timeout),
            "{function}: timeout"
        );
    }
    assert!(
        watched.is_empty(),
        "the router in Cargo.toml names functions that are not there: {watched:?}"
    );
}

#[test]
fn routes_of_the_configuration_can_not_hide_those_of_the_product() {
    for route in endpoints().union(&own_routes()) {
        let first = route.split('/').nth(1).unwrap();
        assert!(
            RESERVED.contains(&first),
            "{route}: local-emulator/src/lambda/fleet.rs does not reserve it"
        );
    }
}

#[test]
fn api_md_names_every_endpoint_with_an_example() {
    let document = read("API.md");
    let mut described = BTreeSet::new();
    for section in document.split("\n### ").skip(1) {
        let title = section.lines().next().unwrap().trim().trim_matches('`');
        if title.starts_with(|char: char| char.is_ascii_uppercase()) && title.contains(" /") {
            assert!(section.contains("```"), "{title} has no example");
            described.insert(title.to_owned());
        }
    }
    let code: BTreeSet<String> = endpoints().union(&own_routes()).cloned().collect();
    let missing: Vec<_> = code.difference(&described).collect();
    let invented: Vec<_> = described.difference(&code).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not in API.md: {missing:?}; not in the code: {invented:?}"
    );
}
