//! `GET /console/live`: figures of the running system, sent once a second as server-sent events to
//! the operator's console.
//!
//! Requests only increment counters in memory. The units of each sale in the admission store and
//! the depth of the queue cost a query: they are read once a second for all streams together, and
//! only while a stream is open. Request counts, refusals and latencies are those of this process;
//! units and queue depth are shared by all processes.

mod query;
mod stock;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::HeaderName,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use flashsale::{
    app::{Admin, App},
    domain::{QueueDepth, Timestamp},
    http::HandlerResult,
    logging::OncePerSecond,
    ports::Stored,
    problem::Problem,
};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    refusals::{LastMinute, REFUSALS, Summary},
    request_counters::{KINDS, OUTCOMES, REQUEST_COUNTERS, RequestCounts},
};
use query::Query;
use stock::{SaleList, SaleUnits};

const PERIOD: Duration = Duration::from_secs(1);
/// Largest number of open streams.
const STREAMS_MAX: usize = 20;
/// A stream ends after five minutes; the client reconnects and its session is checked again.
const STREAM_LIFE: Duration = Duration::from_secs(300);

/// The figures of one second.
#[derive(Debug, Clone, Serialize)]
struct Second {
    at: Timestamp,
    /// Requests of this second by kind and outcome.
    requests: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Refused requests of the last minute.
    refusals: Summary,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    queue_waiting: Option<u64>,
    queue_parked: Option<u64>,
    /// `None` when the store has failed or has not answered yet.
    sales: Option<Vec<SaleUnits>>,
}

/// State that all streams share.
#[derive(Clone)]
struct LiveView {
    app: App,
    seconds: watch::Sender<Option<Arc<str>>>,
    permits: Arc<Semaphore>,
    running: Arc<AtomicBool>,
    draining: watch::Receiver<bool>,
}

/// The route.
pub fn router(app: &App, draining: &watch::Receiver<bool>) -> Router {
    let live = LiveView {
        app: app.clone(),
        seconds: watch::channel(None).0,
        permits: Arc::new(Semaphore::new(STREAMS_MAX)),
        running: Arc::default(),
        draining: draining.clone(),
    };
    Router::new()
        .route(
            "/console/live",
            get(move |State(_): State<App>, _: Admin| {
                let live = live.clone();
                async move { live.watch() }
            }),
        )
        .with_state(app.clone())
}

impl LiveView {
    fn watch(self) -> HandlerResult<impl IntoResponse> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            Problem::RateLimited { name: "watchers", quota: None, retry_after_ms: 10_000 }
        })?;
        let subscriber = Subscriber {
            seconds: self.seconds.subscribe(),
            draining: self.draining.clone(),
            ends_at: Instant::now() + STREAM_LIFE,
            _permit: permit,
        };
        self.start();
        let events = stream::unfold(subscriber, |mut subscriber| async move {
            subscriber.next().await.map(|event| (Ok::<_, Infallible>(event), subscriber))
        });
        // A buffering proxy would delay the events.
        let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
        Ok(([unbuffered], Sse::new(events).keep_alive(KeepAlive::default())))
    }

    /// Starts the task that collects the figures every second while a stream is open. One task
    /// serves all streams.
    fn start(&self) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let live = self.clone();
        tokio::spawn(async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            let mut before = REQUEST_COUNTERS.now();
            let mut refusals = LastMinute::watch(&REFUSALS);
            let mut queries = Queries::default();
            loop {
                ticks.tick().await;
                let now = REQUEST_COUNTERS.now();
                let second = live.second(&now.since(&before), refusals.tick(), &mut queries).await;
                before = now;
                if let Ok(json) = serde_json::to_string(&second) {
                    live.seconds.send_replace(Some(json.into()));
                }
                if live.seconds.receiver_count() == 0 {
                    live.running.store(false, Ordering::Release);
                    // A stream opened between the count and this store found `running` set and
                    // started no task.
                    if live.seconds.receiver_count() == 0
                        || live.running.swap(true, Ordering::AcqRel)
                    {
                        return;
                    }
                }
            }
        });
    }

    async fn second(
        &self,
        counts: &RequestCounts,
        refusals: Summary,
        queries: &mut Queries,
    ) -> Second {
        let requests = KINDS.iter().zip(&counts.outcomes).map(|(kind, outcomes)| {
            (*kind, OUTCOMES.iter().copied().zip(outcomes.iter().copied()).collect())
        });
        let (queue, app, list) =
            (Arc::clone(&self.app.ports.queue), self.app.clone(), Arc::clone(&queries.sales));
        // A store that does not answer must not hold up the other figures.
        let (depth, sales) = tokio::join!(
            queries.depth.run(|| async move { queue.depth().await }),
            queries.units.run(|| async move { list.units(&app).await })
        );
        let (depth, sales) =
            (answered("the depth of the queue", depth), answered("the units of sales", sales));
        Second {
            at: self.app.now(),
            requests: requests.collect(),
            refusals,
            p50_ms: counts.quantile(50),
            p99_ms: counts.quantile(99),
            queue_waiting: depth.map(|depth| depth.waiting),
            queue_parked: depth.map(|depth| depth.parked),
            sales,
        }
    }
}

/// The queries made each second.
#[derive(Default)]
struct Queries {
    depth: Query<Stored<QueueDepth>>,
    units: Query<Stored<Vec<SaleUnits>>>,
    sales: Arc<SaleList>,
}

/// The answer, if there is one. A failure is logged; a late answer is left out without a log line.
fn answered<T>(what: &str, answer: Option<Stored<T>>) -> Option<T> {
    static LINES: OncePerSecond = OncePerSecond::new();
    match answer? {
        Ok(answer) => Some(answer),
        Err(error) => {
            if let Some(left_out) = LINES.pass() {
                tracing::warn!(%error, what, left_out, "the console can't show this");
            }
            None
        }
    }
}

/// One open stream.
struct Subscriber {
    seconds: watch::Receiver<Option<Arc<str>>>,
    draining: watch::Receiver<bool>,
    ends_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Subscriber {
    /// The next second; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                changed = self.seconds.changed() => changed.ok()?,
                _ = self.draining.wait_for(|draining| *draining) => return None,
                () = tokio::time::sleep_until(self.ends_at) => return None,
            }
            let second = self.seconds.borrow_and_update().clone();
            if let Some(json) = second {
                return Some(Event::default().event("second").data(json.as_ref()));
            }
        }
    }
}
