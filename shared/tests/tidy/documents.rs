//! Checks that the targets of the documents' links exist: files, headings, names in files, tests.

use std::{fs, path::Path};

use super::{read, root, sources};

/// The documents whose links are checked.
const DOCUMENTS: [&str; 7] = [
    ".github/CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    "API.md",
    "README.md",
    "infra/METRICS.md",
    "infra/OPERATE.md",
    "shared/ARCHITECTURE.md",
];

/// A document without its blocks of code.
fn prose(document: &str) -> String {
    document.split("\n```").step_by(2).collect()
}

/// The text and the target of every link.
fn links(prose: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = prose.split("](").collect();
    parts
        .windows(2)
        .map(|pair| (pair[0].rsplit('[').next().unwrap(), pair[1].split(')').next().unwrap()))
        .collect()
}

/// The anchors that GitHub generates from the headings.
fn anchors(document: &str) -> Vec<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept =
                heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
            kept.map(|char| if char == ' ' { '-' } else { char }).collect()
        })
        .collect()
}

/// The fault of a link. Text in code style must be a name that occurs in the target file.
fn fault(path: &Path, text: &str, anchor: Option<&str>) -> Option<&'static str> {
    let linked = || fs::read_to_string(path).unwrap();
    let name = text.strip_prefix('`').and_then(|text| text.strip_suffix('`'));
    if !path.exists() {
        Some("there is no such file")
    } else if anchor.is_some_and(|anchor| !anchors(&linked()).iter().any(|known| known == anchor)) {
        Some("the file has no such heading")
    } else if name.is_some_and(|name| !linked().contains(name)) {
        Some("the file does not have this name")
    } else {
        None
    }
}

#[test]
fn links_of_documents_lead_somewhere() {
    for name in DOCUMENTS {
        let prose = prose(&read(name));
        let links = links(&prose);
        for (text, target) in links.into_iter().filter(|(_, target)| !target.contains("://")) {
            let (path, anchor) = target
                .split_once('#')
                .map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let document = root().join(name);
            let path = match path {
                "" => document,
                path => document.parent().unwrap().join(path),
            };
            let fault = fault(&path, text, anchor);
            assert_eq!(fault, None, "{name}: [{text}]({target})");
        }
    }
}

#[test]
fn recipes_name_tests_that_exist() {
    let folders = ["shared", "functions", "local-emulator", "infra"];
    let code: String =
        folders.into_iter().flat_map(sources).map(|(_, text)| text).collect::<Vec<_>>().concat();
    let prose = prose(&read(".github/CONTRIBUTING.md"));
    // Names of tests are sentences; no other name in the recipes has as many words.
    let is_test = |word: &&str| {
        word.matches('_').count() > 2
            && word.chars().all(|char| char == '_' || char.is_ascii_alphanumeric())
    };
    let tests: Vec<&str> = prose.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(tests.len() > 10, "{tests:?}");
    for test in tests {
        assert!(code.contains(&format!("fn {test}(")), "CONTRIBUTING.md: {test}: no such test");
    }
}
