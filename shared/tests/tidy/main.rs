//! House rules that no compiler checks: who may use whom, and that the documents say what the code does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flashsale::problem::EXPLAINED;

const FUNCTIONS: [&str; 8] = ["admin", "captcha", "login", "order-status", "order-worker", "sales", "seckill", "sweeper"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder}");
    found
}

/// The part of a file above its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// Whether `module` of this crate is used in the text, as `crate::module` or inside `use crate::{ … }`.
fn uses(text: &str, module: &str) -> bool {
    text.contains(&format!("crate::{module}")) || {
        let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        flat.split("use crate::{").skip(1).any(|rest| {
            let group = rest.split("};").next().unwrap();
            format!(" {group}").contains(&format!(" {module}::")) || format!(" {group}").contains(&format!(" {module},"))
        })
    }
}

#[test]
fn layers_depend_downwards_only() {
    let layers: [(&str, &[&str]); 4] = [
        ("shared/src/domain", &["ports", "adapters", "app", "http", "wire", "config", "problem", "lambda"]),
        ("shared/src/adapters", &["app", "http", "wire", "config", "problem", "lambda"]),
        ("shared/src/app", &["adapters", "http", "wire", "lambda"]),
        ("shared/src/http", &["adapters", "wire", "lambda"]),
    ];
    for (folder, forbidden) in layers {
        for (name, text) in sources(folder) {
            for module in forbidden {
                assert!(!uses(product(&text), module), "{name} uses {module}");
            }
        }
    }
    let ports = read("shared/src/ports.rs");
    for module in ["adapters", "app", "http", "wire", "config", "problem"] {
        assert!(!uses(&ports, module), "ports.rs uses {module}");
    }
}

#[test]
fn adapters_never_use_each_other() {
    // `sql` is no adapter but the statements that the two SQL adapters share.
    let adapters = ["memory", "mysql", "rabbitmq", "redis", "sqlite", "system"];
    for own in adapters {
        for (name, text) in sources(&format!("shared/src/adapters/{own}")) {
            for other in adapters.iter().filter(|other| **other != own) {
                let used = product(&text).contains(&format!("adapters::{other}")) || product(&text).contains(&format!("super::{other}::"));
                assert!(!used, "{name} uses the {other} adapter");
            }
        }
    }
}

#[test]
fn only_wire_names_adapters() {
    for folder in ["shared/src", "functions", "local-emulator/src"] {
        for (name, text) in sources(folder) {
            let exempt = name == "shared/src/wire.rs" || name.starts_with("shared/src/adapters") || name.starts_with("shared/src/contract");
            assert!(exempt || !product(&text).contains("adapters::"), "{name} names an adapter");
        }
    }
}

#[test]
fn functions_are_thin_and_know_nothing_of_each_other() {
    for function in FUNCTIONS {
        let manifest = read(format!("functions/{function}/Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        for other in FUNCTIONS.iter().chain(&["local-emulator", "flashsale-servers"]).filter(|other| **other != function) {
            assert!(!dependencies.lines().any(|line| line.starts_with(other)), "{function} depends on {other}");
        }
        let main = read(format!("functions/{function}/src/main.rs"));
        let code = main.lines().filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert!(code <= 4, "functions/{function}/src/main.rs does more than start");
    }
    for package in
        ["shared", "infra/servers"].into_iter().map(str::to_owned).chain(FUNCTIONS.map(|function| format!("functions/{function}")))
    {
        assert!(!read(format!("{package}/Cargo.toml")).contains("local-emulator"), "{package} depends on the emulator");
    }
}

#[test]
fn the_root_shows_the_architecture() {
    let allowed =
        ["API.md", "Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "functions", "infra", "local-emulator", "shared", "target"];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} does not belong in the root");
    }
}

#[test]
fn exceptions_give_their_reason() {
    for folder in ["shared", "functions", "local-emulator", "infra"] {
        for (name, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                let at = format!("{name}:{}", number + 1);
                assert!(
                    !line.starts_with(concat!("#[", "allow(")) && !line.starts_with(concat!("#![", "allow(")),
                    "{at}: use #[expect(…, reason)]"
                );
                assert!(line != concat!("#[", "ignore]"), "{at}: say why the test is ignored");
            }
        }
    }
}

/// `METHOD /path` of every route in the code.
fn routes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let files = FUNCTIONS
        .map(|function| format!("functions/{function}/src/lib.rs"))
        .into_iter()
        .chain(["health", "invoke_api", "metrics", "pages"].map(|file| format!("local-emulator/src/{file}.rs")));
    for file in files {
        let text = read(&file);
        for call in text.split(".route(").skip(1) {
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
    }
    assert!(found.len() > 20, "{found:?}");
    found
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
    let code = routes();
    let missing: Vec<_> = code.difference(&described).collect();
    let invented: Vec<_> = described.difference(&code).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not in API.md: {missing:?}; not in the code: {invented:?}");
}

#[test]
fn api_md_names_every_problem() {
    let document = read("API.md");
    for line in EXPLAINED {
        assert!(document.contains(&format!("| `{}` | {} |", line.slug, line.status)), "API.md lacks | `{}` | {} |", line.slug, line.status);
    }
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `") && line.split('|').nth(2).is_some_and(|status| status.trim().parse::<u16>().is_ok()))
        .count();
    assert_eq!(rows, EXPLAINED.len(), "API.md has rows for problems that do not exist");
}
