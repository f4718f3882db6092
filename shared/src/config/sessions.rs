//! How long sessions live, and how they are looked up.

use serde::Deserialize;

use super::{
    error::ConfigError,
    ranges::{YEAR_SECONDS, check_ranges},
};
use crate::domain::Role;

/// `[sessions]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Sessions {
    pub lifetime_seconds: u64,
    pub admin_lifetime_seconds: u64,
    pub lookups_at_once: usize,
    pub lookups_waiting_max: usize,
}

impl Sessions {
    /// How long a session of a user with the role lives, in milliseconds.
    #[must_use]
    pub const fn ms(&self, role: Role) -> u64 {
        let seconds = match role {
            Role::Shopper => self.lifetime_seconds,
            Role::Admin => self.admin_lifetime_seconds,
        };
        seconds.saturating_mul(1_000)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "sessions",
            [
                ("lifetime_seconds", self.lifetime_seconds, 60, YEAR_SECONDS),
                ("admin_lifetime_seconds", self.admin_lifetime_seconds, 60, YEAR_SECONDS),
                ("lookups_at_once", self.lookups_at_once as u64, 1, 8),
                ("lookups_waiting_max", self.lookups_waiting_max as u64, 1, 1_000_000),
            ],
        )
    }
}
