//! Notifies a supervisor by systemd's protocol (`Type=notify`) that the emulator is ready, alive,
//! or stopping. Does nothing if `NOTIFY_SOCKET` is not in the environment.

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

/// A part that is down longer than this does not delay the start further: the emulator serves what
/// it can without it.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the state is checked, before and after the supervisor was notified of readiness.
const LOOK_STARTING: Duration = Duration::from_millis(200);
const LOOK_READY: Duration = Duration::from_secs(5);

/// Notifies the supervisor when all parts answer, then keeps the watchdog and the status line up to
/// date until `stop` turns true. `health` is the router with `/readyz`.
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

/// Notifies the supervisor that the emulator is stopping.
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
        // Once the emulator drains, `stopping` has sent the final status.
        if said != status && status != "draining" {
            send(&[NotifyState::Status(&status)]);
            said = status;
        }
        tokio::time::sleep(if ready { LOOK_READY } else { LOOK_STARTING }).await;
    }
}

/// The answer of `/readyz` as a short status text.
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

/// Notifies the supervisor that tasks still run, three times within its limit. It makes no network
/// request: a gateway that has reached its limit of connections must not cause a restart.
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
        tracing::debug!(%error, "the supervisor can't be notified");
    }
}
