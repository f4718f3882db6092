//! How long tickets are valid.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[tickets]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Tickets {
    pub lifetime_seconds: u64,
}

impl Tickets {
    /// The lifetime in milliseconds.
    #[must_use]
    pub const fn ms(&self) -> u64 {
        self.lifetime_seconds.saturating_mul(1_000)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges("tickets", [("lifetime_seconds", self.lifetime_seconds, 1, 3_600)])
    }
}
