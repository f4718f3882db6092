//! Counters of requests and their latencies for the operator's console: in memory, always on. The
//! metrics for Prometheus are in `requests`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::http::StatusCode;

/// The counters of this process.
pub static REQUEST_COUNTERS: RequestCounters = RequestCounters::new();

/// The kinds of requests.
pub const KINDS: [&str; 4] = ["entries", "tickets", "orders", "other"];
/// The outcomes of requests.
pub const OUTCOMES: [&str; 5] = ["accepted", "too_late", "limited", "refused", "failed"];
/// Four latency buckets for each power of two, from 1 µs to over an hour.
const BUCKETS: usize = 128;

/// Requests by kind and outcome, and how long they took.
pub struct RequestCounters {
    outcomes: [[AtomicU64; OUTCOMES.len()]; KINDS.len()],
    latencies: [AtomicU64; BUCKETS],
}

/// The counters at one moment.
#[derive(Clone, Copy)]
pub struct RequestCounts {
    pub outcomes: [[u64; OUTCOMES.len()]; KINDS.len()],
    latencies: [u64; BUCKETS],
}

impl RequestCounters {
    const fn new() -> Self {
        Self {
            outcomes: [const { [const { AtomicU64::new(0) }; OUTCOMES.len()] }; KINDS.len()],
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Counts one request.
    pub fn count(&self, route: &str, status: StatusCode, took: Duration) {
        let kind = match route {
            "/api/sales/{sale_id}/entries" => 0,
            "/api/sales/{sale_id}/tickets" => 1,
            "/api/sales/{sale_id}/orders" => 2,
            _ => 3,
        };
        let outcome = match status.as_u16() {
            0..400 => 0,
            409 | 410 => 1,
            429 => 2,
            400..500 => 3,
            _ => 4,
        };
        self.outcomes[kind][outcome].fetch_add(1, Ordering::Relaxed);
        self.latencies[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters as they are now.
    pub fn now(&self) -> RequestCounts {
        RequestCounts {
            outcomes: std::array::from_fn(|kind| {
                std::array::from_fn(|outcome| self.outcomes[kind][outcome].load(Ordering::Relaxed))
            }),
            latencies: std::array::from_fn(|bucket| self.latencies[bucket].load(Ordering::Relaxed)),
        }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let power = micros.ilog2() as usize;
    // The two bits after the highest select the quarter.
    let quarter = (micros >> (power - 2)) as usize & 3;
    (power * 4 + quarter).min(BUCKETS - 1)
}

/// The upper bound of a bucket, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a figure for a chart")]
fn bound_ms(bucket: usize) -> f64 {
    let (power, quarter) = (bucket / 4, (bucket % 4) as u64);
    ((4 + quarter + 1) << power) as f64 / 4.0 / 1e3
}

impl RequestCounts {
    /// The counts since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            outcomes: std::array::from_fn(|kind| {
                std::array::from_fn(|outcome| {
                    self.outcomes[kind][outcome] - before.outcomes[kind][outcome]
                })
            }),
            latencies: std::array::from_fn(|bucket| {
                self.latencies[bucket] - before.latencies[bucket]
            }),
        }
    }

    /// The latency in milliseconds that this share of the requests did not exceed; `None` without
    /// requests.
    pub fn quantile(&self, share_percent: u64) -> Option<f64> {
        let all: u64 = self.latencies.iter().sum();
        let wanted = (all * share_percent).div_ceil(100);
        let mut seen = 0;
        let reached = self.latencies.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.filter(|_| all > 0).map(bound_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_buckets_that_hold_them() {
        for micros in [1, 4, 5, 7, 8, 100, 999, 1_000, 1_001, 65_536, 1_000_000, 60_000_000] {
            let bucket = bucket(Duration::from_micros(micros));
            assert!(bound_ms(bucket) * 1e3 >= micros as f64, "{micros} µs in {bucket}");
            assert!(
                bound_ms(bucket) * 1e3 <= (micros as f64 * 1.26).max(5.0),
                "{micros} µs in {bucket}: within a quarter"
            );
        }
        assert!(bucket(Duration::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_of_what_was_counted() {
        let counters = RequestCounters::new();
        assert_eq!(counters.now().quantile(50), None);
        for _ in 0..98 {
            counters.count(
                "/api/sales/{sale_id}/tickets",
                StatusCode::CREATED,
                Duration::from_micros(1_000),
            );
        }
        for _ in 0..2 {
            counters.count(
                "/api/orders",
                StatusCode::SERVICE_UNAVAILABLE,
                Duration::from_millis(200),
            );
        }
        let counted = counters.now();
        assert_eq!((counted.outcomes[1][0], counted.outcomes[3][4]), (98, 2));
        let (middle, late) = (counted.quantile(50).unwrap(), counted.quantile(99).unwrap());
        assert!((1.0..1.3).contains(&middle) && (200.0..260.0).contains(&late), "{middle} {late}");
    }
}
