//! `serve`: everything running together, until a signal.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use flashsale::{
    config::{Config, public_address_of_this_machine},
    http::{self, TraceSource},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::{
    backend::Backend,
    cli,
    connections::{Connections, raise_descriptors},
    demo,
    gateway::{self, Gateway},
    health::{self, Health},
    host::Host,
    invoke_api,
    metrics::{self, Oldest},
    opening, poller, reporter, scheduler, supervisor,
    traces::Traces,
};

/// After SIGTERM the emulator exits within `drain_ms` plus 10 s. These are the timeouts: for the
/// current requests, batch and tick, then for the functions' processes, the queue's connections,
/// and private servers. Work that is cut off is repeated after the next start.
const TASKS_TIMEOUT: Duration = Duration::from_secs(4);
const FUNCTIONS_TIMEOUT: Duration = Duration::from_secs(1);
const QUEUE_TIMEOUT: Duration = Duration::from_millis(1_500);
const SERVERS_TIMEOUT: Duration = Duration::from_millis(2_500);

/// SIGTERM and SIGINT, caught from the creation of this value on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to catch the signals.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal comes. `figures` is the handle from [`metrics::start`].
pub async fn run(
    backend: Backend,
    demo: demo::Mode,
    mut signals: Signals,
    figures: Option<PrometheusHandle>,
    traces: Traces,
) -> anyhow::Result<ExitCode> {
    let app = backend.app.clone();
    let (stop, stopping) = watch::channel(false);
    let (drain, draining) = watch::channel(false);

    let connections = Connections::new(&app.config, raise_descriptors());
    let idle_timeout = Duration::from_millis(app.config.gateway.idle_timeout_ms);

    let host = Host::start(&app, None)?;
    let listener = bind(&app.config.listen, "--listen").await?;
    let address = listener.local_addr()?;
    let mut tasks = tokio::task::JoinSet::new();
    let (health, oldest) = (Health::new(&host, &draining), Oldest::default());
    if let Some(figures) = figures {
        refuse_public_figures(&app.config)?;
        let admin = bind(&app.config.admin_listen, "--admin-listen").await?;
        tasks.spawn(metrics::keep_up(figures.clone(), stopping.clone()));
        let router =
            metrics::router(figures, health.clone(), oldest.clone()).merge(health::router(&health));
        cli::say(&format!("metrics and health on http://{}", admin.local_addr()?))?;
        let router = http::finish(router, TraceSource::Nobody);
        let connections = Connections::aside(&app.config);
        tasks.spawn(gateway::serve(admin, router, connections, idle_timeout, stopping.clone()));
    }
    if !app.config.invoke_listen.is_empty() {
        let invoke = bind(&app.config.invoke_listen, "--invoke-listen").await?;
        let address = invoke.local_addr()?;
        cli::say(&format!("Invoke API on http://{address}"))?;
        let router = http::finish(invoke_api::router(&host, address), TraceSource::Nobody);
        let connections = Connections::aside(&app.config);
        tasks.spawn(gateway::serve(invoke, router, connections, idle_timeout, stopping.clone()));
    }
    tasks.spawn(poller::run(host.clone(), oldest, stopping.clone()));
    opening::wait(&app).await;
    demo::prepare(&app, demo).await?;
    let public = Gateway::new(&host, &health, &draining);
    tasks.spawn(gateway::serve(listener, public, connections, idle_timeout, stopping.clone()));
    tasks.spawn(reporter::run(app.clone(), stopping.clone()));
    tasks.spawn(supervisor::run(health::router(&health), stopping.clone()));
    tasks.spawn(scheduler::run(host.clone(), stopping.clone()));
    cli::say(&format!("listening on http://{address}"))?;

    let code = tokio::select! {
        () = signals.next() => ExitCode::SUCCESS,
        ended = tasks.join_next() => {
            // Each task runs until it is stopped. If one ends, the emulator stops instead of
            // running without it, so that a supervisor restarts it.
            tracing::error!(outcome = ?ended, "a part of the emulator has ended unexpectedly");
            ExitCode::FAILURE
        }
    };
    tracing::info!(drain_ms = app.config.drain_ms, "stopping");
    supervisor::stopping();
    drain.send_replace(true);
    if code == ExitCode::SUCCESS && app.config.drain_ms > 0 {
        // A second signal ends the delay.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(app.config.drain_ms)) => {}
            () = signals.next() => {}
        }
    }
    stop.send_replace(true);
    let ended = timeout(TASKS_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("tasks that did not end in time are cut off");
        tasks.shutdown().await;
    }
    if timeout(FUNCTIONS_TIMEOUT, host.stop()).await.is_err() {
        tracing::warn!("some functions' processes have not ended; their watchdog ends them");
    }
    drop(host);
    // In parallel, so that sending the last traces does not delay the rest.
    let (closed, ()) =
        tokio::join!(timeout(QUEUE_TIMEOUT, app.ports.source.close()), traces.close());
    if closed.is_err() {
        tracing::warn!(
            "the queue's connections were not closed in time; unsettled messages are redelivered"
        );
    }
    drop(app);
    if timeout(SERVERS_TIMEOUT, backend.close()).await.is_err() {
        tracing::warn!("the private servers are still stopping; their watchdog ends them");
    }
    Ok(code)
}

/// In production metrics may listen on `0.0.0.0` only if all addresses of this machine are private,
/// as in a container.
fn refuse_public_figures(config: &Config) -> anyhow::Result<()> {
    let everywhere = config
        .admin_listen
        .parse::<SocketAddr>()
        .is_ok_and(|address| address.ip().is_unspecified());
    if config.is_production() && everywhere {
        let public = public_address_of_this_machine()
            .context("admin_listen: the addresses of this machine can't be read: name one")?;
        if let Some(address) = public {
            anyhow::bail!(
                "admin_listen: this machine has the public address {address}, and metrics are not public: name a private one"
            );
        }
    }
    Ok(())
}

async fn bind(address: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{flag} {address}: can't listen there"))
}
