//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{domain::Timestamp, ports::Clock};

/// The machine's wall clock. Instances of one sale need theirs kept together (NTP or chrony): the window of a sale, a
/// ticket's life and the limits are judged by them, though never stock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_epoch_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
