//! The last copy of each sale, for the time when SQL does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{super::local_cache::LocalCache, LOCAL_SALES_MAX};
use crate::{
    domain::{Sale, SaleId},
    logging::OncePerSecond,
    ports::{StoreError, Stored},
};

/// How long a copy is kept after it was last read.
const KEPT: Duration = Duration::from_secs(6 * 3_600);
/// How long SQL may take when there is a copy to fall back on.
const SQL_WAIT: Duration = Duration::from_millis(500);
/// How long copies are used after a failure before SQL is asked again.
const PAUSE_MS: u64 = 2_000;

pub(super) struct LastCopies {
    copies: LocalCache<SaleId, Arc<Sale>>,
    /// How long a copy that was handed out may be kept by the caller's cache.
    life_ms: u64,
    /// When the pause after the last failure ends, by the monotonic clock.
    pause_until_ms: AtomicU64,
}

impl LastCopies {
    pub(super) fn new(life_ms: u64) -> Self {
        let copies = LocalCache::new(LOCAL_SALES_MAX, KEPT);
        Self { copies, life_ms, pause_until_ms: AtomicU64::new(0) }
    }

    pub(super) fn keep(&self, sale: &Arc<Sale>) {
        self.copies.insert(sale.sale_id, Arc::clone(sale));
    }

    pub(super) fn forget(&self, sale_id: SaleId) {
        self.copies.remove(&sale_id);
    }

    /// Whether a copy handed out during an outage may still be in the caller's cache.
    pub(super) fn are_in_use(&self, now_ms: u64) -> bool {
        let until_ms = self.pause_until_ms.load(Ordering::Relaxed);
        until_ms > 0 && now_ms < until_ms.saturating_add(self.life_ms)
    }

    /// What SQL answers. If it does not answer, the last copy, if there is one.
    pub(super) async fn or_last(
        &self,
        sale_id: SaleId,
        from_sql: impl Future<Output = Stored<Option<Arc<Sale>>>>,
        now_ms: impl Fn() -> u64,
    ) -> Stored<Option<Arc<Sale>>> {
        let Some(last) = self.copies.get(&sale_id) else {
            return from_sql.await;
        };
        if now_ms() < self.pause_until_ms.load(Ordering::Relaxed) {
            return Ok(Some(last));
        }
        let cause = match timeout(SQL_WAIT, from_sql).await {
            Ok(Err(error @ (StoreError::Unavailable { .. } | StoreError::Unknown { .. }))) => {
                error.to_string()
            }
            Ok(answer) => return answer,
            Err(_) => format!("no answer within {} ms", SQL_WAIT.as_millis()),
        };
        static LINES: OncePerSecond = OncePerSecond::new();
        if let Some(left_out) = LINES.pass() {
            tracing::warn!(%sale_id, cause, left_out, "a sale can't be read from SQL: its last copy is used");
        }
        self.pause_until_ms.store(now_ms() + PAUSE_MS, Ordering::Relaxed);
        Ok(Some(last))
    }
}
