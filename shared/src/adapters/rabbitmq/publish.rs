//! Publishing: each message is published once and must be confirmed and routed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    client::{Inner, RabbitMq},
    connection::CALL_LIMIT,
    errors::{never_sent, not_done, unavailable, unknown},
};
use crate::{
    domain::{AdmittedOrder, Entry, EntryMessage, QueueBacklog, QueueDepth, QueueMessage},
    ports::{Health, OrderQueue, PUBLISH_LIMIT_MS, StoreError, Stored},
};

/// Publishes of one process at once. The server writes those of several channels with one sync.
const PUBLISHES_AT_ONCE: usize = 4;
/// Longest time of one publish in all: connection, channel, confirm, and retries after a refusal.
const PUBLISH_LIMIT: Duration = Duration::from_millis(PUBLISH_LIMIT_MS);
/// Pauses before a refused message is published again: doubled from the first value up to the last.
const REFUSED_PAUSE_FIRST: Duration = Duration::from_millis(20);
const REFUSED_PAUSE_LAST: Duration = Duration::from_millis(500);
/// The header with the reason why a message was parked, beside the `x-death` of messages that the
/// server parked.
pub(super) const REASON: &str = "x-reason";
/// Longest reason kept, in characters.
const REASON_MAX: usize = 1_000;
/// AMQP's delivery mode of a persistent message.
const PERSISTENT: u8 = 2;

#[async_trait]
impl OrderQueue for RabbitMq {
    fn publishes_at_once(&self) -> usize {
        PUBLISHES_AT_ONCE
    }

    /// Waits up to 3.5 s for a connection that is being made, and up to 3 s each for a free channel
    /// and a confirm. A message that the queue refuses is published again until
    /// [`PUBLISH_LIMIT_MS`] have passed in all.
    async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()> {
        let Some(first) = orders.first() else { return Ok(()) };
        let message = QueueMessage { v: QueueMessage::VERSION, orders: orders.to_vec() };
        let properties = of_a_message().with_message_id(first.order_id.to_string().into());
        self.send(self.inner.queue.clone(), encoded(&message)?, properties).await
    }

    async fn publish_entries(&self, entries: &[Entry]) -> Stored<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        let message = EntryMessage { v: EntryMessage::VERSION, entries: entries.to_vec() };
        let id = format!("{}/{}", first.sale_id, first.user_id);
        let properties = of_a_message().with_message_id(id.into());
        self.send(self.inner.queue.clone(), encoded(&message)?, properties).await
    }

    async fn park(&self, body: &[u8], reason: &str) -> Stored<()> {
        let mut headers = FieldTable::default();
        let reason: String = reason.chars().take(REASON_MAX).collect();
        headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
        let properties =
            BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
        self.send(self.inner.parked.clone(), body.to_vec(), properties).await
    }

    /// `waiting` counts the messages ready in the queue and those that this object has received and
    /// not acknowledged. Messages held by other processes are not counted: AMQP does not report
    /// them.
    async fn depth(&self) -> Stored<QueueDepth> {
        let unacknowledged = self.inner.consumer.unacknowledged();
        let counted = self.inner.count();
        let [orders, parked] =
            timeout(CALL_LIMIT, counted).await.map_err(|_| unavailable("no answer in time"))??;
        Ok(QueueDepth { waiting: orders.ready + unacknowledged, parked: parked.ready })
    }

    async fn backlog(&self) -> Stored<QueueBacklog> {
        let [orders, _] = timeout(CALL_LIMIT, self.inner.count())
            .await
            .map_err(|_| unavailable("no answer in time"))??;
        Ok(orders)
    }

    async fn inherited(&self) -> Stored<Option<u64>> {
        Ok(None)
    }
}

/// The body of a message of orders or of entries.
fn encoded(message: &impl Serialize) -> Stored<Vec<u8>> {
    serde_json::to_vec(message).map_err(unavailable)
}

fn of_a_message() -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        // Lambda's event for Amazon MQ can't express a missing priority.
        .with_priority(0)
        .with_content_type("application/json".into())
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
    /// Publishes in its own task, so that a caller that is dropped leaves no channel with half a
    /// message.
    pub(super) async fn send(
        &self,
        to: ShortString,
        body: Vec<u8>,
        properties: BasicProperties,
    ) -> Stored<()> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.send(to, &body, properties).await })
            .await
            .unwrap_or_else(|error| Err(unknown(error)))
    }
}

impl Inner {
    async fn send(&self, to: ShortString, body: &[u8], properties: BasicProperties) -> Stored<()> {
        let deadline = Instant::now() + PUBLISH_LIMIT;
        let connection = self.publishing.get().await?;
        if connection.blocked() {
            return Err(blocked());
        }
        let call_deadline = || deadline.min(Instant::now() + CALL_LIMIT);
        let channel = match timeout_at(call_deadline(), connection.confirm_channel()).await {
            Ok(channel) => channel?,
            Err(_) => {
                self.publishing.retire(&connection);
                return Err(unavailable("no free channel in time"));
            }
        };
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(REFUSED_PAUSE_FIRST)
            .with_max_delay(REFUSED_PAUSE_LAST)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let published = async {
                let options =
                    BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let confirm = channel
                    .channel()
                    .basic_publish(
                        ShortString::default(),
                        to.clone(),
                        options,
                        body,
                        properties.clone(),
                    )
                    .await
                    .map_err(
                        |error| if never_sent(&error) { not_done(&error) } else { unknown(error) },
                    )?;
                confirm.await.map_err(unknown)
            };
            match timeout_at(call_deadline(), published).await {
                Ok(Ok(Confirmation::Ack(None))) => {
                    channel.keep();
                    return Ok(());
                }
                Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))) => {
                    // The queue is gone; the next connection declares it again.
                    self.publishing.retire(&connection);
                    return Err(unavailable(format!("queue {to} does not exist")));
                }
                Ok(Ok(Confirmation::Nack(None))) => {
                    // Nothing was stored. A quorum queue refuses while it is full, or, on a busy
                    // machine, while it is new and has no leader yet. Both are temporary.
                    let pause = pauses.next().unwrap_or(REFUSED_PAUSE_LAST);
                    if Instant::now() + pause >= deadline {
                        channel.keep();
                        return Err(unavailable(format!("queue {to} refused the message")));
                    }
                    sleep(pause).await;
                }
                Ok(Ok(Confirmation::NotRequested)) => {
                    return Err(unknown("the channel gives no confirms"));
                }
                Ok(Err(error)) => {
                    self.publishing.retire(&connection);
                    return Err(error);
                }
                Err(_) => {
                    // While the server blocks publishers, it would block a new connection too.
                    if !connection.blocked() {
                        self.publishing.retire(&connection);
                    }
                    return Err(unknown("no confirm in time"));
                }
            }
        }
    }

    /// Asks the server about the queue and the parking queue.
    async fn count(&self) -> Stored<[QueueBacklog; 2]> {
        let connection = self.publishing.get().await?;
        if connection.blocked() {
            return Err(blocked());
        }
        let channel = connection.confirm_channel().await?;
        let mut counts = [QueueBacklog::default(); 2];
        for (name, count) in [&self.queue, &self.parked].into_iter().zip(&mut counts) {
            let asked = channel.channel().queue_declare(
                name.clone(),
                QueueDeclareOptions::durable().passive(),
                FieldTable::default(),
            );
            match asked.await {
                Ok(queue) => {
                    *count = QueueBacklog {
                        ready: queue.message_count().into(),
                        consumers: queue.consumer_count(),
                    }
                }
                Err(error) => {
                    // Most likely a queue is gone; the next connection declares it again.
                    self.publishing.retire(&connection);
                    return Err(not_done(&error));
                }
            }
        }
        channel.keep();
        Ok(counts)
    }
}

fn blocked() -> StoreError {
    unavailable("the server takes no messages: its memory or disk is nearly full")
}
