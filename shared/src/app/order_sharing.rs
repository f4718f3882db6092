//! Stores orders in the shared cache, where status requests of every process find them.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::App;
use crate::{
    domain::{AdmittedOrder, CacheEntry, Order, OrderId, OrderStatus},
    logging::OncePerSecond,
    ports::{Cache, Clock},
};

/// How long a cached order that is recorded is trusted without asking the ledger.
const RECORDED_TRUSTED_MS: u64 = 2_000;
/// Longest time that a group of publishes waits for the cache. An order that is missing there is
/// found by its reservation.
const QUEUED_WITHIN: Duration = Duration::from_millis(250);

/// Where orders are shared.
#[derive(Clone)]
pub(super) struct OrderSharing {
    cache: Arc<dyn Cache>,
    clock: Arc<dyn Clock>,
    queued_ms: u64,
}

impl OrderSharing {
    /// Queued orders are kept for `queued_ms`.
    pub(super) fn new(cache: Arc<dyn Cache>, clock: Arc<dyn Clock>, queued_ms: u64) -> Self {
        Self { cache, clock, queued_ms }
    }

    /// Stores orders, never over a newer version, with one call for all of them. A failure is only
    /// logged.
    pub(super) async fn share(&self, orders: impl IntoIterator<Item = &Order>) {
        let entries: Vec<_> = orders.into_iter().map(|order| self.entry(order)).collect();
        if let Err(error) = self.cache.put(&entries, self.clock.now()).await {
            static LINES: OncePerSecond = OncePerSecond::new();
            if let Some(left_out) = LINES.pass() {
                tracing::warn!(%error, orders = entries.len(), left_out, "shared cache");
            }
        }
    }

    /// Stores orders that are being published, for a short time at most.
    pub(super) async fn share_queued(&self, admitted: &[AdmittedOrder]) {
        let orders: Vec<_> = admitted.iter().map(Order::queued).collect();
        if timeout(QUEUED_WITHIN, self.share(&orders)).await.is_err() {
            static LINES: OncePerSecond = OncePerSecond::new();
            if let Some(left_out) = LINES.pass() {
                tracing::warn!(orders = orders.len(), left_out, "the shared cache did not answer");
            }
        }
    }

    fn entry(&self, order: &Order) -> CacheEntry {
        CacheEntry {
            key: cache_key(order.order_id),
            version: order.version,
            value: serde_json::to_vec(order).expect("an order can be written as JSON"),
            ttl_ms: if order.status == OrderStatus::Queued {
                self.queued_ms
            } else {
                RECORDED_TRUSTED_MS
            },
        }
    }
}

impl App {
    /// Stores an order in the shared cache, never over a newer version.
    pub(super) async fn share_order(&self, order: &Order) {
        self.order_sharing.share([order]).await;
    }
}

/// The order's key in the shared cache.
pub(super) fn cache_key(order_id: OrderId) -> String {
    format!("order:{order_id}")
}
