//! The metrics of one connection pool and of the calls that use it.

use metrics::{Gauge, Histogram};

use crate::metrics::{
    CONNECTS, DATABASE_ACQUIRE_SECONDS, DATABASE_CALL_SECONDS, DATABASE_IN_USE, DATABASE_MAX,
    DATABASE_OPEN, DATABASE_WAITING,
};

pub(super) struct Measures {
    pub(super) acquire_seconds: Histogram,
    pub(super) fetch_seconds: Histogram,
    pub(super) transaction_seconds: Histogram,
    pub(super) waiting: Gauge,
    pub(super) in_use: Gauge,
    pub(super) open: Gauge,
}

impl Measures {
    pub(super) fn new(pool: &'static str, connections_max: u32) -> Self {
        DATABASE_MAX.gauge(&[pool]).set(f64::from(connections_max));
        Self {
            acquire_seconds: DATABASE_ACQUIRE_SECONDS.histogram(&[pool]),
            fetch_seconds: DATABASE_CALL_SECONDS.histogram(&[pool, "fetch"]),
            transaction_seconds: DATABASE_CALL_SECONDS.histogram(&[pool, "transaction"]),
            waiting: DATABASE_WAITING.gauge(&[pool]),
            in_use: DATABASE_IN_USE.gauge(&[pool]),
            open: DATABASE_OPEN.gauge(&[pool]),
        }
    }
}

/// Counts a new connection. sqlx does not report failed attempts.
pub(super) fn connected() {
    CONNECTS.counter(&["database", "connected"]).increment(1);
}

/// Raises a gauge by one while it is alive.
pub(super) struct Raised(Gauge);

impl Raised {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
