//! `/healthz`: the process runs. `/readyz`: every part behind it answers, and it is not about to
//! stop.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, http::StatusCode, routing::get};
use flashsale::{app::App, logging::OncePerSecond};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use crate::host::Host;

/// Timeout for the check of one part.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a result is used again: the parts are checked at most once a second, however many
/// clients ask.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Whether each part answers.
type Parts = Vec<(&'static str, bool)>;

/// The health of the process and its parts. Cheap to clone; the clones share the result of the last
/// check.
#[derive(Clone)]
pub struct Health {
    host: Host,
    draining: watch::Receiver<bool>,
    last: Arc<Mutex<Option<(Instant, Parts)>>>,
}

impl Health {
    pub fn new(host: &Host, draining: &watch::Receiver<bool>) -> Self {
        Self { host: host.clone(), draining: draining.clone(), last: Arc::default() }
    }

    pub const fn app(&self) -> &App {
        self.host.app()
    }

    /// Whether `/readyz` answers 200, and whether each part answers.
    pub async fn state(&self) -> (bool, Parts) {
        let parts = self.parts().await;
        (!*self.draining.borrow() && parts.iter().all(|(_, up)| *up), parts)
    }
}

pub fn router(health: &Health) -> Router {
    let health = health.clone();
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(move || ready(health.clone())))
}

async fn ready(health: Health) -> (StatusCode, Json<Value>) {
    let parts = health.parts().await;
    let draining = *health.draining.borrow();
    let down: Vec<&str> = parts.iter().filter(|(_, up)| !up).map(|(name, _)| *name).collect();
    let parts: Map<String, Value> = parts
        .iter()
        .map(|(name, up)| ((*name).to_owned(), json!(if *up { "up" } else { "down" })))
        .collect();
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

impl Health {
    /// Single flight: concurrent callers share one round of checks. All parts are checked in
    /// parallel, so that a round takes no longer than one check, however many are down.
    async fn parts(&self) -> Parts {
        static LINES: OncePerSecond = OncePerSecond::new();
        let mut last = self.last.lock().await;
        if let Some((at, parts)) = &*last
            && at.elapsed() < CHECK_PERIOD
        {
            return parts.clone();
        }
        let app = self.app();
        let checks = app.ports.health.iter().map(async |part| {
            let outcome = tokio::time::timeout(CHECK_TIMEOUT, part.check()).await;
            let up = matches!(outcome, Ok(Ok(())));
            if !up && let Some(left_out) = LINES.pass() {
                tracing::warn!(part = part.name(), error = ?outcome, left_out, "not ready");
            }
            (part.name(), up)
        });
        let (mut parts, clock) =
            tokio::join!(join_all(checks), tokio::time::timeout(CHECK_TIMEOUT, app.clock_fault()));
        // A ledger that does not tell the time is already reported as down above.
        parts.push(("clock", !matches!(clock, Ok(Ok(Some(_))))));
        if let Host::Processes(..) = self.host {
            let unwell = self.host.unwell();
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
}
