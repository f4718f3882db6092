//! One consumer on one channel, from its start until it is lost.

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    connection::{BrokerConnection, CALL_LIMIT},
    errors::{not_done, unknown},
};
use crate::domain::{ConsumerProgress, Delivery};
use crate::ports::Stored;

/// The lower bits of a tag are the server's delivery number; the upper ones identify the consumer.
/// 48 bits last a consumer for years at any rate, and of 65,536 consumers in a row only one is
/// alive.
const NUMBER_BITS: u32 = 48;

/// How a message is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    Ack,
    HandBack,
}

/// A running consumer. Dropping it ends it; the server then delivers its unacknowledged messages
/// again.
pub(super) struct ChannelConsumer {
    generation: u64,
    connection: Arc<BrokerConnection>,
    channel: Channel,
    buffer: Arc<Buffer>,
    /// Locked while acknowledgements are queued: one for many (`multiple`) must not overtake
    /// others.
    turn: tokio::sync::Mutex<()>,
    receiving: JoinHandle<()>,
}

#[derive(Default)]
struct Buffer {
    messages: Mutex<Messages>,
    changed: Notify,
}

#[derive(Default)]
struct Messages {
    /// Received from the server, but not yet given to a caller.
    ready: VecDeque<Delivery>,
    /// Numbers of messages that were given to a caller and are not acknowledged.
    held: BTreeSet<u64>,
    /// The number of the last message received: the server counts a channel's messages from 1.
    received: u64,
    handed_back: u64,
    lost: bool,
}

impl ChannelConsumer {
    /// Starts a consumer that holds at most `prefetch` messages.
    pub(super) async fn open(
        connection: Arc<BrokerConnection>,
        queue: ShortString,
        generation: u64,
        prefetch: u16,
    ) -> Stored<Self> {
        let begun = async {
            let channel = connection.channel().await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let consumer = channel
                .basic_consume(
                    queue,
                    ShortString::default(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok::<_, lapin::Error>((channel, consumer))
        };
        let (channel, consumer) = begun.await.map_err(|error| not_done(&error))?;
        let buffer = Arc::new(Buffer::default());
        let generation = generation & (u64::MAX >> NUMBER_BITS);
        let receiving = tokio::spawn(receive(consumer, generation, Arc::clone(&buffer)));
        Ok(Self {
            generation,
            connection,
            channel,
            buffer,
            turn: tokio::sync::Mutex::default(),
            receiving,
        })
    }

    pub(super) fn connection(&self) -> &Arc<BrokerConnection> {
        &self.connection
    }

    /// Whether it can still receive.
    pub(super) fn alive(&self) -> bool {
        !self.buffer.messages().lost
            && self.channel.status().connected()
            && self.connection.usable()
    }

    /// The number of messages received and not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        let messages = self.buffer.messages();
        (messages.ready.len() + messages.held.len()) as u64
    }

    /// The consumer's progress.
    pub(super) fn progress(&self) -> ConsumerProgress {
        let messages = self.buffer.messages();
        let waiting = messages.ready.front().map(|delivery| number_of(delivery.tag));
        let first_open = messages.held.first().copied().into_iter().chain(waiting).min();
        let done = first_open.map_or(messages.received, |number| number - 1);
        ConsumerProgress {
            session: self.generation,
            handed_back: messages.handed_back,
            received: messages.received,
            done,
        }
    }

    /// Returns the buffered messages, at most `limit`, waiting for the first one until `deadline`.
    /// `None` when the consumer is lost. If the call is dropped, no message is taken.
    pub(super) async fn take(&self, limit: usize, deadline: Instant) -> Option<Vec<Delivery>> {
        loop {
            let changed = self.buffer.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut messages = self.buffer.messages();
                if messages.lost {
                    return None;
                }
                let count = messages.ready.len().min(limit);
                if count > 0 {
                    let taken: Vec<_> = messages.ready.drain(..count).collect();
                    messages.held.extend(taken.iter().map(|delivery| number_of(delivery.tag)));
                    if !messages.ready.is_empty() {
                        // This receiver has used a wake-up; pass it on to the next one.
                        self.buffer.changed.notify_one();
                    }
                    return Some(taken);
                }
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Some(Vec::new());
            }
        }
    }

    /// Acknowledges messages. Ignores tags that this consumer does not hold.
    pub(super) async fn acknowledge(&self, tags: &[u64], how: Acknowledgement) -> Stored<()> {
        let acknowledged = async {
            let turn = self.turn.lock().await;
            let (numbers, kept) = self
                .buffer
                .let_go(tags.iter().filter(|&&tag| tag >> NUMBER_BITS == self.generation), how);
            let mut sending = self.send(numbers, kept, how);
            // The first poll puts a frame into the library's queue. All frames are queued before
            // this function can be interrupted, so everything removed from `held` is on its way, in
            // order.
            let mut sent = Vec::with_capacity(sending.len());
            for frame in &mut sending {
                sent.push(futures_util::poll!(frame));
            }
            drop(turn);
            for (frame, sent) in sending.into_iter().zip(sent) {
                match sent {
                    std::task::Poll::Ready(outcome) => outcome,
                    std::task::Poll::Pending => frame.await,
                }
                .map_err(unknown)?;
            }
            Ok(())
        };
        timeout(CALL_LIMIT, acknowledged)
            .await
            .unwrap_or_else(|_| Err(unknown("acknowledgements can't be sent")))
    }

    /// The frames for `numbers`, which are sorted; `kept` is the smallest number that stays
    /// unacknowledged.
    fn send(&self, numbers: Vec<u64>, kept: Option<u64>, how: Acknowledgement) -> Vec<Sending<'_>> {
        let one = |number| -> Sending<'_> {
            match how {
                Acknowledgement::Ack => {
                    Box::pin(self.channel.basic_ack(number, BasicAckOptions { multiple: false }))
                }
                // Not `nack`: from 4.3 on the server counts only rejected messages towards the
                // delivery limit.
                Acknowledgement::HandBack => Box::pin(
                    self.channel.basic_reject(number, BasicRejectOptions { requeue: true }),
                ),
            }
        };
        if how == Acknowledgement::HandBack {
            return numbers.into_iter().map(one).collect();
        }
        // Numbers are assigned in order, so everything up to this one is acknowledged and one frame
        // is enough.
        let together =
            kept.map_or(numbers.len(), |kept| numbers.partition_point(|&number| number < kept));
        let mut sending: Vec<Sending<'_>> = Vec::new();
        if let Some(&last) = numbers[..together].last() {
            sending
                .push(Box::pin(self.channel.basic_ack(last, BasicAckOptions { multiple: true })));
        }
        sending.extend(numbers[together..].iter().copied().map(one));
        sending
    }
}

type Sending<'s> = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send + 's>>;

impl Drop for ChannelConsumer {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

impl Buffer {
    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes `tags` from `held`. Returns their numbers, sorted, and the smallest number still
    /// held.
    fn let_go<'t>(
        &self,
        tags: impl Iterator<Item = &'t u64>,
        how: Acknowledgement,
    ) -> (Vec<u64>, Option<u64>) {
        let mut messages = self.messages();
        let mut numbers: Vec<u64> =
            tags.map(|&tag| number_of(tag)).filter(|number| messages.held.remove(number)).collect();
        if how == Acknowledgement::HandBack {
            messages.handed_back += numbers.len() as u64;
        }
        numbers.sort_unstable();
        (numbers, messages.held.first().copied())
    }
}

/// Moves messages from the library into the buffer, where they can be counted, until the consumer
/// ends.
async fn receive(mut consumer: Consumer, generation: u64, buffer: Arc<Buffer>) {
    while let Some(Ok(message)) = consumer.next().await {
        let tag = (generation << NUMBER_BITS) | message.delivery_tag;
        {
            let mut messages = buffer.messages();
            messages.received = message.delivery_tag;
            messages.ready.push_back(Delivery {
                tag,
                body: message.data,
                redelivered: message.redelivered,
            });
        }
        buffer.changed.notify_one();
    }
    buffer.messages().lost = true;
    buffer.changed.notify_waiters();
}

fn number_of(tag: u64) -> u64 {
    tag & (u64::MAX >> (u64::BITS - NUMBER_BITS))
}
