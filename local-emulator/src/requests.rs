//! Measures the requests for functions: their number and duration by function, route, method and
//! status.
//!
//! The cost per request is two atomic additions: the handles for each
//! combination of method and status are made at its first request, and kept.

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use flashsale::metrics::{HTTP_REQUESTS, HTTP_SECONDS, LIMITED};
use metrics::{Counter, Histogram};

use crate::{host::Host, request_counters::REQUEST_COUNTERS};

/// Methods that are counted by name; others are `OTHER`.
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "OTHER"];
/// Combinations of method and status that are kept for one route. More are counted too, but looked
/// up each time.
const KEPT_MAX: usize = 32;

/// The routes of all functions, in the order of the host's routes.
pub struct Requests(Vec<Route>);

/// One route.
struct Route {
    function: String,
    route: String,
    kept: [OnceLock<Handles>; KEPT_MAX],
}

/// The metrics of one combination.
struct Handles {
    method: usize,
    status: StatusCode,
    requests: Counter,
    seconds: Histogram,
}

impl Requests {
    /// The metrics for the routes of the host's functions.
    pub fn new(host: &Host) -> Self {
        Self(
            host.routes()
                .into_iter()
                .map(|(function, route)| Route::new(function, route))
                .collect(),
        )
    }

    /// The function and the pattern of a route, by the route's number.
    pub fn names(&self, route: usize) -> Option<(&str, &str)> {
        self.0.get(route).map(|route| (route.function.as_str(), route.route.as_str()))
    }

    /// Counts an answered request and its duration.
    pub fn count(&self, route: usize, method: &Method, response: &Response, took: Duration) {
        let (Some(route), status) = (self.0.get(route), response.status()) else { return };
        REQUEST_COUNTERS.count(&route.route, status, took);
        if status == StatusCode::TOO_MANY_REQUESTS {
            LIMITS.count(response);
        }
        route.count(number_of(method), status, took.as_secs_f64());
    }
}

impl Route {
    fn new(function: &str, route: &str) -> Self {
        Self {
            function: function.to_owned(),
            route: route.to_owned(),
            kept: [const { OnceLock::new() }; KEPT_MAX],
        }
    }

    fn make(&self, method: usize, status: StatusCode) -> Handles {
        let values =
            [self.function.as_str(), METHODS[method], self.route.as_str(), status.as_str()];
        Handles {
            method,
            status,
            requests: HTTP_REQUESTS.counter(&values),
            seconds: HTTP_SECONDS.histogram(&values),
        }
    }

    fn count(&self, method: usize, status: StatusCode, seconds: f64) {
        for slot in &self.kept {
            let handles = slot.get_or_init(|| self.make(method, status));
            if (handles.method, handles.status) == (method, status) {
                return handles.add(seconds);
            }
        }
        self.make(method, status).add(seconds);
    }
}

impl Handles {
    fn add(&self, seconds: f64) {
        self.requests.increment(1);
        self.seconds.record(seconds);
    }
}

/// A method from a bounded set, whatever the client sends.
#[cfg(feature = "otlp")]
pub fn method(method: &Method) -> &'static str {
    METHODS[number_of(method)]
}

fn number_of(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// The limits that have refused requests.
static LIMITS: Limits = Limits(Mutex::new(BTreeSet::new()));

struct Limits(Mutex<BTreeSet<String>>);

impl Limits {
    /// Counts a refusal by the limit that the answer names. The answer is read because the function
    /// may run in another process.
    fn count(&self, response: &Response) {
        LIMITED.counter(&[&self.name(response)]).increment(1);
    }

    /// Functions other than the product's may send any names, so the number of names is bounded.
    fn name(&self, response: &Response) -> String {
        const NAMES_MAX: usize = 32;
        let header = response.headers().get("ratelimit").and_then(|value| value.to_str().ok());
        let name =
            header.and_then(|value| value.strip_prefix('"')?.split('"').next()).unwrap_or("other");
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            names.contains(name) || (names.len() < NAMES_MAX && names.insert(name.to_owned()));
        if known { name } else { "other" }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_refusal() {
        let limits = Limits(Mutex::default());
        let name = |header: &str| {
            limits.name(
                &Response::builder()
                    .status(429)
                    .header("ratelimit", header)
                    .body(axum::body::Body::empty())
                    .unwrap(),
            )
        };
        assert_eq!(name("\"login-phone\";r=0;t=1"), "login-phone");
        assert_eq!(name("garbage"), "other");
        for number in 0..100 {
            let name = name(&format!("\"made-up-{number}\";r=0"));
            assert!(number < 30 || name == "other", "{name:?}");
        }
    }

    #[test]
    fn every_combination_is_counted_also_when_there_are_more_than_are_kept() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let route = Route::new("sales", "/api/sales");
            for _ in 0..2 {
                for code in 200..260 {
                    route.count(number_of(&Method::GET), StatusCode::from_u16(code).unwrap(), 0.01);
                }
                route.count(number_of(&Method::from_bytes(b"BREW").unwrap()), StatusCode::OK, 0.01);
            }
        });
        let text = handle.render();
        for (method, status) in [("GET", "200"), ("GET", "259"), ("OTHER", "200")] {
            let labels = format!(
                "function=\"sales\",method=\"{method}\",route=\"/api/sales\",status=\"{status}\""
            );
            assert!(
                text.contains(&format!("flashsale_http_requests_total{{{labels}}} 2\n")),
                "{labels} in {text}"
            );
            assert!(
                text.contains(&format!(
                    "flashsale_http_request_duration_seconds_count{{{labels}}} 2\n"
                )),
                "{labels} in {text}"
            );
        }
    }
}
