//! `serve`: everything running together, until a signal.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use flashsale::http;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{backend::Backend, cli, demo, gateway, health, metrics, poller, scheduler};

/// Everything must have ended by then; SIGTERM promises 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(9);

/// Serves until SIGTERM or SIGINT.
pub async fn run(backend: Backend, demo: demo::Wish) -> anyhow::Result<ExitCode> {
    let app = backend.app.clone();
    // Before anything is announced, so that a signal right after the announcement is not missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);
    let (drain, draining) = watch::channel(false);

    let listener = bind(&app.config.listen, "--listen").await?;
    let address = listener.local_addr()?;
    let mut tasks = tokio::task::JoinSet::new();
    if !app.config.admin_listen.is_empty() {
        let admin = bind(&app.config.admin_listen, "--admin-listen").await?;
        let router = metrics::router(metrics::start()?, app.clone()).merge(health::router(&app, &draining));
        cli::say(&format!("metrics and health on http://{}", admin.local_addr()?))?;
        tasks.spawn(gateway::serve(admin, http::finish(router), stopping.clone()));
    }
    demo::prepare(&app, demo).await?;
    tasks.spawn(gateway::serve(listener, gateway::public(&app, &draining), stopping.clone()));
    tasks.spawn(poller::run(app.clone(), stopping.clone()));
    tasks.spawn(scheduler::run(app.clone(), stopping));
    cli::say(&format!("listening on http://{address}"))?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    drain.send_replace(true);
    stop.send_replace(true);
    let ended = tokio::time::timeout(STOP_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("stopped before everything had ended; what was under way is done again by the next start");
    }
    app.ports.source.close().await;
    drop(app);
    backend.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn bind(address: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag} {address}: can't listen there"))
}
