//! A clock that advances only when a test moves it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;

use crate::{
    domain::Timestamp,
    ports::{Clock, LedgerClock, Stored},
};

/// A manual clock; as a ledger's clock it answers at once.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { wall_ms: AtomicI64::new(now.epoch_ms()), monotonic_ms: AtomicU64::new(0) }
    }

    /// Advances the wall clock and the monotonic clock.
    pub fn advance_ms(&self, ms: u64) {
        self.set_by_ms(i64::try_from(ms).expect("a test moves the clock by less than i64::MAX"));
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock forward or, with a negative number, back; the monotonic clock stays.
    pub fn set_by_ms(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_epoch_ms(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl LedgerClock for ManualClock {
    async fn ask(&self) -> Stored<Timestamp> {
        Ok(self.now())
    }
}
