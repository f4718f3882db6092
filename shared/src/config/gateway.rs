//! How many connections the gateway accepts, and how long they may stall.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[gateway]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Gateway {
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub idle_timeout_ms: u64,
    pub write_timeout_ms: u64,
}

impl Gateway {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "gateway",
            [
                ("connections_max", self.connections_max as u64, 16, 1_000_000),
                (
                    "connections_per_address_max",
                    self.connections_per_address_max as u64,
                    1,
                    1_000_000,
                ),
                ("idle_timeout_ms", self.idle_timeout_ms, 100, 3_600_000),
                ("write_timeout_ms", self.write_timeout_ms, 100, 3_600_000),
            ],
        )
    }
}
