//! `/healthz`: the process runs. `/readyz`: every part behind it answers, and it is not about to stop.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, http::StatusCode, routing::get};
use flashsale::logging::OncePerSecond;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use crate::host::Host;

/// Longest wait for one part.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer is given again for so long: the parts are asked once a second, however many ask us.
const ANSWER_LIFE: Duration = Duration::from_secs(1);

/// What the parts said when they were last asked.
type LastLook = Arc<Mutex<Option<(Instant, Vec<(&'static str, bool)>)>>>;

pub fn router(host: &Host, draining: &watch::Receiver<bool>) -> Router {
    let (host, draining, last) = (host.clone(), draining.clone(), LastLook::default());
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(move || ready(host.clone(), Arc::clone(&last), *draining.borrow())))
}

async fn ready(host: Host, last: LastLook, draining: bool) -> (StatusCode, Json<Value>) {
    let looked = look(&host, &last).await;
    let down: Vec<&str> = looked.iter().filter(|(_, up)| !up).map(|(name, _)| *name).collect();
    let parts: Map<String, Value> = looked.iter().map(|(name, up)| ((*name).to_owned(), json!(if *up { "up" } else { "down" }))).collect();
    let status = if draining {
        "draining"
    } else if down.is_empty() {
        "ready"
    } else {
        "down"
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "status": status, "down": down, "parts": parts })))
}

/// Single flight: concurrent callers share one round of checks.
async fn look(host: &Host, last: &LastLook) -> Vec<(&'static str, bool)> {
    static LINES: OncePerSecond = OncePerSecond::new();
    let mut last = last.lock().await;
    if let Some((at, parts)) = &*last
        && at.elapsed() < ANSWER_LIFE
    {
        return parts.clone();
    }
    let mut parts = Vec::new();
    for part in &host.app().ports.health {
        let outcome = tokio::time::timeout(CHECK_TIMEOUT, part.check()).await;
        let up = matches!(outcome, Ok(Ok(())));
        if !up && let Some(left_out) = LINES.pass() {
            tracing::warn!(part = part.name(), error = ?outcome, left_out, "not ready");
        }
        parts.push((part.name(), up));
    }
    // A ledger that does not tell the time is down by itself, above.
    let clock = tokio::time::timeout(CHECK_TIMEOUT, host.app().clock_fault()).await;
    parts.push(("clock", !matches!(clock, Ok(Ok(Some(_))))));
    if let Host::Processes(..) = host {
        let unwell = host.unwell();
        if !unwell.is_empty()
            && let Some(left_out) = LINES.pass()
        {
            tracing::warn!(functions = ?unwell, left_out, "not ready: their processes end before they ask for work");
        }
        parts.push(("functions", unwell.is_empty()));
    }
    *last = Some((Instant::now(), parts.clone()));
    parts
}
