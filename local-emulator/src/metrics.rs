//! Figures in Prometheus' text format, on the admin port only.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::live::TALLY;
use anyhow::Context as _;
use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::StatusCode,
    middleware::Next,
    response::Response,
    routing::get,
};
use flashsale::app::App;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{sync::watch, time::interval};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS_SECONDS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How often what was recorded is folded into the histograms.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Starts collecting.
pub fn start() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_SECONDS)?;
    builder.install_recorder().context("metrics")
}

/// Folds what was recorded into the histograms, until `stop` turns true: without it each request of a process whose
/// figures nobody reads would take memory.
pub async fn keep_up(handle: PrometheusHandle, stop: watch::Receiver<bool>) {
    every(UPKEEP_PERIOD, stop, || handle.run_upkeep()).await;
}

async fn every(period: Duration, mut stop: watch::Receiver<bool>, work: impl Fn()) {
    let mut ticks = interval(period);
    loop {
        tokio::select! {
            _ = ticks.tick() => work(),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Counts a request by route and status, and how long it took.
pub async fn count(route: MatchedPath, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method(request.method());
    let response = next.run(request).await;
    let took = started.elapsed();
    TALLY.count(route.as_str(), response.status(), took);
    let route = route.as_str().to_owned();
    if let Some(limit) = limit(&response) {
        metrics::counter!("flashsale_limited_total", "limit" => limit).increment(1);
    }
    let status = response.status().as_u16().to_string();
    metrics::histogram!("flashsale_http_seconds", "method" => method, "route" => route.clone()).record(took);
    metrics::counter!("flashsale_http_requests_total", "method" => method, "route" => route, "status" => status).increment(1);
    response
}

/// The limit that has refused the request. It is read from the answer, so that it is counted wherever the function runs.
/// A function that is not ours may name what it likes: the names are bounded.
fn limit(response: &Response) -> Option<String> {
    const NAMES_MAX: usize = 32;
    static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let header = response.headers().get("ratelimit").and_then(|value| value.to_str().ok());
    let name = header.and_then(|value| value.strip_prefix('"')?.split('"').next()).unwrap_or("other");
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = names.contains(name) || (names.len() < NAMES_MAX && names.insert(name.to_owned()));
    Some(if known { name } else { "other" }.to_owned())
}

/// One of a bounded set of words, whatever a client sends.
fn method(method: &axum::http::Method) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"].into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

/// The route that Prometheus reads.
pub fn router(handle: PrometheusHandle, app: App) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let (handle, app) = (handle.clone(), app.clone());
            async move {
                match tokio::time::timeout(Duration::from_secs(2), app.ports.queue.depth()).await {
                    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; queues stay far below 2^52")]
                    Ok(Ok(depth)) => {
                        metrics::gauge!("flashsale_queue_waiting").set(depth.waiting as f64);
                        metrics::gauge!("flashsale_queue_parked").set(depth.parked as f64);
                    }
                    failed => tracing::warn!(error = ?failed, "queue depth"),
                }
                let lookups = app.session_lookups();
                metrics::counter!("flashsale_session_lookups_total").absolute(lookups.lookups);
                metrics::counter!("flashsale_sessions_looked_up_total").absolute(lookups.sessions);
                #[expect(clippy::cast_precision_loss, reason = "a handful")]
                metrics::gauge!("flashsale_session_lookups_at_once_max").set(lookups.at_once_max as f64);
                handle.render()
            }
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_refusal() {
        let answer = |status: u16, header: &str| {
            limit(&Response::builder().status(status).header("ratelimit", header).body(axum::body::Body::empty()).unwrap())
        };
        assert_eq!(answer(429, "\"login-phone\";r=0;t=1").as_deref(), Some("login-phone"));
        assert_eq!(answer(429, "garbage").as_deref(), Some("other"));
        assert_eq!(answer(200, "\"ticket\";r=0;t=1"), None);
        for number in 0..100 {
            let name = answer(429, &format!("\"made-up-{number}\";r=0"));
            assert!(number < 30 || name.as_deref() == Some("other"), "{name:?}");
        }
    }

    #[tokio::test]
    async fn upkeep_runs_by_itself_and_ends_when_told() {
        let (stop, stopping) = watch::channel(false);
        let (done, mut runs) = tokio::sync::mpsc::unbounded_channel();
        let upkeep = tokio::spawn(every(Duration::from_millis(1), stopping, move || done.send(()).unwrap_or_default()));
        for _ in 0..3 {
            runs.recv().await.expect("it runs again and again");
        }
        stop.send_replace(true);
        upkeep.await.unwrap();
    }
}
