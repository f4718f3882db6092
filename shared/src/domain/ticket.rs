//! The ticket: what a buyer shows to place an order.

use serde::{Deserialize, Serialize};

use super::{OrderId, SaleId, SessionId, Timestamp, UserId};

/// What a signed ticket says. Its order id is the idempotency key: however often it is sent, it makes one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// The order that is made of it.
    #[serde(rename = "oid")]
    pub order_id: OrderId,
    /// For whom.
    #[serde(rename = "sub")]
    pub user_id: UserId,
    /// In which session.
    #[serde(rename = "sid")]
    pub session_id: SessionId,
    /// For which sale.
    #[serde(rename = "sale")]
    pub sale_id: SaleId,
    /// First instant, in milliseconds since 1970, at which no new order is made of it.
    pub exp_ms: i64,
}

impl TicketClaims {
    /// Whether its life is over.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        now.epoch_ms() >= self.exp_ms
    }
}
