//! Figures in Prometheus' text format, on the admin port only.

use std::time::{Duration, Instant};

use crate::live::TALLY;
use anyhow::Context as _;
use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
    routing::get,
};
use flashsale::app::App;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS_SECONDS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Starts collecting.
pub fn start() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_SECONDS)?;
    builder.install_recorder().context("metrics")
}

/// Counts a request by route and status, and how long it took.
pub async fn count(route: MatchedPath, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method(request.method());
    let response = next.run(request).await;
    let took = started.elapsed();
    TALLY.count(route.as_str(), response.status(), took);
    let route = route.as_str().to_owned();
    let status = response.status().as_u16().to_string();
    metrics::histogram!("flashsale_http_seconds", "method" => method, "route" => route.clone()).record(took);
    metrics::counter!("flashsale_http_requests_total", "method" => method, "route" => route, "status" => status).increment(1);
    response
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
                handle.run_upkeep();
                handle.render()
            }
        }),
    )
}
