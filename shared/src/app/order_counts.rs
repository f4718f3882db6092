//! A sale's number of orders by status, for consoles that ask every few seconds.
//!
//! The ledger counts row by row, so a count of a large sale takes long. Such a count is used again
//! for a while: the consoles of one process keep the ledger busy with a sale for about a twentieth
//! of the time. A count that took less than [`SHORT_MS`] is made again at each request.

use std::{collections::BTreeMap, sync::Arc};

use super::{App, local_cache::LocalCache};
use crate::{
    domain::SaleId,
    ports::{StoreError, Stored},
};

/// A count that takes less than this is not used again, in milliseconds.
const SHORT_MS: u64 = 50;
/// A count is used for this many times as long as it took.
const LIFE_TIMES: u64 = 20;
/// Longest time that a count is used, in milliseconds.
const LIFE_MS_MAX: u64 = 30_000;
/// Most sales whose counts are kept.
const SALES_MAX: usize = 100;

/// Orders by the name of their status.
pub(super) type Counts = BTreeMap<String, u64>;

/// The counts of this process.
pub(super) struct OrderCounts(LocalCache<SaleId, Counted, StoreError>);

#[derive(Clone)]
struct Counted {
    counts: Arc<Counts>,
    /// By the monotonic clock.
    usable_until_ms: u64,
}

impl OrderCounts {
    pub(super) fn new() -> Self {
        Self(LocalCache::lasting(SALES_MAX))
    }
}

impl App {
    /// The number of a sale's orders by status. Concurrent callers share one count.
    pub(super) async fn order_counts(&self, sale_id: SaleId) -> Stored<Arc<Counts>> {
        let OrderCounts(kept) = self.order_counts.as_ref();
        if kept.get(&sale_id).is_some_and(|counted| counted.usable_until_ms <= self.monotonic_ms())
        {
            kept.remove(&sale_id);
        }
        let counting = async {
            let begun_ms = self.monotonic_ms();
            let counts = self.ports.orders.count_by_status(sale_id).await?;
            let now_ms = self.monotonic_ms();
            let took_ms = now_ms.saturating_sub(begun_ms);
            let life_ms = match took_ms {
                ..SHORT_MS => 0,
                _ => took_ms.saturating_mul(LIFE_TIMES).min(LIFE_MS_MAX),
            };
            let counts = Arc::new(counts.into_iter().collect());
            Ok(Counted { counts, usable_until_ms: now_ms + life_ms })
        };
        let counted = kept.load(sale_id, counting).await;
        counted.map(|counted| counted.counts).map_err(|error| StoreError::clone(&error))
    }
}
