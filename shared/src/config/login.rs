//! When a sign-in needs a captcha, and how many passwords are hashed at once.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[login]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Login {
    pub failures_before_captcha: u32,
    pub address_failures_before_captcha: u32,
    pub failures_window_seconds: u64,
    pub hashes_at_once: usize,
    pub hashes_waiting_max: usize,
}

impl Login {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "login",
            [
                (
                    "address_failures_before_captcha",
                    self.address_failures_before_captcha.into(),
                    1,
                    1_000_000,
                ),
                ("failures_window_seconds", self.failures_window_seconds, 1, 86_400),
                ("hashes_at_once", self.hashes_at_once as u64, 0, 1_024),
                ("hashes_waiting_max", self.hashes_waiting_max as u64, 1, 10_000),
            ],
        )
    }
}
