//! How much a limit allows: GCRA.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// If a theoretical arrival time is further ahead than a full burst plus this many milliseconds,
/// the clock has been set back since it was stored, and the stored time is ignored.
pub const CLOCK_SLACK_MS: u64 = 60_000;

/// A rate limit with bursts, computed by GCRA (the generic cell rate algorithm, ITU-T I.371).
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
    /// `limit` requests per `window_ms`, which may all come in one burst.
    #[must_use]
    pub const fn per(limit: u32, window_ms: u64) -> Self {
        Self { limit, window_ms, burst: limit }
    }

    /// Time between two requests at the allowed rate, in microseconds: GCRA's emission interval.
    #[must_use]
    pub const fn interval_us(&self) -> u64 {
        self.window_ms * 1_000 / self.limit as u64
    }

    /// GCRA as virtual scheduling (ITU-T I.371): from a limit's theoretical arrival time (TAT, in
    /// microseconds since 1970) the next one, or how many microseconds too early the request is. A
    /// TAT beyond [`CLOCK_SLACK_MS`] is ignored.
    ///
    /// # Errors
    /// The microseconds until a request would be admitted.
    pub fn arrive(&self, tat_us: Option<u64>, now: Timestamp) -> Result<u64, u64> {
        // A timestamp is never negative.
        let now_us = now.epoch_ms().unsigned_abs() * 1_000;
        let interval = self.interval_us().max(1);
        let full = now_us.saturating_add(interval.saturating_mul(u64::from(self.burst.max(1))));
        let tat = match tat_us {
            Some(tat) if tat > full.saturating_add(CLOCK_SLACK_MS * 1_000) => now_us,
            Some(tat) => tat.max(now_us),
            None => now_us,
        };
        let next = tat.saturating_add(interval);
        if next <= full { Ok(next) } else { Err(next - full) }
    }
}

/// A count in a window that starts with the first event: refusals by limits or failed sign-ins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWindow {
    /// What was counted.
    pub count: u32,
    /// First instant that is not in the window.
    pub ends_at: Timestamp,
}

impl CountWindow {
    /// One more than `earlier`, or the first of a new window.
    #[must_use]
    pub fn add(earlier: Option<Self>, window_ms: u64, now: Timestamp) -> Self {
        let running = earlier.filter(|window| !window.over(now));
        let window = running.unwrap_or(Self { count: 0, ends_at: now.plus_ms(window_ms) });
        Self { count: window.count.saturating_add(1), ..window }
    }

    /// Whether the window has ended.
    #[must_use]
    pub fn over(&self, now: Timestamp) -> bool {
        self.ends_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_epoch_ms(1_794_427_200_000);

    fn start_us() -> u64 {
        START.epoch_ms().unsigned_abs() * 1_000
    }

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        // One request per 100 ms, three at once.
        let quota = Quota { limit: 10, window_ms: 1_000, burst: 3 };
        let mut tat = None;
        for n in 1..=3 {
            let next = quota.arrive(tat, START).unwrap();
            assert_eq!(next, start_us() + n * 100_000);
            tat = Some(next);
        }
        assert_eq!(quota.arrive(tat, START), Err(100_000), "the fourth is one interval too early");
        assert_eq!(quota.arrive(tat, START.plus_ms(99)), Err(1_000));
        tat = quota.arrive(tat, START.plus_ms(100)).ok();
        assert_eq!(quota.arrive(tat, START.plus_ms(100)), Err(100_000));
        assert!(
            quota.arrive(tat, START.plus_ms(10_000)).is_ok(),
            "a TAT in the past counts as now"
        );
    }

    #[test]
    fn a_time_of_a_clock_that_was_set_back_counts_as_none() {
        let quota = Quota::per(10, 1_000);
        let full = start_us() + 1_000_000;
        let latest = full + CLOCK_SLACK_MS * 1_000;
        assert_eq!(quota.arrive(Some(latest), START), Err(latest + 100_000 - full));
        assert_eq!(quota.arrive(Some(latest + 1), START), Ok(start_us() + 100_000));
    }

    #[test]
    fn a_window_starts_with_the_first() {
        let at = Timestamp::from_epoch_ms;
        let first = CountWindow::add(None, 100, at(1_000));
        assert_eq!(first, CountWindow { count: 1, ends_at: at(1_100) });
        assert_eq!(
            CountWindow::add(Some(first), 100, at(1_099)),
            CountWindow { count: 2, ends_at: at(1_100) }
        );
        assert_eq!(
            CountWindow::add(Some(first), 100, at(1_100)),
            CountWindow { count: 1, ends_at: at(1_200) }
        );
    }

    proptest! {
        /// In any period at most one burst plus one request per interval passes; a refused request
        /// passes exactly after its `retry_after`.
        #[test]
        fn no_stretch_of_time_has_more_than_burst_and_rate(
            limit in 1_u32..50,
            window_ms in 1_u64..5_000,
            burst in 1_u32..20,
            pauses in prop::collection::vec(0_u64..400, 1..80),
        ) {
            let quota = Quota { limit, window_ms, burst };
            let interval = quota.interval_us().max(1);
            let (mut now, mut tat, mut passed) = (START, None, Vec::new());
            for pause in pauses {
                now = now.plus_ms(pause);
                match quota.arrive(tat, now) {
                    Ok(next) => {
                        tat = Some(next);
                        passed.push(now);
                    }
                    Err(wait_us) => {
                        prop_assert!(wait_us > 0);
                        let wait_ms = wait_us.div_ceil(1_000);
                        prop_assert!(quota.arrive(tat, now.plus_ms(wait_ms)).is_ok());
                        prop_assert!(quota.arrive(tat, now.plus_ms(wait_ms - 1)).is_err());
                    }
                }
            }
            for (index, first) in passed.iter().enumerate() {
                for (count, last) in passed[index..].iter().enumerate() {
                    let stretch_us = last.since_ms(*first) * 1_000;
                    prop_assert!(count as u64 <= u64::from(burst) - 1 + stretch_us / interval + 1);
                }
            }
        }
    }
}
