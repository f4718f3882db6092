//! `/healthz`: the process runs. `/readyz`: every part behind it answers, and it is not about to stop.

use std::time::Duration;

use axum::{Json, Router, http::StatusCode, routing::get};
use flashsale::app::App;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// Longest wait for one part.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

pub fn router(app: &App, draining: &watch::Receiver<bool>) -> Router {
    let (app, draining) = (app.clone(), draining.clone());
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(move || ready(app.clone(), *draining.borrow())))
}

async fn ready(app: App, draining: bool) -> (StatusCode, Json<Value>) {
    let mut parts = Map::new();
    let mut down = Vec::new();
    for part in &app.ports.health {
        let state = match tokio::time::timeout(CHECK_TIMEOUT, part.check()).await {
            Ok(Ok(())) => "up",
            failed => {
                tracing::warn!(part = part.name(), error = ?failed, "not ready");
                down.push(part.name());
                "down"
            }
        };
        parts.insert(part.name().to_owned(), json!(state));
    }
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
