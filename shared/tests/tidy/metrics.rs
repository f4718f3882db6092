//! Metrics are declared once: the page, the alerts and the dashboard use exactly the declared ones.

use std::collections::{BTreeMap, BTreeSet};

use flashsale::metrics::{ALL, Kind, Measured, Metric, Shown};
use serde_json::Value;

use super::{product, read, sources};

const RULES: &str = "infra/prometheus/rules.yml";
const RULE_TESTS: &str = "infra/prometheus/rules.test.yml";
const DASHBOARD: &str = "infra/grafana/dashboards/flashsale.json";

/// The row of `infra/METRICS.md`.
fn row(metric: &Metric) -> Vec<String> {
    let shown = match metric.shown {
        Shown::Always => "always",
        Shown::Servers => "with servers",
        Shown::Embedded => "when embedded",
        Shown::Processes => "with `--host processes`",
        Shown::Event => "from the first one on",
    };
    let measured = match metric.measured {
        Measured::Emulator => "emulator",
        Measured::Functions => "functions",
    };
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
    vec![
        format!("`{}`", metric.name),
        metric.kind.word().to_owned(),
        labels,
        shown.to_owned(),
        measured.to_owned(),
        metric.help.to_owned(),
    ]
}

#[test]
fn metrics_md_has_every_metric_as_it_is_declared() {
    let document = read("infra/METRICS.md");
    let written: Vec<Vec<String>> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    for (declared, written) in ALL.iter().map(row).zip(&written) {
        assert_eq!(&declared, written, "infra/METRICS.md and shared/src/metrics.rs");
    }
    assert_eq!(
        written.len(),
        ALL.len(),
        "rows of infra/METRICS.md and metrics of shared/src/metrics.rs"
    );
}

#[test]
fn code_counts_only_what_is_declared_and_declares_only_what_it_counts() {
    let declarations = read("shared/src/metrics.rs");
    let mut code = String::new();
    for folder in ["shared/src", "functions", "local-emulator/src"] {
        for (name, text) in sources(folder) {
            let text = product(&text);
            for word in ["counter!", "gauge!", "histogram!"] {
                assert!(
                    !text.contains(&format!("{word}(")),
                    "{name}: declare the metric in shared/src/metrics.rs"
                );
            }
            if name != "shared/src/metrics.rs" {
                code.push_str(text);
            }
        }
    }
    for metric in ALL.iter().filter(|metric| !metric.name.starts_with("process_")) {
        let before = declarations.split(&format!(" \"{}\"", metric.name)).next().unwrap();
        let constant = before.rsplit([' ', '\n']).next().unwrap();
        let used = code.contains(constant)
            || product(&declarations).contains(&format!("{constant}.counter("));
        assert!(used, "{} is declared and nothing counts it", metric.name);
    }
}

/// Whether a metric's name may contain the character.
fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == ':'
}

/// The names of metrics in a PromQL expression, each with the labels that its selector names.
fn named(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) =
        ["flashsale_", "process_"].iter().filter_map(|first| rest.find(first)).min()
    {
        let inside = rest[..start].ends_with(is_word);
        rest = &rest[start..];
        let end = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let labels = after.strip_prefix('{').map(|selector| {
            let selector = selector.split('}').next().unwrap();
            selector
                .split(',')
                .filter_map(|pair| pair.split(['=', '!']).next())
                .map(str::trim)
                .collect()
        });
        // Otherwise a part of another program's metric, such as `node_systemd…process_…`, would
        // match.
        if !inside {
            found.push((name, labels.unwrap_or_default()));
        }
        rest = after;
    }
    found
}

/// The declaration of a metric by its PromQL name.
fn declared(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| {
        let parts = ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name.strip_suffix(end) == Some(metric.name));
        match metric.kind {
            Kind::Histogram(_) => parts,
            Kind::Counter | Kind::Gauge => metric.name == name,
        }
    })
}

/// Every query of the dashboard with the panel's title.
fn queries() -> Vec<(String, String)> {
    let board: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((
                panel["title"].as_str().unwrap().to_owned(),
                target["expr"].as_str().unwrap().to_owned(),
            ));
        }
    }
    assert!(found.len() > 40, "{}", found.len());
    found
}

#[test]
fn rules_and_dashboard_name_declared_metrics_and_their_labels() {
    let rules = read(RULES);
    let prose = |line: &&str| {
        ["#", "summary:", "description:", "runbook:"]
            .iter()
            .any(|start| line.trim_start().starts_with(start))
    };
    let expressions = rules.lines().filter(|line| !prose(line)).collect::<Vec<_>>().join("\n");
    let texts = queries()
        .into_iter()
        .chain([(RULES.to_owned(), expressions), (RULE_TESTS.to_owned(), read(RULE_TESTS))]);
    let mut count = 0;
    for (place, text) in texts {
        for (name, labels) in named(&text) {
            let metric = declared(name).unwrap_or_else(|| {
                panic!("{place}: {name} is not declared in shared/src/metrics.rs")
            });
            for label in labels {
                let of_prometheus = ["instance", "job", "le"].contains(&label);
                assert!(
                    of_prometheus || metric.labels.contains(&label),
                    "{place}: {name} has no label {label}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// The alerts of the rules with their lines.
fn alerts() -> BTreeMap<String, String> {
    let rules = read(RULES);
    let found: BTreeMap<String, String> = rules
        .split("- alert: ")
        .skip(1)
        .map(|alert| {
            let (name, rest) = alert.split_once('\n').unwrap();
            (name.trim().to_owned(), rest.split("\n      - ").next().unwrap().to_owned())
        })
        .collect();
    assert!(found.len() >= 20, "{found:?}");
    found
}

#[test]
fn every_alert_says_what_is_wrong_and_where_it_is_explained() {
    let page = read("infra/OPERATE.md");
    let headings: BTreeSet<&str> = page
        .split("\n## Alerts\n")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let alerts = alerts();
    for (name, lines) in &alerts {
        for annotation in ["summary: ", "description: "] {
            assert!(lines.contains(annotation), "{name} has no {annotation}");
        }
        assert!(lines.contains("severity: page") || lines.contains("severity: ticket"), "{name}");
        let runbook = format!("runbook: infra/OPERATE.md#{}\n", name.to_lowercase());
        assert!(format!("{lines}\n").contains(&runbook), "{name}: expected {runbook}");
        assert!(
            headings.contains(name.as_str()),
            "infra/OPERATE.md has no `### {name}` under Alerts"
        );
    }
    for heading in headings {
        assert!(
            alerts.contains_key(heading),
            "infra/OPERATE.md explains the alert {heading}, which does not exist"
        );
    }
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests: String = read(RULE_TESTS).split_whitespace().collect::<Vec<_>>().join(" ");
    for name in alerts().keys() {
        assert!(
            tests.contains(&format!("alertname: {name}, eval_time:")),
            "no test in which {name} is silent"
        );
        let fires = tests.split(&format!("- alertname: {name} eval_time: ")).skip(1).any(|case| {
            case.split_once(" exp_alerts: ").is_some_and(|(time, expected)| {
                time.split(' ').count() == 1 && expected.starts_with("- exp_labels:")
            })
        });
        assert!(fires, "no test in which {name} fires");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_load() {
    let board: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let source = read("infra/grafana/provisioning/datasources/prometheus.yml");
    assert!(
        board["schemaVersion"].as_u64().unwrap() >= 39
            && board["uid"].is_string()
            && board["title"].is_string()
    );
    assert!(
        board["templating"]["list"].as_array().unwrap().is_empty(),
        "variables must be checked here too"
    );
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    let is_source = |value: &Value| {
        let uid = value["uid"].as_str().unwrap_or_default();
        value["type"] == "prometheus" && source.contains(&format!("uid: {uid}\n"))
    };
    for annotation in board["annotations"]["list"].as_array().unwrap() {
        assert!(is_source(&annotation["datasource"]), "{annotation}");
    }
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is another panel's too"
        );
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(
                    x < 24 && cells.insert((x, y)),
                    "{title} lies over another panel or beside the page"
                );
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            ["stat", "timeseries"].contains(&panel["type"].as_str().unwrap())
                && is_source(&panel["datasource"]),
            "{title}"
        );
        let units = ["short", "reqps", "ops", "s", "percentunit", "bytes"];
        assert!(
            units.contains(&panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap()),
            "{title}"
        );
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(
                is_source(&target["datasource"])
                    && letters.insert(target["refId"].as_str().unwrap()),
                "{title}"
            );
            let expression = target["expr"].as_str().unwrap();
            assert!(!expression.contains('$'), "{title}: no variable is defined");
            // A legend may name only labels that the query keeps: those of `by (…)`, or all.
            for label in target["legendFormat"]
                .as_str()
                .unwrap()
                .split("{{")
                .skip(1)
                .map(|rest| rest.split("}}").next().unwrap())
            {
                let kept: Vec<&str> = expression
                    .split("by (")
                    .skip(1)
                    .flat_map(|rest| rest.split(')').next().unwrap().split(", "))
                    .collect();
                assert!(
                    kept.is_empty() || kept.contains(&label),
                    "{title}: {expression} keeps no label {label}"
                );
            }
        }
        assert!(!letters.is_empty(), "{title} has no query");
    }
}
