//! Tickets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptchaId, OrderId, Timestamp};

/// Asks for a ticket.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({}))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct TicketRequest {
    pub captcha_id: Option<CaptchaId>,
    pub captcha_answer: Option<String>,
}

/// A ticket, as the client receives it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Ticket {
    /// Send it to place the order, and again until the order is accepted.
    pub ticket: String,
    /// The order that it creates.
    pub order_id: OrderId,
    /// First instant at which it no longer creates an order.
    pub expires_at: Timestamp,
}
