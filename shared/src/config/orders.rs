//! When an order has to be paid, how many a user may give up, and how orders are published.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[orders]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Orders {
    pub pay_within_seconds: u64,
    pub attempts_max: u32,
    pub publish_group_max: usize,
    pub publish_waiting_max: usize,
    pub publish_wait_ms: u64,
}

impl Orders {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "orders",
            [
                ("pay_within_seconds", self.pay_within_seconds, 1, 30 * 86_400),
                ("attempts_max", self.attempts_max.into(), 0, 1_000),
                ("publish_group_max", self.publish_group_max as u64, 1, 5_000),
                ("publish_waiting_max", self.publish_waiting_max as u64, 1, 1_000_000),
                ("publish_wait_ms", self.publish_wait_ms, 1, 60_000),
            ],
        )
    }
}
