//! How often the sweeper works, and how long a rebuild of the admission store waits.

use serde::Deserialize;

use super::{
    error::ConfigError,
    ranges::{YEAR_SECONDS, check_ranges},
};
use crate::ports::PUBLISH_LIMIT_MS;

/// `[sweeper]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Sweeper {
    pub period_ms: u64,
    pub lease_ms: u64,
    pub batch_max: u32,
    pub overdue_ms: u64,
    pub reconcile_ms: u64,
    pub tail_seconds: u64,
    pub rebuild_wait_min_ms: u64,
    pub rebuild_wait_max_ms: u64,
}

impl Sweeper {
    /// `publish_wait_ms` comes from the section `orders`: a rebuild must wait longer than any
    /// publish can take.
    pub(super) fn validate(&self, publish_wait_ms: u64) -> Result<(), ConfigError> {
        let publish_ms = publish_wait_ms.saturating_add(PUBLISH_LIMIT_MS + 1);
        check_ranges(
            "sweeper",
            [
                ("tail_seconds", self.tail_seconds, 60, YEAR_SECONDS),
                ("period_ms", self.period_ms, 10, 60_000),
                ("lease_ms", self.lease_ms, 1_000, 600_000),
                ("batch_max", self.batch_max.into(), 1, 5_000),
                ("overdue_ms", self.overdue_ms, 100, 600_000),
                ("reconcile_ms", self.reconcile_ms, 100, 3_600_000),
                ("rebuild_wait_min_ms", self.rebuild_wait_min_ms, publish_ms, 600_000),
                (
                    "rebuild_wait_max_ms",
                    self.rebuild_wait_max_ms,
                    self.rebuild_wait_min_ms,
                    600_000,
                ),
            ],
        )
    }
}
