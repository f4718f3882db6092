//! What the poller measures.

use flashsale::{
    domain::{Delivery, Timestamp},
    metrics::{BATCH_SECONDS, HANDED_BACK, elapsed},
};
use metrics::{Counter, Histogram};
use serde::Deserialize;
use tokio::time::Instant;

use crate::metrics::Oldest;

/// The metrics of the poller.
pub struct PollerMetrics {
    oldest: Oldest,
    batch_seconds: Histogram,
    pub handed_back: Counter,
}

impl PollerMetrics {
    pub fn new(oldest: Oldest) -> Self {
        Self {
            oldest,
            batch_seconds: BATCH_SECONDS.histogram(&[]),
            handed_back: HANDED_BACK.counter(&[]),
        }
    }

    /// Keep the value until the batch is settled.
    pub const fn batch(&self, begun: Instant) -> BatchInFlight<'_> {
        BatchInFlight { metrics: self, begun }
    }

    /// Records the age of the first readable order, which is the oldest, as the queue delivers the
    /// oldest message first.
    pub fn note_age(&self, batch: &[Delivery]) {
        #[derive(Deserialize)]
        struct Message {
            orders: Vec<Order>,
        }
        #[derive(Deserialize)]
        struct Order {
            admitted_at: Timestamp,
        }
        let admitted_at = |delivery: &Delivery| {
            let message: Message = serde_json::from_slice(&delivery.body).ok()?;
            message.orders.iter().map(|order| order.admitted_at).min()
        };
        self.oldest.set(batch.iter().find_map(admitted_at));
    }
}

/// A batch that is not settled yet.
pub struct BatchInFlight<'m> {
    metrics: &'m PollerMetrics,
    begun: Instant,
}

impl Drop for BatchInFlight<'_> {
    fn drop(&mut self) {
        self.metrics.oldest.set(None);
        self.metrics.batch_seconds.record(elapsed(self.begun.elapsed()));
    }
}
