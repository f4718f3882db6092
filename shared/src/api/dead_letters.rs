//! Parked messages: unusable messages of the order queue.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::OrderId;

/// A parked message as the operator sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ParkedView {
    /// Identifies the message.
    pub parked_id: String,
    /// Why it was parked.
    pub reason: String,
    /// The ids of the first orders in it, if it can be read.
    pub order_ids: Vec<OrderId>,
    /// Its size in bytes.
    pub bytes: usize,
    /// Its beginning, as text.
    pub body: String,
}

/// The parked messages. The list is bounded and not paged, because more than a few parked messages
/// are a fault to be repaired.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct ParkedList {
    pub parked: Vec<ParkedView>,
}
