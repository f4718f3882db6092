//! How messages are gathered into batches.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[worker]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Worker {
    pub batch_messages_max: u32,
    pub batch_wait_ms: u64,
    pub batch_window_ms: u64,
    pub record_orders_max: usize,
}

impl Worker {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "worker",
            [
                ("batch_messages_max", self.batch_messages_max.into(), 1, 1_000),
                ("batch_wait_ms", self.batch_wait_ms, 1, 20_000),
                ("batch_window_ms", self.batch_window_ms, 0, 300_000),
                ("record_orders_max", self.record_orders_max as u64, 1, 10_000),
            ],
        )
    }
}
