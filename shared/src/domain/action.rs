//! The trail of administrators' actions.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

use super::{ActionId, AddressPrefix, Timestamp, UserId};

/// What an administrator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Created a sale.
    SaleCreated,
    /// Changed a sale.
    SaleChanged,
    /// Stored the value of the beacon of a sale by draw.
    BeaconSet,
    /// Set how hard proofs of work are.
    ChallengeLevelSet,
    /// Put a ban.
    BanPut,
    /// Lifted a ban.
    BanLifted,
    /// Cancelled a buyer's order.
    OrderCancelled,
    /// Put a parked message back into the queue.
    ParkedRetried,
    /// Threw a parked message away.
    ParkedDiscarded,
}

impl ActionKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::SaleCreated,
        Self::SaleChanged,
        Self::BeaconSet,
        Self::ChallengeLevelSet,
        Self::BanPut,
        Self::BanLifted,
        Self::OrderCancelled,
        Self::ParkedRetried,
        Self::ParkedDiscarded,
    ];

    /// The name in the API, in the ledger and in the security log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SaleCreated => "sale-created",
            Self::SaleChanged => "sale-changed",
            Self::BeaconSet => "beacon-set",
            Self::ChallengeLevelSet => "challenge-level-set",
            Self::BanPut => "ban-put",
            Self::BanLifted => "ban-lifted",
            Self::OrderCancelled => "order-cancelled",
            Self::ParkedRetried => "parked-retried",
            Self::ParkedDiscarded => "parked-discarded",
        }
    }
}

impl FromStr for ActionKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("unknown action {text:?}"))
    }
}

/// A field that an action has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The field's name in the API.
    pub field: String,
    /// Its value before; `null` where there was none.
    #[schema(required)]
    pub from: Option<String>,
    /// Its value since; `null` when it was removed.
    #[schema(required)]
    pub to: Option<String>,
}

impl FieldChange {
    /// Sets a field that had no value before.
    pub fn to(field: &str, value: impl Into<String>) -> Self {
        Self { field: field.to_owned(), from: None, to: Some(value.into()) }
    }
}

/// Who did what, and when. Every port method that makes an administrator's change takes one and
/// stores it in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAction {
    /// Its id; ids sort by time.
    pub action_id: ActionId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub admin_id: UserId,
    /// From which network.
    pub address_prefix: AddressPrefix,
    /// What was done.
    pub kind: ActionKind,
    /// To what, without personal data: an id, or `address in 192.0.2.0/24`.
    pub object: String,
    /// The fields that were set. The ledger adds those that a change of a sale has changed.
    pub changes: Vec<FieldChange>,
}

impl AdminAction {
    /// Longest `object` that is kept, in characters.
    pub const OBJECT_CHARS_MAX: usize = 200;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for kind in ActionKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!("sale-deleted".parse::<ActionKind>().is_err());
    }
}
