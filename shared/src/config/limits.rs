//! How often each kind of request is allowed.

use serde::Deserialize;

use super::error::{ConfigError, bad};
use crate::domain::Quota;

/// `[limits]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Limits {
    pub address: Quota,
    pub ticket: Quota,
    pub order: Quota,
    pub entry: Quota,
    pub order_status: Quota,
    pub account: Quota,
    pub admin: Quota,
    pub captcha: Quota,
    pub register: Quota,
    pub login: Quota,
    pub login_phone: Quota,
    pub phone_code: Quota,
    pub phone_code_hour: Quota,
    pub phone_code_day: Quota,
    pub phone_code_range: Quota,
    pub network_times: u32,
}

impl Limits {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1_000).contains(&self.network_times) {
            return Err(bad("limits.network_times".to_owned(), "expected 1 to 1000"));
        }
        for (name, quota) in [
            ("address", self.address),
            ("ticket", self.ticket),
            ("order", self.order),
            ("entry", self.entry),
            ("order_status", self.order_status),
            ("account", self.account),
            ("admin", self.admin),
            ("captcha", self.captcha),
            ("register", self.register),
            ("login", self.login),
            ("login_phone", self.login_phone),
            ("phone_code", self.phone_code),
            ("phone_code_hour", self.phone_code_hour),
            ("phone_code_day", self.phone_code_day),
            ("phone_code_range", self.phone_code_range),
        ] {
            let in_range = (1..=1_000_000).contains(&quota.limit)
                && (1..=86_400_000).contains(&quota.window_ms)
                && (1..=1_000_000).contains(&quota.burst)
                && quota.interval_us() > 0;
            if !in_range {
                return Err(bad(
                    format!("limits.{name}"),
                    "expected limit and burst of 1 to 1000000 and window_ms of 1 to 86400000, at most one per microsecond",
                ));
            }
        }
        Ok(())
    }
}
