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

/// A ticket, as a client gets it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Ticket {
    /// To be sent with the order, however often it takes.
    pub ticket: String,
    /// The order that it makes.
    pub order_id: OrderId,
    /// First instant at which no new order is made of it.
    pub expires_at: Timestamp,
}
