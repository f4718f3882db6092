//! How long captchas live, and how many are drawn ahead.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[captchas]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Captchas {
    pub lifetime_seconds: u64,
    pub drawn_ahead_max: usize,
    pub waiting_max: usize,
}

impl Captchas {
    /// The lifetime in milliseconds.
    #[must_use]
    pub const fn ms(&self) -> u64 {
        self.lifetime_seconds.saturating_mul(1_000)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "captchas",
            [
                ("lifetime_seconds", self.lifetime_seconds, 10, 3_600),
                ("drawn_ahead_max", self.drawn_ahead_max as u64, 0, 10_000),
                ("waiting_max", self.waiting_max as u64, 1, 10_000),
            ],
        )
    }
}
