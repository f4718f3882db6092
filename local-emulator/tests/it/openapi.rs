//! The OpenAPI document that the emulator serves agrees with API.md and with real answers.

use std::{collections::BTreeSet, process::Command};

use flashsale::problem::EXPLAINED;
use serde_json::{Value, json};

use crate::{
    emulator::Place,
    lambda::{python, python_dir},
};

/// Slugs in backticks.
fn slugs(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| EXPLAINED.iter().any(|line| line.slug == *word))
        .map(str::to_owned)
        .collect()
}

/// The section of API.md on one endpoint.
struct Section {
    /// `METHOD /path`.
    title: String,
    text: String,
}

impl Section {
    /// The sections on the functions' endpoints. A test in `src/documents/routes.rs` compares their
    /// titles with the code.
    fn all() -> Vec<Self> {
        let document = include_str!("../../../API.md");
        let sections =
            document.split("\n### ").skip(1).map(|section| section.split("\n## ").next().unwrap());
        let sections = sections.filter_map(|section| {
            let (title, text) = section.split_once('\n')?;
            title
                .contains(" /api/")
                .then(|| Self { title: title.to_owned(), text: text.to_owned() })
        });
        sections.collect()
    }

    /// The items of its list, each on one line.
    fn points(&self) -> Vec<String> {
        let list = self.text.split("```").next().unwrap();
        let points = list.split("\n- ").skip(1).map(|point| point.split("\n\n").next().unwrap());
        points.map(|point| point.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// Its answers in the order of the list: "201: …" is the answer on success.
    fn success(&self) -> String {
        let points = self.points();
        let status = points
            .iter()
            .find_map(|point| point.get(..3).filter(|start| start.parse::<u16>().is_ok()));
        status.unwrap_or_else(|| panic!("API.md names no answer of {}", self.title)).to_owned()
    }

    fn refusals(&self) -> BTreeSet<String> {
        self.points()
            .iter()
            .filter_map(|point| point.strip_prefix("Refusals: "))
            .flat_map(slugs)
            .collect()
    }

    fn needs_a_session(&self) -> bool {
        let words =
            self.text.split("```").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        words.contains("Signed in.") || words.contains("Admin.")
    }
}

/// The slugs that an answer can hold, by what its schema says of `type`.
fn told(document: &Value, response: &Value) -> BTreeSet<String> {
    let resolved = |value: &Value| match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{reference}"))
            .clone(),
        None => value.clone(),
    };
    let response = resolved(response);
    let schema = &response["content"]["application/problem+json"]["schema"];
    let schemas = schema["oneOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    let kind = |schema: &Value| {
        resolved(schema)["properties"]["type"]["enum"][0].as_str().unwrap_or_default().to_owned()
    };
    schemas
        .iter()
        .filter_map(|schema| kind(schema).strip_prefix("/problems/").map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_api_md_says() {
    let place = Place::embedded();
    let emulator = place.start(&["--no-demo"]);
    let document = emulator.client.get("/openapi.json", None).await.expect(200).json();
    assert_eq!(
        (&document["openapi"], &document["servers"]),
        (&json!("3.1.0"), &json!([{ "url": "/" }]))
    );

    // Problems that API.md documents for all endpoints at once, and repeats only to add details.
    let api_md = include_str!("../../../API.md");
    let rule = api_md
        .split("\nEvery endpoint can also answer")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let anywhere = slugs(rule);
    assert!(anywhere.contains("internal") && anywhere.contains("unauthenticated"), "{anywhere:?}");

    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let title = format!("{} {path}", method.to_uppercase());
            let section = Section::all().into_iter().find(|section| section.title == title);
            let section = section.unwrap_or_else(|| panic!("API.md lacks {title}"));
            let (mut refusals, mut successes) = (BTreeSet::new(), Vec::new());
            for (status, response) in operation["responses"].as_object().unwrap() {
                let slugs = told(&document, response);
                assert_eq!(
                    slugs.is_empty(),
                    status.starts_with('2'),
                    "{title}: {status} has problems, or a success"
                );
                for slug in &slugs {
                    let line = EXPLAINED
                        .iter()
                        .find(|line| line.slug == slug)
                        .unwrap_or_else(|| panic!("{title}: {slug} is unknown"));
                    assert_eq!(line.status.to_string(), *status, "{title}: {slug}");
                }
                if slugs.is_empty() {
                    successes.push(status.clone());
                }
                refusals.extend(slugs);
            }
            assert_eq!(successes, [section.success()], "{title}: the answer when all is well");
            let unknown: Vec<_> = section.refusals().difference(&refusals).cloned().collect();
            assert!(unknown.is_empty(), "{title}: only API.md has {unknown:?}");
            let particular: BTreeSet<String> = refusals.difference(&anywhere).cloned().collect();
            let untold: Vec<_> = particular.difference(&section.refusals()).cloned().collect();
            assert!(untold.is_empty(), "{title}: API.md lacks {untold:?}");
            // A section that names the problem itself needs a session for some requests only.
            assert_eq!(
                refusals.contains("unauthenticated"),
                section.needs_a_session() || section.refusals().contains("unauthenticated"),
                "{title}: whether it needs a session"
            );
            assert_eq!(
                operation["security"].is_array(),
                section.needs_a_session(),
                "{title}: whether it needs a session"
            );
            described.insert(title);
        }
    }
    let titles: BTreeSet<String> =
        Section::all().into_iter().map(|section| section.title).collect();
    assert_eq!(described, titles, "the document and API.md");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_comes_from_here_under_a_strict_policy() {
    let place = Place::embedded();
    let emulator = place.start(&["--no-demo"]);
    let page = emulator.client.get("/explorer", None).await.expect(200);
    let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';")
            && !policy.contains("unsafe")
            && !policy.contains("http"),
        "{policy}"
    );
    let html = String::from_utf8(page.bytes.to_vec()).unwrap();
    assert!(
        !html.contains("://") && !html.contains("<style") && !html.contains("style="),
        "{html}"
    );
    let mut files = 0;
    for file in html.split('"').filter(|text| text.starts_with('/')) {
        let answer = emulator.client.get(file, None).await.expect(200);
        assert!(!answer.bytes.is_empty(), "{file}");
        let kind = if file.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind), "{file}");
        files += 1;
    }
    assert_eq!(files, 3);
    emulator.client.get("/explorer/nothing.js", None).await.expect_problem(404, "not-found");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python packages: infra/test runs it"]
async fn made_up_requests_get_only_the_answers_that_are_described() {
    // Without a log, because the worker warns of each unusable message that it parks.
    let mut place = Place::embedded().set("LOG", "off");
    for limit in [
        "CAPTCHA",
        "REGISTER",
        "LOGIN",
        "LOGIN_PHONE",
        "ACCOUNT",
        "TICKET",
        "ORDER",
        "ORDER_STATUS",
        "ADMIN",
    ] {
        for setting in ["LIMIT", "BURST"] {
            place = place.set(&format!("LIMITS__{limit}__{setting}"), "1000000");
        }
    }
    let shoppers = place.seed(300);
    let emulator = place.start(&["--demo", "--invoke-listen", "127.0.0.1:0"]);
    let printed = emulator
        .said
        .iter()
        .find(|line| line.starts_with("demo admin"))
        .expect("the demo administrator is printed");
    let password = printed.rsplit(' ').next().unwrap();
    let account = json!({ "phone": "+12015550199", "password": password });
    let admin =
        emulator.client.post("/api/sessions", None, account).await.expect(201).text("token");
    let bases = [emulator.client.base.clone(), emulator.invoker().base.clone()];
    let run = move || {
        Command::new(python())
            .arg(python_dir().join("exploring.py"))
            .args(bases)
            .arg(admin)
            .args(shoppers)
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    emulator.stop();
}
