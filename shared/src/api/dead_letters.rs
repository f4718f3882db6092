//! Parked messages: those of the order queue that could not be used.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::OrderId;

/// A parked message as the operator sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ParkedView {
    /// Names the message.
    pub parked_id: String,
    /// Why it was put aside.
    pub reason: String,
    /// The ids of the first orders in it, when it can be read.
    pub order_ids: Vec<OrderId>,
    /// How many bytes it has.
    pub bytes: usize,
    /// Its beginning, as text.
    pub body: String,
}

/// The parked messages. The list is bounded and not paged: it is short, or something is very wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct ParkedList {
    pub parked: Vec<ParkedView>,
}
