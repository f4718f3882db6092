//! How long copies of sales and orders are used.

use serde::Deserialize;

use super::{error::ConfigError, ranges::check_ranges};

/// `[cache]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct CacheTimes {
    pub sale_local_ms: u64,
    pub sale_shared_ms: u64,
    pub sold_out_ms: u64,
    pub no_order_ms: u64,
    pub no_record_ms: u64,
    pub order_ms: u64,
}

impl CacheTimes {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "cache",
            [
                ("sale_local_ms", self.sale_local_ms, 1, 60_000),
                ("sale_shared_ms", self.sale_shared_ms, 1, 600_000),
                ("sold_out_ms", self.sold_out_ms, 1, 10_000),
                ("no_order_ms", self.no_order_ms, 1, 60_000),
                ("no_record_ms", self.no_record_ms, 1, 60_000),
                ("order_ms", self.order_ms, 20_000, 86_400_000),
            ],
        )
    }
}
