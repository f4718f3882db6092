//! Whether this machine's clock agrees with the ledger's.
//!
//! A leader whose clock is minutes ahead would expire orders that their buyers still have time to
//! pay. So a process leads only while its clock is right, and `/readyz` fails while it is wrong.

use std::sync::{Mutex, PoisonError};

use super::App;
use crate::{
    metrics::{CLOCK_DIFFERENCE, seconds},
    ports::{StoreError, Stored},
};

/// Largest accepted difference between the clocks.
const DIFFERENCE_MAX_MS: i64 = 2_000;
/// How long a reading of the ledger's clock stays valid.
const ANSWER_LIFE_MS: u64 = 10_000;
/// If the wall clock has moved this much against the monotonic clock, it was set, and the ledger is
/// asked again at once.
const SET_MS: i64 = 500;
/// Time between log lines about differing clocks.
const LINE_MS: u64 = 60_000;

/// The last known difference between the clocks.
#[derive(Default)]
pub(super) struct ClockMemory(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    compared: Option<Compared>,
    last_line_ms: Option<u64>,
}

#[derive(Clone, Copy)]
struct Compared {
    /// The time of the reading, by the monotonic clock.
    at_ms: u64,
    /// Wall clock minus monotonic clock at that time.
    offset_ms: i64,
    ahead_ms: Option<i64>,
}

impl App {
    /// Returns by how many milliseconds this machine's clock is ahead of the ledger's (negative:
    /// behind) if that is more than 2 s, else `None`. The ledger is asked every ten seconds, and at
    /// once after the clock was set.
    ///
    /// # Errors
    /// When the ledger does not answer, or answers too late to tell.
    pub async fn clock_fault(&self) -> Stored<Option<i64>> {
        let (wall, begun) = (self.now(), self.monotonic_ms());
        let offset_ms = wall.epoch_ms() - signed(begun);
        let known = self.clocks.0.lock().unwrap_or_else(PoisonError::into_inner).compared;
        if let Some(known) = known
            && begun.saturating_sub(known.at_ms) < ANSWER_LIFE_MS
            && (known.offset_ms - offset_ms).abs() < SET_MS
        {
            return Ok(known.ahead_ms);
        }
        let ledger = self.ports.ledger_clock.ask().await?;
        let trip_ms = signed(self.monotonic_ms().saturating_sub(begun));
        if trip_ms > DIFFERENCE_MAX_MS {
            return Err(StoreError::Unavailable {
                store: "ledger",
                cause: format!("it took {trip_ms} ms to tell the time"),
            });
        }
        // The ledger read its clock at an unknown moment of the round trip. Only a difference that
        // no such moment explains counts.
        let least = wall.epoch_ms() - ledger.epoch_ms();
        let ahead_ms = if least > DIFFERENCE_MAX_MS {
            Some(least)
        } else if least + trip_ms < -DIFFERENCE_MAX_MS {
            Some(least + trip_ms)
        } else {
            None
        };
        CLOCK_DIFFERENCE.gauge(&[]).set(seconds(least + trip_ms / 2));
        let mut memory = self.clocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.compared = Some(Compared { at_ms: begun, offset_ms, ahead_ms });
        if let Some(ahead_ms) = ahead_ms
            && memory.last_line_ms.is_none_or(|last| begun.saturating_sub(last) >= LINE_MS)
        {
            memory.last_line_ms = Some(begun);
            let line = "this machine's clock differs from the database's by more than 2 s: it does not lead the sweeper and is not ready";
            tracing::error!(ahead_ms, "{line}");
        }
        Ok(ahead_ms)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
