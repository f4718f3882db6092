//! Typed identifiers. Each is a UUIDv7 (RFC 9562), so ids sort by the time they were made.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

use super::Timestamp;

/// The text is not an id in the canonical form `xxxxxxxx-xxxx-7xxx-xxxx-xxxxxxxxxxxx`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected a UUID in lower-case hyphenated form")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = "uuid"))]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new id from the time and ten random bytes.
            #[must_use]
            pub fn new(now: Timestamp, random: &[u8; 10]) -> Self {
                let millis = u64::try_from(now.epoch_ms()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
            }

            /// The id's sixteen bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = Uuid::try_parse(text).map_err(|_| IdError)?;
                // One spelling per id, or the same order would have several names in logs and keys.
                let mut canonical = [0; uuid::fmt::Hyphenated::LENGTH];
                (id.as_hyphenated().encode_lower(&mut canonical) == text)
                    .then_some(Self(id))
                    .ok_or(IdError)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id!(
    /// A sale.
    SaleId
);
id!(
    /// An order; given out with the ticket, and the idempotency key of everything that follows.
    OrderId
);
id!(
    /// A registered user.
    UserId
);
id!(
    /// One sign-in of a user on one device.
    SessionId
);
id!(
    /// One drawn captcha.
    CaptchaId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_have_one_spelling() {
        let early = OrderId::new(Timestamp::from_epoch_ms(1_000), &[255; 10]);
        let late = OrderId::new(Timestamp::from_epoch_ms(1_001), &[0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().as_bytes()[14], b'7');
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(early.to_string().to_uppercase().parse::<OrderId>(), Err(IdError));
        assert_eq!(early.to_string().replace('-', "").parse::<OrderId>(), Err(IdError));
        assert_eq!("".parse::<OrderId>(), Err(IdError));
    }
}
