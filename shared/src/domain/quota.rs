//! How much a limit allows: GCRA.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// So many requests per time, with bursts, as GCRA (the generic cell rate algorithm, ITU-T I.371) counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Requests allowed per window in the long run; at least 1.
    pub limit: u32,
    /// The window, in milliseconds; at least 1.
    pub window_ms: u64,
    /// Requests allowed at once after a pause; at least 1.
    pub burst: u32,
}

impl Quota {
    /// `limit` requests per `window_ms`, all of them at once if need be.
    #[must_use]
    pub const fn per(limit: u32, window_ms: u64) -> Self {
        Self { limit, window_ms, burst: limit }
    }

    /// Time between two requests at the allowed rate, in microseconds: GCRA's emission interval.
    #[must_use]
    pub const fn interval_us(&self) -> u64 {
        self.window_ms * 1_000 / self.limit as u64
    }

    /// GCRA as virtual scheduling (ITU-T I.371): from a limit's theoretical arrival time (TAT, in microseconds since
    /// 1970) the next one, or how many microseconds too early the request is. A TAT that is further ahead than a full
    /// burst and `slack_ms` comes from a clock that has been set back since, and counts as none.
    ///
    /// # Errors
    /// The microseconds until a request would be let in.
    pub fn arrive(&self, tat_us: Option<u64>, now: Timestamp, slack_ms: u64) -> Result<u64, u64> {
        // A timestamp is never negative.
        let now_us = now.epoch_ms().unsigned_abs() * 1_000;
        let interval = self.interval_us().max(1);
        let full = now_us.saturating_add(interval.saturating_mul(u64::from(self.burst.max(1))));
        let tat = match tat_us {
            Some(tat) if tat > full.saturating_add(slack_ms * 1_000) => now_us,
            Some(tat) => tat.max(now_us),
            None => now_us,
        };
        let next = tat.saturating_add(interval);
        if next <= full { Ok(next) } else { Err(next - full) }
    }
}
