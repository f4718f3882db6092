//! Tells a supervisor with systemd's protocol (`Type=notify`) that the emulator is ready, alive, or stopping. Without
//! `NOTIFY_SOCKET` in the environment nothing is sent.

use std::time::Duration;

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt as _;
use sd_notify::NotifyState;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, interval},
};
use tower::ServiceExt as _;

/// A part that stays down longer than this does not hold up the start: the emulator serves what it can without it.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the state is looked at before the supervisor has been told that the emulator is ready, and afterwards.
const LOOK_STARTING: Duration = Duration::from_millis(200);
const LOOK_READY: Duration = Duration::from_secs(5);

/// Says when all parts answer, then keeps the watchdog and the status line up to date until `stop` turns true. `health`
/// has the route `/readyz`.
pub async fn run(health: Router, mut stop: watch::Receiver<bool>) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tokio::select! {
            () = report(health) => {}
            () = watchdog() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
    // An error means that the sender is gone, as after a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Says that the emulator is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

async fn report(health: Router) {
    let started = Instant::now();
    let (mut ready, mut said) = (false, String::new());
    loop {
        let status = status(&health).await;
        if !ready && (status == "ready" || started.elapsed() > READY_TIMEOUT) {
            ready = true;
            send(&[NotifyState::Ready]);
        }
        // Once it drains, `stopping` has said the last word.
        if said != status && status != "draining" {
            send(&[NotifyState::Status(&status)]);
            said = status;
        }
        tokio::time::sleep(if ready { LOOK_READY } else { LOOK_STARTING }).await;
    }
}

/// What `/readyz` says, in a few words.
async fn status(health: &Router) -> String {
    let request =
        Request::get("/readyz").body(Body::empty()).expect("a request with a constant path");
    let Ok(response) = health.clone().oneshot(request).await;
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let down: Vec<&str> =
        said["down"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let status = said["status"].as_str().unwrap_or("unknown");
    if down.is_empty() { status.to_owned() } else { format!("{status}: {}", down.join(", ")) }
}

/// Shows that tasks still run, three times within the supervisor's limit. It does not ask over the network: a gateway that
/// is full of connections is no reason to be killed.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(limit / 3);
    loop {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor can't be told");
    }
}
