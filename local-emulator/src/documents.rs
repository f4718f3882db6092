//! Tests that the commands, settings, alerts, files and links named in infra/OPERATE.md exist.
//! [`routes`] tests the documents that name routes.

mod routes;

use std::{collections::BTreeSet, fs, path::Path};

use clap::Parser as _;

use crate::cli::Arguments;

const PAGE: &str = include_str!("../../infra/OPERATE.md");
const SETTINGS: &str = include_str!("../../shared/config.default.toml");
const ALERTS: &str = include_str!("../../infra/prometheus/rules.yml");
/// Files that read an installation's variables other than the product's settings.
const READERS: [&str; 5] = [
    "infra/compose.yaml",
    "infra/ledger.sh",
    "infra/restore",
    "infra/systemd/flashsale",
    "infra/deploy/compose",
];
/// Words that look like settings but name other programs or their parts.
const OF_OTHERS: [&str; 7] = [
    "log_bin",
    "max_connections",
    "messages_ready",
    "messages_unacknowledged",
    "node_exporter",
    "orders.publish",
    "server_id",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The text of all files other than documents: a name that occurs in one of them exists.
fn sources() -> String {
    let (mut found, mut folders) = (
        String::new(),
        ["functions", "infra", "local-emulator", "shared"].map(|name| root().join(name)).to_vec(),
    );
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|extension| extension != "md")
                && !path.ends_with("documents.rs")
            {
                // Pictures are not UTF-8: skip them.
                found.push_str(&fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    found
}

/// Inline code, and the lines of code blocks, with continuation lines (`\`) joined.
fn code() -> Vec<String> {
    let mut found = Vec::new();
    let joined = PAGE.replace("\\\n", "");
    for (number, part) in joined.split("```").enumerate() {
        if number % 2 == 1 {
            found.extend(part.lines().skip(1).map(str::to_owned));
        } else {
            let flat = part.split_whitespace().collect::<Vec<_>>().join(" ");
            found.extend(flat.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

/// The words of a command up to its end, without quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for char in text.chars() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => word.push(char),
            (None, '\'' | '"') => (quote, any) = (Some(char), true),
            (None, '|' | '>' | '<' | ';' | ')' | '#' | '&') => break,
            (None, ' ') => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, _) => word.push(char),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The emulator's arguments in a line: the words behind its name, the wrapper's, or the service's
/// in `dc run … emulator`.
fn said_to_the_emulator(line: &str) -> Option<Vec<String>> {
    let line = line.split(" # ").next().unwrap_or_default();
    let behind = |name: &str| line.split_once(name).map(|(_, rest)| words(rest));
    if line.contains("dc run ") {
        return behind(" emulator ");
    }
    if let Some(said) = behind("local-emulator ") {
        return Some(said);
    }
    let said = words(line.strip_prefix("flashsale ")?);
    (said.first().map(String::as_str) != Some("restart")).then_some(said)
}

#[test]
fn commands_can_be_typed() {
    let mut count = 0;
    for line in code() {
        if let Some(said) = said_to_the_emulator(&line) {
            if let Err(error) =
                Arguments::try_parse_from(std::iter::once("local-emulator".to_owned()).chain(said))
            {
                panic!("infra/OPERATE.md: `{line}`: {error}");
            }
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} commands were found");
}

/// Adds the names of the settings of a table and of the tables in it.
fn name_settings(prefix: &str, table: &toml::Table, known: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        if let Some(inner) = value.as_table() {
            name_settings(&format!("{name}."), inner, known);
        }
        known.insert(name);
    }
}

#[test]
fn settings_exist() {
    let settings: toml::Table = SETTINGS.parse().unwrap();
    let mut known = BTreeSet::new();
    name_settings("", &settings, &mut known);
    let variables: BTreeSet<String> = known
        .iter()
        .map(|key| format!("FLASHSALE_{}", key.replace('.', "__").to_uppercase()))
        .collect();
    let readers: String =
        READERS.iter().map(|file| fs::read_to_string(root().join(file)).unwrap()).collect();
    let sources = sources();
    let mut count = 0;
    for line in code() {
        let name = line.split(['=', ' ']).next().unwrap_or_default();
        let plain =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.');
        let of_a_section = name
            .split_once('.')
            .is_some_and(|(section, _)| settings.get(section).is_some_and(toml::Value::is_table));
        if plain
            && (of_a_section || name.contains('_') && !name.contains('.'))
            && !OF_OTHERS.contains(&name)
        {
            // A name without a section may also be a metric, a test or a log field: then it occurs
            // in the code.
            let exists = known.contains(name) || !of_a_section && sources.contains(name);
            assert!(exists, "infra/OPERATE.md names the setting {name}, which does not exist");
            count += 1;
        }
        for (at, _) in line.match_indices("FLASHSALE_") {
            let name: String = line[at..]
                .chars()
                .take_while(|char| {
                    char.is_ascii_uppercase() || char.is_ascii_digit() || *char == '_'
                })
                .collect();
            let exists = ["FLASHSALE_CONFIG"].contains(&name.as_str())
                || variables.contains(&name)
                || readers.contains(&name);
            assert!(exists, "infra/OPERATE.md names the variable {name}, which nothing reads");
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} settings were found");
}

#[test]
fn alerts_are_explained() {
    let alerts: BTreeSet<&str> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let section =
        PAGE.split("\n## Alerts\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let explained: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(
        explained, alerts,
        "the alerts of infra/OPERATE.md and of infra/prometheus/rules.yml"
    );
}

#[test]
fn links_and_files_exist() {
    let slug = |title: &str| -> String {
        let kept = title.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() }).collect()
    };
    let titles = |page: &str| -> BTreeSet<String> {
        page.lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| slug(line.trim_start_matches('#').trim()))
            .collect()
    };
    for link in PAGE.split("](").skip(1) {
        let link = link.split(')').next().unwrap();
        if link.starts_with("https://") {
            continue;
        }
        let (file, title) = link.split_once('#').unwrap_or((link, ""));
        let page = if file.is_empty() {
            PAGE.to_owned()
        } else {
            let path = root().join("infra").join(file);
            assert!(path.exists(), "infra/OPERATE.md links to {file}, which does not exist");
            if title.is_empty() {
                continue;
            }
            fs::read_to_string(path).unwrap()
        };
        assert!(
            title.is_empty() || titles(&page).contains(title),
            "infra/OPERATE.md links to {link}: no such title"
        );
    }
    let joined = code().join("\n");
    for (at, _) in joined.match_indices("infra/") {
        let before = joined[..at].chars().next_back().unwrap_or(' ');
        let name: String = joined[at..]
            .chars()
            .take_while(|char| char.is_alphanumeric() || "/._-@".contains(*char))
            .collect();
        // Files that an installation makes are not in the tree.
        let made =
            ["infra/secrets", "infra/tls", "infra/.env"].iter().any(|made| name.starts_with(made));
        assert!(
            before == '/' || made || root().join(name.trim_end_matches('.')).exists(),
            "infra/OPERATE.md names {name}, which does not exist"
        );
    }
}
