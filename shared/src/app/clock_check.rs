//! Whether this machine's clock agrees with the ledger's.
//!
//! A leader whose clock is minutes ahead would expire orders that their buyers still have time to pay, so a process leads
//! only while its clock is right, and `/readyz` fails while it is not.

use std::sync::{Mutex, PoisonError};

use super::App;
use crate::{
    metrics::{CLOCK_DIFFERENCE, seconds},
    ports::{StoreError, Stored},
};

/// How far the clocks may differ.
const DIFFERENCE_MAX_MS: i64 = 2_000;
/// How long an answer of the ledger is believed.
const ANSWER_LIFE_MS: u64 = 10_000;
/// A wall clock that has moved against the monotonic one by this much was set: the ledger is asked again at once.
const SET_MS: i64 = 500;
/// How often the log says that the clocks differ.
const LINE_MS: u64 = 60_000;

/// What is known of the difference between the clocks.
#[derive(Default)]
pub(super) struct ClockMemory(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    compared: Option<Compared>,
    last_line_ms: Option<u64>,
}

#[derive(Clone, Copy)]
struct Compared {
    /// When, by the monotonic clock.
    at_ms: u64,
    /// What the wall clock showed more than the monotonic one.
    offset_ms: i64,
    ahead_ms: Option<i64>,
}

impl App {
    /// By how many milliseconds this machine's clock is ahead of the ledger's (negative: behind), when that is more than
    /// 2 s; `None` when it is not. The ledger is asked every ten seconds, and at once after the clock was set.
    ///
    /// # Errors
    /// When the ledger does not answer, or answers so late that nothing follows from it.
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
        // The ledger read its clock some time during the trip: only what no such time explains is a difference.
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
