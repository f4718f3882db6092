//! After a purchase, `/metrics` shows all declared metrics and no others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flashsale::metrics::{ALL, Kind, Shown};
use flashsale_servers::ServerKind;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    client::Client,
    emulator::{Emulator, Place},
    shop::{Bought, buy, follow},
};

/// One reading of `/metrics`.
struct Reading {
    text: String,
    /// `HELP` and `TYPE` by metric.
    help: BTreeMap<String, String>,
    kind: BTreeMap<String, String>,
    /// The metrics that have values, without what a histogram appends to its name.
    present: BTreeSet<String>,
}

impl Reading {
    async fn of(emulator: &Emulator) -> Self {
        let admin = emulator
            .said
            .iter()
            .find_map(|line| line.strip_prefix("metrics and health on "))
            .unwrap();
        let text = String::from_utf8(
            Client::new(admin).get("/metrics", None).await.expect(200).bytes.to_vec(),
        )
        .unwrap();
        let comments = |word: &str| -> BTreeMap<String, String> {
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("# {word} "))?.split_once(' '));
            lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
        };
        let (help, kind) = (comments("HELP"), comments("TYPE"));
        let values = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let present = values
            .map(|line| {
                let name = line.split(['{', ' ']).next().unwrap();
                let of_histogram =
                    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                of_histogram
                    .filter(|name| kind.get(*name).is_some_and(|kind| kind == "histogram"))
                    .unwrap_or(name)
                    .to_owned()
            })
            .collect();
        Self { help, kind, present, text }
    }

    /// The value of one line, as `name{label="value"}`.
    fn value(&self, line: &str) -> Option<f64> {
        self.text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }

    /// The sum over all lines of a metric.
    fn sum(&self, name: &str) -> f64 {
        let lines = self.text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Asserts that every metric shown is declared, with its help and kind, and that all in
    /// `expected` are shown.
    fn check(&self, expected: &[Shown]) {
        for name in &self.present {
            let declared = ALL
                .iter()
                .find(|metric| metric.name == name)
                .unwrap_or_else(|| panic!("{name} is not declared"));
            assert_eq!(
                self.help.get(name).map(String::as_str),
                Some(declared.help),
                "HELP of {name}"
            );
            assert_eq!(
                self.kind.get(name).map(String::as_str),
                Some(declared.kind.word()),
                "TYPE of {name}"
            );
            self.check_labels(declared.name, declared.kind, declared.labels);
        }
        let missing: Vec<&str> = ALL
            .iter()
            .filter(|metric| {
                expected.contains(&metric.shown) && !self.present.contains(metric.name)
            })
            .map(|metric| metric.name)
            .collect();
        assert!(missing.is_empty(), "declared and not shown: {missing:?}\n{}", self.text);
        for unexpected in [Shown::Servers, Shown::Embedded, Shown::Processes]
            .into_iter()
            .filter(|shown| !expected.contains(shown))
        {
            let shown: Vec<&str> = ALL
                .iter()
                .filter(|metric| metric.shown == unexpected && self.present.contains(metric.name))
                .map(|metric| metric.name)
                .collect();
            assert!(shown.is_empty(), "{unexpected:?}: {shown:?}");
        }
    }

    fn check_labels(&self, name: &str, kind: Kind, labels: &[&str]) {
        let value = if matches!(kind, Kind::Histogram(_)) {
            format!("{name}_count")
        } else {
            name.to_owned()
        };
        for line in self.text.lines().filter_map(|line| line.strip_prefix(&value)) {
            let of_line: Vec<&str> =
                line.split("=\"").map(|part| part.rsplit(['{', ',']).next().unwrap()).collect();
            let of_line = if line.starts_with('{') { &of_line[..of_line.len() - 1] } else { &[] };
            assert!(
                line.starts_with([' ', '{']) && of_line == labels,
                "{value}{line}: its labels are {labels:?}"
            );
        }
    }
}

/// Buys one unit, waits until its order is confirmed and a sweep is completed, and then reads
/// `/metrics`.
async fn after_a_purchase(place: &Place) -> (Emulator, Reading) {
    let (tokens, sale) = (place.seed(2), place.sale(1));
    let emulator = place.start(&["--no-demo", "--admin-listen", "127.0.0.1:0"]);
    let clients = [emulator.client.clone()];
    emulator.client.get("/api/sales", None).await.expect(200);
    let Bought::Order(order) = buy(&clients, &sale, &tokens[0], false, 0).await else {
        panic!("not bought")
    };
    assert_eq!(follow(&clients, &order, &tokens[0]).await, "confirmed");
    let path = format!("/api/sales/{sale}/tickets");
    emulator.client.post(&path, Some(&tokens[1]), json!({})).await.expect_problem(409, "sold-out");
    emulator
        .client
        .post(&format!("/api/orders/{order}/payment"), Some(&tokens[0]), json!({}))
        .await
        .expect(200);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reading = Reading::of(&emulator).await;
        if reading
            .value("flashsale_sweeper_last_sweep_timestamp_seconds")
            .is_some_and(|at| at > 0.0)
        {
            return (emulator, reading);
        }
        assert!(Instant::now() < deadline, "no sweep: {}", reading.text);
        sleep(Duration::from_millis(200)).await;
    }
}

/// Asserts the counts after one purchase and one refusal, on every backend.
fn check_the_purchase(reading: &Reading) {
    for (line, value) in [
        ("flashsale_tickets_total{outcome=\"issued\"}", 1.0),
        ("flashsale_tickets_total{outcome=\"sold-out\"}", 1.0),
        ("flashsale_orders_total{outcome=\"accepted\"}", 1.0),
        ("flashsale_orders_recorded_total{outcome=\"confirmed\"}", 1.0),
        ("flashsale_payments_total{outcome=\"paid\"}", 1.0),
        ("flashsale_order_final_seconds_count", 1.0),
        ("flashsale_publish_group_orders_sum", 1.0),
        ("flashsale_publish_seconds_count{outcome=\"confirmed\"}", 1.0),
        ("flashsale_order_batch_seconds_count", 1.0),
        ("flashsale_queue_parked_messages", 0.0),
        ("flashsale_queue_oldest_message_age_seconds", 0.0),
        ("flashsale_ready", 1.0),
        ("flashsale_part_up{part=\"database\"}", 1.0),
        ("flashsale_part_up{part=\"clock\"}", 1.0),
        ("flashsale_sweeper_leader", 1.0),
        ("flashsale_build_info{version=\"0.1.0\"}", 1.0),
        ("flashsale_connections_refused_total", 0.0),
    ] {
        assert_eq!(reading.value(line), Some(value), "{line} in {}", reading.text);
    }
    let labels =
        "function=\"seckill\",method=\"POST\",route=\"/api/sales/{sale_id}/orders\",status=\"202\"";
    assert_eq!(reading.value(&format!("flashsale_http_requests_total{{{labels}}}")), Some(1.0));
    assert_eq!(
        reading.value(&format!("flashsale_http_request_duration_seconds_count{{{labels}}}")),
        Some(1.0)
    );
    assert_eq!(
        reading.value(&format!(
            "flashsale_http_request_duration_seconds_bucket{{{labels},le=\"30\"}}"
        )),
        Some(1.0)
    );
    let final_after = reading.value("flashsale_order_final_seconds_sum").unwrap();
    assert!((0.0..30.0).contains(&final_after), "{final_after}");
    assert!(reading.sum("flashsale_connections_open") >= 1.0);
    assert!(
        reading.sum("flashsale_cache_lookups_total") >= reading.sum("flashsale_cache_misses_total")
    );
    assert!(reading.sum("flashsale_cache_misses_total") >= 1.0);
    if cfg!(target_os = "linux") {
        assert!(reading.value("process_resident_memory_bytes").unwrap() > 1e6);
        assert!(
            reading.value("process_open_fds").unwrap() < reading.value("process_max_fds").unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_declared_metric_is_shown_after_a_purchase_and_no_other() {
    let place = Place::embedded();
    let (emulator, reading) = after_a_purchase(&place).await;
    check_the_purchase(&reading);
    reading.check(&[Shown::Always, Shown::Embedded]);
    assert!(reading.value("flashsale_sqlite_commit_seconds_count").unwrap() >= 1.0);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn every_declared_metric_is_shown_on_servers_too() {
    let place = tokio::task::spawn_blocking(Place::servers).await.unwrap();
    let (emulator, reading) = after_a_purchase(&place).await;
    check_the_purchase(&reading);
    reading.check(&[Shown::Always, Shown::Servers]);
    for line in [
        "flashsale_redis_call_seconds_count{call=\"checkout\"}",
        "flashsale_redis_call_seconds_count{call=\"gate\"}",
        "flashsale_database_acquire_seconds_count{pool=\"background\"}",
        "flashsale_database_call_seconds_count{pool=\"background\",kind=\"transaction\"}",
        "flashsale_database_connections_open{pool=\"requests\"}",
        "flashsale_connects_total{server=\"redis\",outcome=\"connected\"}",
        "flashsale_connects_total{server=\"rabbitmq\",outcome=\"connected\"}",
        "flashsale_connects_total{server=\"database\",outcome=\"connected\"}",
    ] {
        assert!(
            reading.value(line).is_some_and(|value| value >= 1.0),
            "{line} in {}",
            reading.text
        );
    }
    assert_eq!(reading.value("flashsale_database_connections_max{pool=\"requests\"}"), Some(10.0));
    assert_eq!(reading.value("flashsale_database_waiting_calls{pool=\"requests\"}"), Some(0.0));
    assert!(reading.value("flashsale_clock_difference_seconds").unwrap().abs() < 2.0);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn orders_that_wait_and_parts_that_are_down_are_shown() {
    let place = tokio::task::spawn_blocking(Place::servers).await.unwrap();
    let (tokens, sale) = (place.seed(1), place.sale(1));
    let emulator = place.start(&["--no-demo", "--admin-listen", "127.0.0.1:0"]);
    let clients = [emulator.client.clone()];
    emulator.client.get(&format!("/api/sales/{sale}"), None).await.expect(200);
    let servers = place.servers.as_ref().unwrap();
    servers.pause(ServerKind::MySql).unwrap();
    let Bought::Order(order) = buy(&clients, &sale, &tokens[0], false, 0).await else {
        panic!("not bought")
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut down, mut oldest) = (false, 0.0_f64);
    while !down || oldest < 3.0 {
        let begun = Instant::now();
        let reading = Reading::of(&emulator).await;
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "Prometheus waits no longer: {:?}",
            begun.elapsed()
        );
        down |= reading.value("flashsale_part_up{part=\"database\"}") == Some(0.0)
            && reading.value("flashsale_ready") == Some(0.0);
        oldest = oldest.max(reading.value("flashsale_queue_oldest_message_age_seconds").unwrap());
        assert!(Instant::now() < deadline, "{}", reading.text);
        sleep(Duration::from_millis(100)).await;
    }
    servers.resume(ServerKind::MySql).unwrap();
    assert_eq!(follow(&clients, &order, &tokens[0]).await, "confirmed");
    let reading = Reading::of(&emulator).await;
    assert!(
        reading.value("flashsale_order_final_seconds_sum").unwrap() >= 3.0,
        "from the admission on"
    );
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers and the functions' binaries: infra/test runs it"]
async fn what_the_emulator_measures_is_the_same_when_functions_are_processes() {
    let place = tokio::task::spawn_blocking(Place::processes).await.unwrap();
    let (emulator, reading) = after_a_purchase(&place).await;
    reading.check(&[Shown::Servers, Shown::Processes]);
    for (line, value) in [
        (
            "flashsale_http_requests_total{function=\"seckill\",method=\"POST\",route=\"/api/sales/{sale_id}/orders\",status=\"202\"}",
            1.0,
        ),
        ("flashsale_order_batch_seconds_count", 1.0),
        ("flashsale_sweeper_leader", 1.0),
        ("flashsale_part_up{part=\"functions\"}", 1.0),
        ("flashsale_function_crashes_total{function=\"seckill\"}", 0.0),
    ] {
        assert_eq!(reading.value(line), Some(value), "{line} in {}", reading.text);
    }
    assert!(reading.value("flashsale_function_starts_total{function=\"sweeper\"}").unwrap() >= 1.0);
    assert!(reading.value("flashsale_sweeps_total{outcome=\"swept\"}").unwrap() >= 1.0);
    assert_eq!(
        reading.value("flashsale_orders_total{outcome=\"accepted\"}"),
        None,
        "METRICS.md: functions are not asked"
    );
    emulator.stop();
}
