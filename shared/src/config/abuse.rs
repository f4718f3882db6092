//! When a user or an address is banned automatically.

use serde::Deserialize;

use super::{
    error::ConfigError,
    ranges::{YEAR_SECONDS, check_ranges},
};

/// `[abuse]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Abuse {
    pub refusals_max: u32,
    pub address_refusals_max: u32,
    pub window_seconds: u64,
    pub ban_seconds: u64,
}

impl Abuse {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "abuse",
            [
                ("refusals_max", self.refusals_max.into(), 1, 1_000_000),
                ("address_refusals_max", self.address_refusals_max.into(), 0, 1_000_000),
                ("window_seconds", self.window_seconds, 1, 86_400),
                ("ban_seconds", self.ban_seconds, 1, YEAR_SECONDS),
            ],
        )
    }
}
