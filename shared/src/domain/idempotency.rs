//! Keys that identify a caller's repeated request.

use std::{fmt, str::FromStr};

/// The value of an `Idempotency-Key` header: 1 to 64 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The header that holds it.
    pub const HEADER: &'static str = "Idempotency-Key";
    /// Most characters of a key: a UUID in quotes and some more.
    pub const CHARS_MAX: usize = 64;
}

/// The text is not a valid [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to {} visible ASCII characters", IdempotencyKey::CHARS_MAX)]
pub struct IdempotencyKeyError;

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    fn from_str(text: &str) -> Result<Self, IdempotencyKeyError> {
        let fits = (1..=Self::CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(IdempotencyKeyError) }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_ascii_of_some_length_is_a_key() {
        for good in ["k", "8e03978e-40d5-43dd-bc93-6894a57f9324", "\"8e03978e\"", &"~".repeat(64)] {
            assert_eq!(good.parse::<IdempotencyKey>().unwrap().to_string(), good);
        }
        for bad in ["", " ", "a b", "schlüssel", "a\tb", &"k".repeat(65)] {
            assert_eq!(bad.parse::<IdempotencyKey>(), Err(IdempotencyKeyError), "{bad:?}");
        }
    }
}
