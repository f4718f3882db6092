//! The order worker's use case: it records the orders and entries of queue messages in the ledger,
//! and passes the outcomes to the admission store.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use futures_util::{StreamExt as _, future::join, stream};
use metrics::Histogram;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::App;
use crate::{
    domain::{
        AdmittedOrder, EndedOrder, EntryMessage, Order, QueueMessage, Recorded, RejectReason,
        SaleId, Unrecordable,
    },
    logging::OncePerSecond,
    metrics::{ORDER_SECONDS_TO_FINAL, ORDERS_RECORDED, Outcomes, elapsed},
    ports::{StoreError, Stored},
    trace::{self, BatchSpans, STEP},
};

/// Sales whose outcomes are passed to the admission store at the same time.
const TOLD_AT_ONCE: usize = 16;
/// Longest time to pass one sale's outcomes to the stores. The batch is acknowledged after that, so
/// that a shard that does not answer delays the orders of other sales by no more than this.
const TELL_WITHIN: Duration = Duration::from_secs(1);

static RECORDED: Outcomes = Outcomes::new(ORDERS_RECORDED);
static TO_FINAL: LazyLock<Histogram> = LazyLock::new(|| ORDER_SECONDS_TO_FINAL.histogram(&[]));

/// Messages that can't be used, with the reason; each is listed once, however often it is in the
/// batch.
pub(super) type Unusable = BTreeMap<Vec<u8>, String>;

impl App {
    /// Records the orders and entries of a batch of messages. On `Ok`, each of them is in the ledger
    /// or was parked, and the messages can be acknowledged. On an error, the whole batch must be
    /// delivered again; only messages that the queue accepted before it failed were parked.
    ///
    /// # Errors
    /// When the ledger or the queue does not answer, or the ledger holds a corrupt row.
    pub async fn record_messages(&self, bodies: &[Vec<u8>]) -> Stored<()> {
        let (mut requests, mut entries) = (Vec::new(), Vec::new());
        let mut unusable = Unusable::new();
        for body in bodies {
            match read(body) {
                Ok(Message::Orders(message)) => requests.extend(message.orders),
                Ok(Message::Entries(message)) => entries.extend(message.entries),
                Err(reason) => drop(unusable.insert(body.clone(), reason)),
            }
        }
        for chunk in entries.chunks(self.config.worker.record_orders_max) {
            self.record_entries(chunk, &mut unusable).await?;
        }
        let mut corrupt = None;
        for chunk in requests.chunks(self.config.worker.record_orders_max) {
            let spans = BatchSpans::begin(chunk);
            match self
                .record_sale_by_sale(chunk, &mut unusable, &spans)
                .instrument(spans.batch.clone())
                .await
            {
                Err(error @ StoreError::Corrupt { .. }) => corrupt = Some(error),
                outcome => outcome?,
            }
        }
        // Parking comes last, so that a batch that is repeated because of the ledger does not park
        // the same messages each time.
        match corrupt {
            Some(error) => Err(error),
            None => self.park(unusable).await,
        }
    }

    /// Records all orders in one call. If the ledger finds a corrupt row, the orders of each sale
    /// are recorded separately, so that a broken row of one sale does not hold up the orders of
    /// others.
    async fn record_sale_by_sale(
        &self,
        requests: &[AdmittedOrder],
        unusable: &mut Unusable,
        spans: &BatchSpans,
    ) -> Stored<()> {
        let together = self.record(requests, unusable, spans).await;
        if !matches!(together, Err(StoreError::Corrupt { .. })) {
            return together;
        }
        let mut sales: BTreeMap<SaleId, Vec<AdmittedOrder>> = BTreeMap::new();
        for request in requests {
            sales.entry(request.sale_id).or_default().push(request.clone());
        }
        let mut outcome = Ok(());
        for (sale_id, requests) in sales {
            match self.record(&requests, unusable, spans).await {
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, %sale_id, orders = requests.len(), "the orders of this sale can't be recorded; they come again");
                    outcome = Err(error);
                }
                recorded => recorded?,
            }
        }
        outcome
    }

    /// Records the orders and passes on the outcomes. Orders that can never be recorded become
    /// `unusable`.
    async fn record(
        &self,
        requests: &[AdmittedOrder],
        unusable: &mut Unusable,
        spans: &BatchSpans,
    ) -> Stored<()> {
        let (step, recording) = (
            tracing::info_span!(target: STEP, "ledger.record", otel.kind = "client"),
            spans.recording(requests),
        );
        let pay_within_ms = self.config.orders.pay_within_seconds * 1_000;
        let outcomes =
            self.ports.orders.record(requests, self.now(), pay_within_ms).instrument(step).await;
        drop(recording);
        let outcomes = outcomes?;
        self.measure(&outcomes);
        let mut recorded = Vec::with_capacity(outcomes.len());
        for (outcome, request) in outcomes.into_iter().zip(requests) {
            match outcome {
                Ok(outcome) => {
                    if tracing::enabled!(tracing::Level::DEBUG) {
                        let (status, trace_id) =
                            (outcome.order.status.as_str(), trace::trace_id(request));
                        tracing::debug!(order_id = %request.order_id, status, trace_id, "recorded");
                    }
                    recorded.push((outcome, request));
                }
                Err(Unrecordable(reason)) => {
                    let message =
                        QueueMessage { v: QueueMessage::VERSION, orders: vec![request.clone()] };
                    let body =
                        serde_json::to_vec(&message).expect("a message can be written as JSON");
                    unusable.insert(body, reason);
                }
            }
        }
        self.tell(&recorded, spans).await;
        Ok(())
    }

    /// Counts the outcomes. The time of an order is measured only when it is first recorded.
    fn measure(&self, outcomes: &[Result<Recorded, Unrecordable>]) {
        let now = self.now();
        for outcome in outcomes {
            let word = match outcome {
                Ok(Recorded { fresh: false, .. }) => "known",
                Ok(Recorded { order, .. }) => {
                    TO_FINAL.record(elapsed(Duration::from_millis(now.since_ms(order.created_at))));
                    order.reason.map_or("confirmed", RejectReason::as_str)
                }
                Err(_) => "unrecordable",
            };
            RECORDED.add(word, 1);
        }
    }

    /// Passes the ledger's outcomes to the admission store and the cache. Idempotent: a redelivery
    /// does it again.
    ///
    /// The orders are recorded by now, even if this fails. So a sale that takes longer than
    /// [`TELL_WITHIN`] does not hold up the others: its reservations stay unsettled, and the
    /// sweeper settles or releases them once they are overdue.
    async fn tell(&self, recorded: &[(Recorded, &AdmittedOrder)], spans: &BatchSpans) {
        let mut sales: BTreeMap<SaleId, News> = BTreeMap::new();
        for (Recorded { order, .. }, request) in recorded {
            let news = sales.entry(order.sale_id).or_default();
            if order.status.is_active() {
                news.active.push((*request).clone());
            } else {
                news.ended.push(order.into());
            }
            news.orders.push(order);
        }
        let telling =
            stream::iter(sales).for_each_concurrent(TOLD_AT_ONCE, async |(sale_id, news)| {
                let sharing = self.order_sharing.share(news.orders.iter().copied());
                let told =
                    timeout(TELL_WITHIN, join(self.tell_admission(sale_id, &news, spans), sharing))
                        .await;
                if told.is_err() {
                    let cause = format!("no answer within {} ms", TELL_WITHIN.as_millis());
                    let error =
                        StoreError::Unavailable { store: "admission store or cache", cause };
                    left_to_the_sweeper(sale_id, news.orders.len(), Err(error));
                }
            });
        telling.await;
    }

    async fn tell_admission(&self, sale_id: SaleId, news: &News<'_>, spans: &BatchSpans) {
        if !news.active.is_empty() {
            let step = tracing::info_span!(target: STEP, "admission.settle", otel.kind = "client");
            let settling = spans.settling(&news.active);
            left_to_the_sweeper(
                sale_id,
                news.active.len(),
                self.ports.admission.settle(sale_id, &news.active).instrument(step).await,
            );
            drop(settling);
        }
        if !news.ended.is_empty() {
            left_to_the_sweeper(
                sale_id,
                news.ended.len(),
                self.ports.admission.release(sale_id, &news.ended).await,
            );
        }
    }
}

/// The ledger's outcomes for one sale.
#[derive(Default)]
struct News<'a> {
    orders: Vec<&'a Order>,
    /// Orders that hold a unit.
    active: Vec<AdmittedOrder>,
    /// Orders that hold none.
    ended: Vec<EndedOrder>,
}

fn left_to_the_sweeper(sale_id: SaleId, orders: usize, outcome: Stored<()>) {
    static LINES: OncePerSecond = OncePerSecond::new();
    if let Err(error) = outcome
        && let Some(left_out) = LINES.pass()
    {
        tracing::warn!(%error, %sale_id, orders, left_out, "the admission store may not know yet what became of orders; the sweeper will tell it");
    }
}

/// A message of either version.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Orders(QueueMessage),
    Entries(EntryMessage),
}

/// Parses a message, or returns why it can't be used.
fn read(body: &[u8]) -> Result<Message, String> {
    match serde_json::from_slice::<QueueMessage>(body) {
        Ok(message) if message.v == QueueMessage::VERSION => Ok(Message::Orders(message)),
        Ok(QueueMessage { v, .. }) => Err(unknown_version(v)),
        Err(error) => read_other(body, &error),
    }
}

/// Parses a message that does not have the shape of version 1, or returns why it can't be used:
/// most of all because of its version.
fn read_other(body: &[u8], error: &serde_json::Error) -> Result<Message, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice(body) {
        Ok(Version { v: QueueMessage::VERSION }) => {
            Err(format!("not a version 1 message: {error}"))
        }
        Ok(Version { v: EntryMessage::VERSION }) => serde_json::from_slice(body)
            .map(Message::Entries)
            .map_err(|error| format!("not a version 2 message: {error}")),
        Ok(Version { v }) => Err(unknown_version(v)),
        Err(error) => Err(format!("not a message of ours: {error}")),
    }
}

fn unknown_version(v: u32) -> String {
    format!(
        "message version {v} is unknown, this worker reads up to version {}: a newer release has written it, and can use it when it is tried again",
        EntryMessage::VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::Entry, testing};

    #[test]
    fn only_messages_of_known_versions_are_read() {
        let sale = testing::sale(1);
        let message =
            QueueMessage { v: 1, orders: vec![testing::request(&sale, testing::user_id())] };
        let body = serde_json::to_vec(&message).unwrap();
        assert_eq!(read(&body), Ok(Message::Orders(message)));
        let entry = Entry {
            sale_id: sale.sale_id,
            user_id: testing::user_id(),
            entered_at: testing::START,
        };
        let entries = EntryMessage { v: 2, entries: vec![entry] };
        let entered = serde_json::to_vec(&entries).unwrap();
        assert_eq!(read(&entered), Ok(Message::Entries(entries)));
        assert!(read(br#"{"v":3,"orders":[],"new":1}"#).unwrap_err().contains("version 3"));
        assert!(read(br#"{"v":3,"orders":{}}"#).unwrap_err().contains("version 3"));
        assert!(read(br#"{"v":2,"entries":{}}"#).unwrap_err().starts_with("not a version 2"));
        assert!(read(br#"{"v":1,"orders":[{}]}"#).unwrap_err().starts_with("not a version 1"));
        assert!(read(b"hello").unwrap_err().starts_with("not a message"));
        let text = String::from_utf8(body).unwrap().replace("\"price\"", "\"prize\"");
        assert!(read(text.as_bytes()).is_err());
    }

    #[test]
    fn fields_that_a_newer_release_has_added_are_ignored() {
        let message = QueueMessage {
            v: 1,
            orders: vec![testing::request(&testing::sale(1), testing::user_id())],
        };
        let mut newer = serde_json::to_value(&message).unwrap();
        newer["sent_by"] = "0.9.0".into();
        newer["orders"][0]["gift_wrap"] = serde_json::json!({ "paper": "red" });
        assert_eq!(read(newer.to_string().as_bytes()), Ok(Message::Orders(message)));
    }
}
