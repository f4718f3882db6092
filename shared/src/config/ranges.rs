//! The check that most settings need.

use super::error::{ConfigError, bad};

/// Longest lifetime that a setting allows.
pub(super) const YEAR_SECONDS: u64 = 31_536_000;

/// Checks that each value of a section is within its bounds. Names the first one that is not.
pub(super) fn check_ranges<const N: usize>(
    section: &str,
    ranges: [(&str, u64, u64, u64); N],
) -> Result<(), ConfigError> {
    match ranges.into_iter().find(|(_, value, min, max)| !(*min..=*max).contains(value)) {
        Some((name, value, min, max)) => {
            Err(bad(format!("{section}.{name}"), format!("expected {min} to {max}, got {value}")))
        }
        None => Ok(()),
    }
}
