//! The wall clock.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

use crate::{
    domain::Timestamp,
    ports::{Clock, LedgerClock, Stored},
};

/// The machine's wall clock. The clocks of a sale's instances must be synchronized (NTP or chrony):
/// they decide the window of a sale, a ticket's life and the limits, though never stock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_epoch_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic_ms(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The clock of an embedded ledger, which runs on this machine.
#[async_trait]
impl LedgerClock for SystemClock {
    async fn ask(&self) -> Stored<Timestamp> {
        Ok(self.now())
    }
}
