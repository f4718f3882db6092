//! The ticket: a buyer's permission to place an order.

use serde::{Deserialize, Serialize};

use super::{OrderId, SaleId, SessionId, Timestamp, UserId};

/// The claims of a signed ticket. Its order id is the idempotency key: sending a ticket repeatedly
/// creates one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// The order that it creates.
    #[serde(rename = "oid")]
    pub order_id: OrderId,
    /// The user it was issued to.
    #[serde(rename = "sub")]
    pub user_id: UserId,
    /// The session it was issued in.
    #[serde(rename = "sid")]
    pub session_id: SessionId,
    /// The sale it is for.
    #[serde(rename = "sale")]
    pub sale_id: SaleId,
    /// First instant, in milliseconds since 1970, at which it no longer creates an order.
    pub exp_ms: i64,
}

impl TicketClaims {
    /// Whether it has expired.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        now.epoch_ms() >= self.exp_ms
    }
}
