//! `GET /metrics`: the metrics of [`flashsale::metrics`] in Prometheus' text format, on the admin
//! port only.
//!
//! Most are updated where the events happen. Gauges of other state (the queue, the health of the
//! parts, this process) are read at each scrape.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, routing::get};
use flashsale::{
    app::App,
    domain::Timestamp,
    metrics::{
        ALL, BUILD_INFO, Kind, PART_UP, QUEUE_AGE, QUEUE_PARKED, QUEUE_WAITING, READY,
        SESSION_LOOKUPS, SESSION_LOOKUPS_AT_ONCE, SESSIONS_LOOKED_UP, describe, number, seconds,
    },
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{sync::watch, time::interval};

use crate::health::Health;

/// How often recorded values are merged into the histograms.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
/// Timeout for the queue's answer.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts collecting. Call this before any metric is made: handles that were made earlier count
/// nothing.
pub fn start() -> anyhow::Result<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            builder =
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    let handle = builder.install_recorder().context("metrics")?;
    describe();
    BUILD_INFO.gauge(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    Ok(handle)
}

/// Merges recorded values into the histograms until `stop` turns true: otherwise the memory of a
/// process that is not scraped would grow with each request.
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

/// The admission time of the oldest order that the poller has received but not settled.
#[derive(Clone, Default)]
pub struct Oldest(Arc<AtomicI64>);

impl Oldest {
    /// Sets the admission time; `None`: the poller holds no order.
    pub fn set(&self, admitted_at: Option<Timestamp>) {
        self.0.store(admitted_at.map_or(0, Timestamp::epoch_ms), Ordering::Relaxed);
    }

    fn age_seconds(&self, now: Timestamp) -> f64 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0.0,
            admitted_ms => seconds((now.epoch_ms() - admitted_ms).max(0)),
        }
    }
}

/// The route that Prometheus scrapes.
pub fn router(handle: PrometheusHandle, health: Health, oldest: Oldest) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let (handle, health, oldest) = (handle.clone(), health.clone(), oldest.clone());
            async move {
                ask(&health, &oldest).await;
                handle.render()
            }
        }),
    )
}

/// Sets the gauges that are read at each scrape. A part that does not answer delays this by two
/// seconds, less than Prometheus' scrape timeout.
async fn ask(health: &Health, oldest: &Oldest) {
    let app = health.app();
    let (depth, (ready, parts)) =
        tokio::join!(tokio::time::timeout(DEPTH_TIMEOUT, app.ports.queue.depth()), health.state());
    let (waiting, parked) = match depth {
        Ok(Ok(depth)) => (number(depth.waiting), number(depth.parked)),
        failed => {
            tracing::warn!(error = ?failed, "queue depth");
            // Unknown: the last known values would be misleading.
            (f64::NAN, f64::NAN)
        }
    };
    QUEUE_WAITING.gauge(&[]).set(waiting);
    QUEUE_PARKED.gauge(&[]).set(parked);
    QUEUE_AGE.gauge(&[]).set(oldest.age_seconds(app.now()));
    READY.gauge(&[]).set(f64::from(u8::from(ready)));
    for (part, up) in parts {
        PART_UP.gauge(&[part]).set(f64::from(u8::from(up)));
    }
    look_ups(app);
    process();
}

fn look_ups(app: &App) {
    let figures = app.session_lookups();
    SESSION_LOOKUPS.counter(&[]).absolute(figures.lookups);
    SESSIONS_LOOKED_UP.counter(&[]).absolute(figures.sessions);
    SESSION_LOOKUPS_AT_ONCE.gauge(&[]).set(number(figures.at_once_max as u64));
}

/// Sets the gauges of this process: memory, CPU time and descriptors.
fn process() {
    #[cfg(target_os = "linux")]
    metrics_process::Collector::default().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_order_which_the_poller_holds() {
        let oldest = Oldest::default();
        let now = Timestamp::from_epoch_ms(1_000_000);
        assert_eq!(oldest.age_seconds(now), 0.0);
        oldest.set(Some(Timestamp::from_epoch_ms(987_500)));
        assert_eq!(oldest.age_seconds(now), 12.5);
        oldest.set(Some(Timestamp::from_epoch_ms(1_000_500)));
        assert_eq!(oldest.age_seconds(now), 0.0, "another machine's clock may be ahead");
        oldest.set(None);
        assert_eq!(oldest.age_seconds(now), 0.0);
    }

    #[tokio::test]
    async fn upkeep_runs_by_itself_and_ends_when_told() {
        let (stop, stopping) = watch::channel(false);
        let (done, mut runs) = tokio::sync::mpsc::unbounded_channel();
        let upkeep = tokio::spawn(every(Duration::from_millis(1), stopping, move || {
            done.send(()).unwrap_or_default()
        }));
        for _ in 0..3 {
            runs.recv().await.expect("it runs again and again");
        }
        stop.send_replace(true);
        upkeep.await.unwrap();
    }
}
