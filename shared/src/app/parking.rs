//! The messages that could not be used, for the operator to look at, try again or throw away.

use serde::Serialize;

use super::App;
use crate::{
    domain::{OrderId, QueueMessage},
    problem::Problem,
};

/// Bytes of a message that are shown: enough to see what it is.
const SHOWN_BYTES: usize = 4_096;
/// Orders of a message that are named.
const ORDERS_MAX: usize = 20;

/// A parked message as the operator sees it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

impl App {
    /// The parked messages, at most `limit`.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn parked(&self, limit: u32) -> Result<Vec<ParkedView>, Problem> {
        let parked = self.ports.parked.list(limit).await?;
        let view = |message: crate::ports::Parked| {
            let orders = serde_json::from_slice::<QueueMessage>(&message.body).map(|message| message.orders).unwrap_or_default();
            ParkedView {
                parked_id: message.id,
                reason: message.reason,
                order_ids: orders.iter().take(ORDERS_MAX).map(|order| order.order_id).collect(),
                bytes: message.body.len(),
                body: String::from_utf8_lossy(&message.body[..message.body.len().min(SHOWN_BYTES)]).into_owned(),
            }
        };
        Ok(parked.into_iter().map(view).collect())
    }

    /// Puts a parked message back into the queue.
    ///
    /// # Errors
    /// `NotFound` when it is not parked, and when the queue does not answer.
    pub async fn retry_parked(&self, id: &str) -> Result<(), Problem> {
        if self.ports.parked.retry(id).await? { Ok(()) } else { Err(Problem::NotFound) }
    }

    /// Throws a parked message away.
    ///
    /// # Errors
    /// As [`App::retry_parked`].
    pub async fn discard_parked(&self, id: &str) -> Result<(), Problem> {
        if self.ports.parked.discard(id).await? { Ok(()) } else { Err(Problem::NotFound) }
    }
}
