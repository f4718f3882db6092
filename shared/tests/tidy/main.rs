//! House rules that the compiler does not check: the allowed dependencies between modules, and the
//! agreement of documents and code. Routes are compared in
//! `local-emulator/src/documents/routes.rs`, which has access to all functions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod documents;
mod metrics;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flashsale::{
    domain::schema::{Migration, release},
    problem::EXPLAINED,
};

const FUNCTIONS: [&str; 9] = [
    "admin",
    "captcha",
    "login",
    "order-status",
    "order-worker",
    "sales",
    "seckill",
    "sweeper",
    "waiting-room",
];

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
        for entry in
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
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

/// Whether `module` of this crate is used in the text, as `crate::module` or inside `use crate::{ …
/// }`.
fn uses(text: &str, module: &str) -> bool {
    text.contains(&format!("crate::{module}")) || {
        let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        flat.split("use crate::{").skip(1).any(|rest| {
            let group = rest.split("};").next().unwrap();
            format!(" {group}").contains(&format!(" {module}::"))
                || format!(" {group}").contains(&format!(" {module},"))
        })
    }
}

#[test]
fn layers_depend_downwards_only() {
    let layers: [(&str, &[&str]); 5] = [
        (
            "shared/src/domain",
            &["api", "ports", "adapters", "app", "http", "wire", "config", "problem", "lambda"],
        ),
        (
            "shared/src/api",
            &["ports", "adapters", "app", "http", "wire", "config", "problem", "lambda"],
        ),
        ("shared/src/adapters", &["api", "app", "http", "wire", "config", "problem", "lambda"]),
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
    for module in ["api", "adapters", "app", "http", "wire", "config", "problem"] {
        assert!(!uses(&ports, module), "ports.rs uses {module}");
    }
}

#[test]
fn the_json_of_the_api_is_in_one_folder() {
    for folder in ["shared/src/app", "functions"] {
        for (name, text) in sources(folder) {
            assert!(
                !product(&text).contains("ToSchema"),
                "{name}: its JSON belongs in shared/src/api"
            );
        }
    }
}

#[test]
fn adapters_never_use_each_other() {
    // `sql` is not an adapter; it holds the statements that the two SQL adapters share.
    let adapters =
        ["memory", "mysql", "rabbitmq", "redis", "siteverify", "sms", "sqlite", "system"];
    for own in adapters {
        for (name, text) in sources(&format!("shared/src/adapters/{own}")) {
            for other in adapters.iter().filter(|other| **other != own) {
                let used = product(&text).contains(&format!("adapters::{other}"))
                    || product(&text).contains(&format!("super::{other}::"));
                assert!(!used, "{name} uses the {other} adapter");
            }
        }
    }
}

#[test]
fn only_wire_names_adapters() {
    for folder in ["shared/src", "functions", "local-emulator/src"] {
        for (name, text) in sources(folder) {
            let exempt = name == "shared/src/wire.rs"
                || name.starts_with("shared/src/adapters")
                || name.starts_with("shared/src/testing");
            assert!(exempt || !product(&text).contains("adapters::"), "{name} names an adapter");
        }
    }
}

#[test]
fn functions_are_thin_and_know_nothing_of_each_other() {
    for function in FUNCTIONS {
        let manifest = read(format!("functions/{function}/Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        for other in FUNCTIONS
            .iter()
            .chain(&["local-emulator", "flashsale-servers"])
            .filter(|other| **other != function)
        {
            assert!(
                !dependencies.lines().any(|line| line.starts_with(other)),
                "{function} depends on {other}"
            );
        }
        let main = read(format!("functions/{function}/src/main.rs"));
        let code = main.lines().filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert!(code <= 4, "functions/{function}/src/main.rs does more than start");
    }
    for package in ["shared", "infra/servers"]
        .into_iter()
        .map(str::to_owned)
        .chain(FUNCTIONS.map(|function| format!("functions/{function}")))
    {
        assert!(
            !read(format!("{package}/Cargo.toml")).contains("local-emulator"),
            "{package} depends on the emulator"
        );
    }
}

#[test]
fn the_root_shows_the_architecture() {
    let allowed = [
        "API.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "functions",
        "infra",
        "local-emulator",
        // rustup looks for it under this name only.
        "rust-toolchain.toml",
        "shared",
        "target",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} does not belong in the root"
        );
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
                    !line.starts_with(concat!("#[", "allow("))
                        && !line.starts_with(concat!("#![", "allow(")),
                    "{at}: use #[expect(…, reason)]"
                );
                assert!(line != concat!("#[", "ignore]"), "{at}: say why the test is ignored");
            }
        }
    }
}

/// Numbers from here on are reserved for `infra/deploy/upgrade`, which builds a fictitious release.
const REHEARSED_FROM: i64 = 9_000;

/// `migrations_only_expand_the_schema` compares a migration's statements with its name.
#[test]
fn migrations_are_named_for_what_they_do() {
    for database in ["mysql", "sqlite"] {
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(root().join("shared/migrations").join(database)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            let (number, name) = file
                .strip_suffix(".sql")
                .and_then(|stem| stem.split_once('_'))
                .unwrap_or_else(|| panic!("{file}"));
            assert!(
                number.len() == 4
                    && name
                        .chars()
                        .all(|char| char.is_ascii_lowercase() || "0123456789_.".contains(char)),
                "{file}"
            );
            let migration =
                Migration { number: number.parse().unwrap(), name: name.replace('_', " ") };
            assert!(numbers.insert(migration.number), "{file}: another one has this number");
            assert!(
                migration.number < REHEARSED_FROM,
                "{file}: numbers from {REHEARSED_FROM} on belong to a test"
            );
            let oldest =
                migration.oldest_release().unwrap_or_else(|error| panic!("{file}: {error}"));
            // Instances of the previous release must still work, so that an upgrade and a rollback
            // are possible.
            assert!(
                oldest.is_none_or(|oldest| oldest < release()),
                "{file}: it shuts out the release before {}",
                release()
            );
            let text = fs::read_to_string(&path).unwrap();
            let statements = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"))
                .collect::<Vec<_>>()
                .join(" ");
            let statements =
                statements.split(';').filter(|statement| !statement.trim().is_empty()).count();
            assert!(
                database == "sqlite" || statements == 1,
                "{file}: the server undoes a refused statement, not the one before it"
            );
        }
        assert!(!numbers.is_empty());
    }
}

#[test]
fn statements_name_the_columns_that_they_write() {
    for (name, text) in sources("shared/src/adapters") {
        for statement in product(&text)
            .split("INSERT INTO ")
            .skip(1)
            .chain(product(&text).split("INSERT OR IGNORE INTO ").skip(1))
        {
            let table =
                statement.trim_start_matches(|char: char| char.is_ascii_lowercase() || char == '_');
            assert!(
                table.starts_with(" ("),
                "{name}: INSERT INTO {}",
                statement.lines().next().unwrap()
            );
        }
    }
}

#[test]
fn api_md_names_every_problem() {
    let document = read("API.md");
    for line in EXPLAINED {
        assert!(
            document.contains(&format!("| `{}` | {} |", line.slug, line.status)),
            "API.md lacks | `{}` | {} |",
            line.slug,
            line.status
        );
    }
    let rows = document
        .lines()
        .filter(|line| {
            line.starts_with("| `")
                && line.split('|').nth(2).is_some_and(|status| status.trim().parse::<u16>().is_ok())
        })
        .count();
    assert_eq!(rows, EXPLAINED.len(), "API.md has rows for problems that do not exist");
}

/// A check that is in no list of `contract_tests!` would run on no adapter.
#[test]
fn every_port_has_a_contract_whose_checks_are_registered() {
    // Each gives a value that no suite can predict.
    const WITHOUT: [&str; 4] = ["Clock", "LedgerClock", "Random", "CaptchaArtist"];
    let folder = "shared/src/testing/contract";
    let registered = read(format!("{folder}/mod.rs"));
    let registered: BTreeSet<&str> =
        registered.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let files: Vec<_> = sources(folder)
        .into_iter()
        .filter(|(name, _)| !name.ends_with("contract/mod.rs"))
        .collect();
    let mut checks = 0;
    for (name, text) in &files {
        for declared in text.split("\npub async fn ").skip(1) {
            let signature = declared.lines().next().unwrap();
            // A function with more parameters or a result belongs to the tests of some adapters.
            if signature.matches(": &").count() != 1 || signature.contains("->") {
                continue;
            }
            let check = signature.split('(').next().unwrap();
            let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
            let check = if check == "suite" { stem } else { check };
            assert!(registered.contains(check), "{name}: {check} is not in contract_tests!");
            checks += 1;
        }
    }
    assert!(checks > 30, "{checks}");
    let ports = read("shared/src/ports.rs");
    for declared in ports.split("\npub trait ").skip(1) {
        let port = declared.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        assert!(
            WITHOUT.contains(&port)
                || files.iter().any(|(_, text)| text.contains(&format!("dyn {port}>"))),
            "{port} has no contract suite"
        );
    }
}
