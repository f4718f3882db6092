//! Publishing: one message is one confirmed and routed publish.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{Inner, RabbitMq, never_sent, not_done, unavailable, unknown};
use crate::{
    domain::{OrderRequest, QueueMessage},
    ports::{Depth, Health, OrderQueue, StoreError, Stored},
};

/// Longest wait for a free channel, and then for the confirm.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(3);
/// The header of a parked message that says why, beside `x-death` of those that the server parked.
pub(super) const REASON: &str = "x-reason";
/// Longest reason that is kept, in characters.
const REASON_MAX: usize = 1_000;
/// AMQP's mark of a message that is kept on disk.
const PERSISTENT: u8 = 2;

#[async_trait]
impl OrderQueue for RabbitMq {
    /// Waits up to 3 s each for a connection that is being made, a free channel and the confirm.
    async fn publish(&self, orders: &[OrderRequest]) -> Stored<()> {
        let Some(first) = orders.first() else { return Ok(()) };
        let message = QueueMessage { v: QueueMessage::VERSION, orders: orders.to_vec() };
        let body = serde_json::to_vec(&message).map_err(unavailable)?;
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            // Lambda's event for Amazon MQ has no room for a missing priority.
            .with_priority(0)
            .with_content_type("application/json".into())
            .with_message_id(first.order_id.to_string().into());
        self.send(self.inner.queue.clone(), body, properties).await
    }

    async fn park(&self, body: &[u8], reason: &str) -> Stored<()> {
        let mut headers = FieldTable::default();
        let reason: String = reason.chars().take(REASON_MAX).collect();
        headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
        self.send(self.inner.parked.clone(), body.to_vec(), properties).await
    }

    /// `waiting` counts the messages that are ready in the queue and those that this object has received and not
    /// acknowledged. What other processes hold at this moment is not counted: AMQP does not tell.
    async fn depth(&self) -> Stored<Depth> {
        let held = self.inner.consuming.unacknowledged();
        let counted = self.inner.count();
        let (ready, parked) = timeout(CALL_LIMIT, counted).await.map_err(|_| unavailable("no answer in time"))??;
        Ok(Depth { waiting: ready + held, parked })
    }
}

#[async_trait]
impl Health for RabbitMq {
    fn name(&self) -> &'static str {
        "queue"
    }

    async fn check(&self) -> Stored<()> {
        self.depth().await.map(drop)
    }
}

impl RabbitMq {
    /// Publishes in a task of its own, so that a caller who goes away leaves no channel with half a message.
    pub(super) async fn send(&self, to: ShortString, body: Vec<u8>, properties: BasicProperties) -> Stored<()> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.send(to, &body, properties).await }).await.unwrap_or_else(|error| Err(unknown(error)))
    }
}

impl Inner {
    async fn send(&self, to: ShortString, body: &[u8], properties: BasicProperties) -> Stored<()> {
        let live = self.publishing.live().await?;
        if live.blocked() {
            return Err(blocked());
        }
        let slot = match timeout(CALL_LIMIT, live.slot()).await {
            Ok(slot) => slot?,
            Err(_) => {
                self.publishing.retire(&live);
                return Err(unavailable("no free channel in time"));
            }
        };
        let published = async {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let confirm = slot
                .channel()
                .basic_publish(ShortString::default(), to.clone(), options, body, properties)
                .await
                .map_err(|error| if never_sent(&error) { not_done(&error) } else { unknown(error) })?;
            confirm.await.map_err(unknown)
        };
        match timeout(CALL_LIMIT, published).await {
            Ok(Ok(Confirmation::Ack(None))) => {
                slot.keep();
                Ok(())
            }
            Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))) => {
                // The queue is gone; the next connection makes it again.
                self.publishing.retire(&live);
                Err(unavailable(format!("queue {to} does not exist")))
            }
            Ok(Ok(Confirmation::Nack(None))) => {
                slot.keep();
                Err(unavailable(format!("queue {to} refused the message")))
            }
            Ok(Ok(Confirmation::NotRequested)) => Err(unknown("the channel gives no confirms")),
            Ok(Err(error)) => {
                self.publishing.retire(&live);
                Err(error)
            }
            Err(_) => {
                // While the server holds publishers back, a new connection would be held back too.
                if !live.blocked() {
                    self.publishing.retire(&live);
                }
                Err(unknown("no confirm in time"))
            }
        }
    }

    /// Messages that are ready in the queue, and in the parking queue.
    async fn count(&self) -> Stored<(u64, u64)> {
        let live = self.publishing.live().await?;
        if live.blocked() {
            return Err(blocked());
        }
        let slot = live.slot().await?;
        let mut counts = [0; 2];
        for (name, count) in [&self.queue, &self.parked].into_iter().zip(&mut counts) {
            let asked = slot.channel().queue_declare(name.clone(), QueueDeclareOptions::durable().passive(), FieldTable::default());
            match asked.await {
                Ok(queue) => *count = queue.message_count().into(),
                Err(error) => {
                    // Most likely a queue is gone; the next connection makes it again.
                    self.publishing.retire(&live);
                    return Err(not_done(&error));
                }
            }
        }
        slot.keep();
        Ok((counts[0], counts[1]))
    }
}

fn blocked() -> StoreError {
    unavailable("the server takes no messages: its memory or disk is nearly full")
}
