//! Reads the parking queue for the operator.
//!
//! AMQP can't read a message without taking it, so each one is taken, inspected and given back. The
//! server counts that, and from 4.0 on drops a message that came back twenty times. A message that
//! has come back often is therefore published again, which restarts the count, before the old copy
//! is acknowledged.

use async_trait::async_trait;
use lapin::{
    BasicProperties,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions},
    types::{AMQPValue, ShortString},
};
use ring::digest::{SHA256, digest};
use tokio::time::timeout;

use super::{
    client::RabbitMq,
    errors::{not_done, unavailable, unknown},
    publish::REASON,
};
use crate::domain::DeadLetter;
use crate::ports::{DeadLetters, Stored};

/// Longest wait for one scan.
const SCAN_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Messages searched for one id.
const SEARCH_MAX: u32 = 1_000;
/// The header in which a quorum queue counts a message's earlier deliveries, and the count from
/// which the message is published again.
const DELIVERY_COUNT: &str = "x-delivery-count";
const RENEW_FROM: i64 = 10;

/// What to do with an inspected message.
enum Choice {
    Leave,
    /// Remove it once it is stored in this queue; with `None`, remove it without storing it.
    Take(Option<ShortString>),
}

#[async_trait]
impl DeadLetters for RabbitMq {
    async fn list(&self, limit: u32) -> Stored<Vec<DeadLetter>> {
        let mut found = Vec::new();
        self.scan(limit, |parked| {
            found.push(parked);
            Choice::Leave
        })
        .await?;
        Ok(found)
    }

    async fn retry(&self, id: &str) -> Stored<bool> {
        let queue = self.inner.queue.clone();
        self.scan(SEARCH_MAX, |parked| {
            if parked.id == id { Choice::Take(Some(queue.clone())) } else { Choice::Leave }
        })
        .await
    }

    async fn discard(&self, id: &str) -> Stored<bool> {
        self.scan(
            SEARCH_MAX,
            |parked| if parked.id == id { Choice::Take(None) } else { Choice::Leave },
        )
        .await
    }
}

impl RabbitMq {
    /// Passes up to `limit` messages to `choose`, oldest first, until one is taken. Returns whether
    /// one was.
    async fn scan(
        &self,
        limit: u32,
        choose: impl FnMut(DeadLetter) -> Choice + Send,
    ) -> Stored<bool> {
        timeout(SCAN_LIMIT, self.scan_all(limit, choose))
            .await
            .map_err(|_| unavailable("the parked messages can't be read in time"))?
    }

    async fn scan_all(
        &self,
        limit: u32,
        mut choose: impl FnMut(DeadLetter) -> Choice + Send,
    ) -> Stored<bool> {
        let connection = self.inner.publishing.get().await?;
        let channel = connection.channel().await.map_err(|error| not_done(&error))?;
        let parked = &self.inner.parked;
        // Messages published again come behind these and must not be seen twice.
        let mut left = None;
        let mut taken = false;
        for _ in 0..limit {
            if left == Some(0) {
                break;
            }
            let got = channel
                .basic_get(parked.clone(), BasicGetOptions::default())
                .await
                .map_err(|error| not_done(&error))?;
            let Some(message) = got else { break };
            left = Some(left.map_or(message.message_count, |left: u32| left - 1));
            let to = match choose(read(&message)) {
                Choice::Leave if deliveries(&message.properties) < RENEW_FROM => continue,
                Choice::Leave => Some(parked.clone()),
                Choice::Take(to) => {
                    taken = true;
                    to
                }
            };
            if let Some(to) = to {
                self.send(to, message.data.clone(), message.properties.clone()).await?;
            }
            message.acker.ack(BasicAckOptions::default()).await.map_err(unknown)?;
            if taken {
                break;
            }
        }
        // Gives back the messages that were left. Closing the channel would do so too, but later,
        // and a scan in between would miss them.
        let all = BasicNackOptions { multiple: true, requeue: true };
        channel.basic_nack(0, all).await.map_err(|error| not_done(&error))?;
        channel.close(200, "OK".into()).await.map_err(|error| not_done(&error))?;
        Ok(taken)
    }
}

fn read(message: &BasicGetMessage) -> DeadLetter {
    let hash = digest(&SHA256, &message.data);
    let id = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = message.properties.headers().as_ref();
    let reason = match headers.and_then(|headers| headers.inner().get(REASON)) {
        Some(AMQPValue::LongString(reason)) => reason.to_string(),
        _ => "handed back too often".to_owned(),
    };
    DeadLetter { id, body: message.data.clone(), reason }
}

fn deliveries(properties: &BasicProperties) -> i64 {
    let count = properties
        .headers()
        .as_ref()
        .and_then(|headers| headers.inner().get(DELIVERY_COUNT).cloned());
    match count {
        Some(AMQPValue::LongLongInt(count)) => count,
        Some(AMQPValue::LongInt(count)) => count.into(),
        Some(AMQPValue::ShortInt(count)) => count.into(),
        Some(AMQPValue::ShortShortInt(count)) => count.into(),
        _ => 0,
    }
}
