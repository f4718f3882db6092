//! `GET /console/live`: what happens, once a second, as server-sent events for the operator's console.
//!
//! Requests only add to counters in memory. What costs more (the units of each sale in the admission store, the depth of the
//! queue) is read once a second, for all who watch together, and only while somebody watches. Requests and latencies are those of this process;
//! units and queue are everybody's.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use flashsale::{
    app::{Admin, App},
    domain::{AdmissionState, QueueDepth, Sale, SaleId, Timestamp},
    http::HandlerResult,
    logging::OncePerSecond,
    ports::Stored,
    problem::Problem,
};
use futures_util::{future::join_all, stream};
use serde::Serialize;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

const PERIOD: Duration = Duration::from_secs(1);
/// Who may watch at a time.
const WATCHERS_MAX: usize = 20;
/// A stream ends after so long, and its reader comes again with a session that is still looked at.
const STREAM_LIFE: Duration = Duration::from_secs(300);
/// Sales shown, those that end last first.
const SALES_MAX: u32 = 10;
/// The list of these sales is read anew after so long.
const SALE_LIST_LIFE: Duration = Duration::from_secs(3);
/// A second is told without what a store has not answered by then.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// The counters of this process.
pub static TALLY: Tally = Tally::new();

/// What requests were about.
const KINDS: [&str; 3] = ["tickets", "orders", "other"];
/// What came of them.
const OUTCOMES: [&str; 5] = ["accepted", "too_late", "limited", "refused", "failed"];
/// Four latency buckets for each power of two, from 1 µs to over an hour.
const BUCKETS: usize = 128;

/// Requests by kind and outcome, and how long they took.
pub struct Tally {
    outcomes: [[AtomicU64; OUTCOMES.len()]; KINDS.len()],
    latencies: [AtomicU64; BUCKETS],
}

/// The counters at one moment.
#[derive(Clone, Copy)]
struct Counted {
    outcomes: [[u64; OUTCOMES.len()]; KINDS.len()],
    latencies: [u64; BUCKETS],
}

impl Tally {
    const fn new() -> Self {
        Self {
            outcomes: [const { [const { AtomicU64::new(0) }; OUTCOMES.len()] }; KINDS.len()],
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Counts one request.
    pub fn count(&self, route: &str, status: StatusCode, took: Duration) {
        let kind = match route {
            "/api/sales/{sale_id}/tickets" => 0,
            "/api/sales/{sale_id}/orders" => 1,
            _ => 2,
        };
        let outcome = match status.as_u16() {
            0..400 => 0,
            409 | 410 => 1,
            429 => 2,
            400..500 => 3,
            _ => 4,
        };
        self.outcomes[kind][outcome].fetch_add(1, Ordering::Relaxed);
        self.latencies[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> Counted {
        Counted {
            outcomes: std::array::from_fn(|kind| {
                std::array::from_fn(|outcome| self.outcomes[kind][outcome].load(Ordering::Relaxed))
            }),
            latencies: std::array::from_fn(|bucket| self.latencies[bucket].load(Ordering::Relaxed)),
        }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let power = micros.ilog2() as usize;
    // The two bits behind the highest say which quarter.
    let quarter = (micros >> (power - 2)) as usize & 3;
    (power * 4 + quarter).min(BUCKETS - 1)
}

/// The upper bound of a bucket, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a figure for a chart")]
fn bound_ms(bucket: usize) -> f64 {
    let (power, quarter) = (bucket / 4, (bucket % 4) as u64);
    ((4 + quarter + 1) << power) as f64 / 4.0 / 1e3
}

/// The latency that this share of the counted requests did not exceed; `None` when there were none.
fn quantile(counts: &[u64; BUCKETS], share_percent: u64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let wanted = (all * share_percent).div_ceil(100);
    let mut seen = 0;
    let reached = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    reached.filter(|_| all > 0).map(bound_ms)
}

/// One second.
#[derive(Debug, Clone, Serialize)]
struct Second {
    at: Timestamp,
    /// Requests of this second by kind and outcome.
    requests: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    queue_waiting: Option<u64>,
    queue_parked: Option<u64>,
    /// `None` when the store does not answer, or not yet.
    sales: Option<Vec<Units>>,
}

/// Where a sale's units are.
#[derive(Debug, Clone, Serialize)]
struct Units {
    sale_id: SaleId,
    title: String,
    stock: u32,
    available: u32,
    reserved: u32,
    sold: u32,
}

/// What the streams share.
#[derive(Clone)]
struct Live {
    app: App,
    seconds: watch::Sender<Option<Arc<str>>>,
    places: Arc<Semaphore>,
    running: Arc<AtomicBool>,
    draining: watch::Receiver<bool>,
}

/// The route.
pub fn router(app: &App, draining: &watch::Receiver<bool>) -> Router {
    let live = Live {
        app: app.clone(),
        seconds: watch::channel(None).0,
        places: Arc::new(Semaphore::new(WATCHERS_MAX)),
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

impl Live {
    fn watch(self) -> HandlerResult<impl IntoResponse> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::RateLimited { name: "watchers", quota: None, retry_after_ms: 10_000 }
        })?;
        let watcher = Watcher {
            seconds: self.seconds.subscribe(),
            draining: self.draining.clone(),
            ends_at: Instant::now() + STREAM_LIFE,
            _place: place,
        };
        self.look();
        let events = stream::unfold(watcher, |mut watcher| async move {
            watcher.next().await.map(|event| (Ok::<_, Infallible>(event), watcher))
        });
        // Proxies must not gather what is to be seen at once.
        let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
        Ok(([unbuffered], Sse::new(events).keep_alive(KeepAlive::default())))
    }

    /// Looks every second for as long as somebody watches; one look at a time is enough for all.
    fn look(&self) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let live = self.clone();
        tokio::spawn(async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            let mut before = TALLY.now();
            let mut looks = Looks::default();
            loop {
                ticks.tick().await;
                let now = TALLY.now();
                let second = live.second(&before, &now, &mut looks).await;
                before = now;
                if let Ok(json) = serde_json::to_string(&second) {
                    live.seconds.send_replace(Some(json.into()));
                }
                if live.seconds.receiver_count() == 0 {
                    live.running.store(false, Ordering::Release);
                    // Somebody may have come between the two lines.
                    if live.seconds.receiver_count() == 0
                        || live.running.swap(true, Ordering::AcqRel)
                    {
                        return;
                    }
                }
            }
        });
    }

    async fn second(&self, before: &Counted, now: &Counted, looks: &mut Looks) -> Second {
        let requests = KINDS.iter().enumerate().map(|(kind, name)| {
            let outcomes = OUTCOMES.iter().enumerate().map(|(outcome, name)| {
                (*name, now.outcomes[kind][outcome] - before.outcomes[kind][outcome])
            });
            (*name, outcomes.collect())
        });
        let latencies: [u64; BUCKETS] =
            std::array::from_fn(|bucket| now.latencies[bucket] - before.latencies[bucket]);
        let (queue, live, list) =
            (Arc::clone(&self.app.ports.queue), self.clone(), Arc::clone(&looks.list));
        // A store that is silent must not silence the rest.
        let (depth, sales) = tokio::join!(
            looks.depth.ask(|| async move { queue.depth().await }),
            looks.units.ask(|| async move { live.units(&list).await })
        );
        let (depth, sales) =
            (told("the depth of the queue", depth), told("the units of sales", sales));
        Second {
            at: self.app.now(),
            requests: requests.collect(),
            p50_ms: quantile(&latencies, 50),
            p99_ms: quantile(&latencies, 99),
            queue_waiting: depth.map(|depth| depth.waiting),
            queue_parked: depth.map(|depth| depth.parked),
            sales,
        }
    }

    /// Where the units are, as the admission store says: counting orders in the ledger costs a scan for each sale.
    async fn units(&self, list: &Mutex<SaleList>) -> Stored<Vec<Units>> {
        let ports = &self.app.ports;
        let mut list = list.lock().await;
        if list.read_at.is_none_or(|read_at| read_at.elapsed() >= SALE_LIST_LIFE) {
            list.sales = ports.sales.ending_last(self.app.now(), SALES_MAX).await?;
            list.read_at = Some(Instant::now());
        }
        let states =
            join_all(list.sales.iter().map(|sale| ports.admission.state(sale.sale_id))).await;
        shown(&list.sales, states)
    }
}

/// The units of the sales whose store answers. An error when none does.
fn shown(sales: &[Sale], states: Vec<Stored<AdmissionState>>) -> Stored<Vec<Units>> {
    let mut units = Vec::with_capacity(sales.len());
    let mut failed = None;
    for (sale, state) in sales.iter().zip(states) {
        let (stock, available, reserved, sold) = match state {
            Ok(AdmissionState::Open { stock, reserved, settled, .. }) => {
                (stock, stock.saturating_sub(reserved.saturating_add(settled)), reserved, settled)
            }
            // Nothing can be reserved; what the ledger has sold stays sold.
            Ok(AdmissionState::Rebuilding { .. } | AdmissionState::Missing) => {
                (sale.stock, 0, 0, sale.sold)
            }
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        units.push(Units {
            sale_id: sale.sale_id,
            title: sale.title.clone(),
            stock,
            available,
            reserved,
            sold,
        });
    }
    match failed {
        Some(error) if units.is_empty() => Err(error),
        _ => Ok(units),
    }
}

/// The sales that are shown, read anew after [`SALE_LIST_LIFE`].
#[derive(Default)]
struct SaleList {
    sales: Vec<Sale>,
    read_at: Option<Instant>,
}

/// What the stores are asked every second.
#[derive(Default)]
struct Looks {
    depth: Look<Stored<QueueDepth>>,
    units: Look<Stored<Vec<Units>>>,
    list: Arc<Mutex<SaleList>>,
}

/// One question at a time to a store, in a task of its own: to give up a query half way closes its connection.
struct Look<T>(Option<JoinHandle<T>>);

impl<T> Default for Look<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Look<T> {
    /// The answer; `None` when it does not come in time. Then the question goes on, and the next call waits for its answer
    /// instead of asking anew.
    async fn ask<F: Future<Output = T> + Send + 'static>(
        &mut self,
        question: impl FnOnce() -> F,
    ) -> Option<T> {
        let asking = self.0.get_or_insert_with(|| tokio::spawn(question()));
        let answer = tokio::time::timeout(LOOK_PATIENCE, asking).await.ok()?;
        self.0 = None;
        answer.ok()
    }
}

/// What was answered. A failure is logged, a late answer is only left out.
fn told<T>(what: &str, answer: Option<Stored<T>>) -> Option<T> {
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

/// One stream.
struct Watcher {
    seconds: watch::Receiver<Option<Arc<str>>>,
    draining: watch::Receiver<bool>,
    ends_at: Instant,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
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

#[cfg(test)]
mod tests;
