//! Typed identifiers. Each is a UUIDv7 (RFC 9562), so ids sort by the time of their creation.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Timestamp;

/// The text is not an id in the canonical form `xxxxxxxx-xxxx-7xxx-xxxx-xxxxxxxxxxxx`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected a UUID in lower-case hyphenated form")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, format = "uuid")]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new id from the time and ten random bytes.
            #[must_use]
            pub fn new(now: Timestamp, random: &[u8; 10]) -> Self {
                let millis = u64::try_from(now.epoch_ms()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
            }

            /// When it was made, by the clock of the instance that made it. A client can invent an
            /// id with any time.
            #[must_use]
            pub fn made_at(&self) -> Timestamp {
                let mut bytes = [0; 8];
                bytes[2..].copy_from_slice(&self.as_bytes()[..6]);
                Timestamp::from_epoch_ms(i64::from_be_bytes(bytes))
            }

            /// The id with these sixteen bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
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
                // Accept one spelling per id; otherwise one order would have several names in logs
                // and keys.
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
    /// An order. The id is made with the ticket and is the idempotency key of all later steps.
    OrderId
);
id!(
    /// A registered user. The id is made at registration.
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
id!(
    /// One text message.
    SmsId
);
id!(
    /// One action of an administrator.
    ActionId
);

/// The positions of the bytes that an order's id shares with its sale's id.
const TAG: std::ops::Range<usize> = 14..16;

impl OrderId {
    /// Makes the id of an order of a sale. Its last two bytes are those of the sale's id instead of
    /// random ones, so that the sale of an order can be found by the order's id alone, even when
    /// every store except the ledger has lost its data. The remaining bytes provide 58 random bits
    /// for each millisecond of a sale.
    #[must_use]
    pub fn for_sale(now: Timestamp, sale_id: SaleId, random: &[u8; 10]) -> Self {
        let mut bytes = *Self::new(now, random).as_bytes();
        bytes[TAG].copy_from_slice(&sale_id.as_bytes()[TAG]);
        Self(Uuid::from_bytes(bytes))
    }

    /// Whether the order may belong to the sale. For an unrelated sale this is true by chance once
    /// in 65,536.
    #[must_use]
    pub fn may_be_of(&self, sale_id: SaleId) -> bool {
        self.as_bytes()[TAG] == sale_id.as_bytes()[TAG]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_leads_to_its_sale() {
        let time = Timestamp::from_epoch_ms(1_000);
        let [sale, other] = [7, 8].map(|byte| SaleId::new(time, &[byte; 10]));
        let order = OrderId::for_sale(time, sale, &[255; 10]);
        assert!(order.may_be_of(sale) && !order.may_be_of(other));
        assert_eq!(order.made_at(), time);
        assert_eq!(order.to_string().parse(), Ok(order));
        assert_eq!(order.to_string().as_bytes()[14], b'7', "still a UUIDv7");
        assert_ne!(order, OrderId::for_sale(time, sale, &[254; 10]));
        assert!(order < OrderId::for_sale(Timestamp::from_epoch_ms(1_001), sale, &[0; 10]));
    }

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
