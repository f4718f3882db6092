//! A point in time, in whole milliseconds since 1970 (UTC), as the stores keep it and the scripts
//! compare it.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;

/// Milliseconds since the Unix epoch. On the wire it is RFC 3339 in UTC, such as
/// `2026-11-11T20:00:00.000Z`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, format = DateTime, description = "RFC 3339; in answers UTC with milliseconds, such as `2026-11-11T20:00:00.000Z`.")]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 time between the years 1970 and 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: expected RFC 3339 such as 2026-11-11T20:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// The last representable instant: the end of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// From milliseconds since the epoch; values out of range are clamped.
    #[must_use]
    pub const fn from_epoch_ms(ms: i64) -> Self {
        if ms < 0 {
            Self(0)
        } else if ms > Self::MAX.0 {
            Self::MAX
        } else {
            Self(ms)
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn epoch_ms(self) -> i64 {
        self.0
    }

    /// This time plus `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms as i64 };
        Self::from_epoch_ms(self.0.saturating_add(ms))
    }

    /// This time minus `ms` milliseconds.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms as i64 };
        Self::from_epoch_ms(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        if self.0 > earlier.0 { (self.0 - earlier.0) as u64 } else { 0 }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{time:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let ms = text.parse::<jiff::Timestamp>().map_err(|_| TimestampError)?.as_millisecond();
        (0..=Self::MAX.0).contains(&ms).then_some(Self(ms)).ok_or(TimestampError)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_rfc_3339() {
        let time = Timestamp::from_epoch_ms(1_794_427_200_000);
        assert_eq!(time.to_string(), "2026-11-11T20:00:00.000Z");
        assert_eq!("2026-11-12T04:00:00+08:00".parse(), Ok(time));
        assert_eq!("1969-12-31T23:59:59Z".parse::<Timestamp>(), Err(TimestampError));
        assert_eq!("tomorrow".parse::<Timestamp>(), Err(TimestampError));
    }

    #[test]
    fn arithmetic_stays_in_range() {
        assert_eq!(Timestamp::MAX.plus_ms(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_epoch_ms(5).minus_ms(6).epoch_ms(), 0);
        assert_eq!(Timestamp::from_epoch_ms(5).since_ms(Timestamp::from_epoch_ms(9)), 0);
    }
}
