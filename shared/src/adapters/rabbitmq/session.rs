//! One consumer on one channel, from its start to its loss.

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

use super::{connection::Live, not_done, publish::CALL_LIMIT, unknown};
use crate::{
    domain::{ConsumerProgress, Delivery},
    ports::Stored,
};

/// The lower bits of a tag are the server's number; those above it say of which session. 48 bits last a session for
/// years at any rate; of the 65,536 sessions that differ, only one is alive.
const NUMBER_BITS: u32 = 48;

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    HandBack,
}

/// A running consumer. Ends when dropped, and then the server gives its messages out again.
pub(super) struct Session {
    generation: u64,
    live: Arc<Live>,
    channel: Channel,
    inbox: Arc<Inbox>,
    /// Held while acknowledgements are put on their way: one for many (`multiple`) must not overtake others.
    turn: tokio::sync::Mutex<()>,
    pump: JoinHandle<()>,
}

#[derive(Default)]
struct Inbox {
    letters: Mutex<Letters>,
    changed: Notify,
}

#[derive(Default)]
struct Letters {
    /// Received from the server, not yet given out.
    ready: VecDeque<Delivery>,
    /// Numbers that were given out and wait for their verdict.
    held: BTreeSet<u64>,
    /// The number of the last message that came: the server counts a channel's messages from 1 on.
    received: u64,
    handed_back: u64,
    lost: bool,
}

impl Session {
    /// Starts a consumer that holds at most `prefetch` messages.
    pub(super) async fn open(
        live: Arc<Live>,
        queue: ShortString,
        generation: u64,
        prefetch: u16,
    ) -> Stored<Self> {
        let begun = async {
            let channel = live.channel().await?;
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
        let inbox = Arc::new(Inbox::default());
        let generation = generation & (u64::MAX >> NUMBER_BITS);
        let pump = tokio::spawn(pump(consumer, generation, Arc::clone(&inbox)));
        Ok(Self { generation, live, channel, inbox, turn: tokio::sync::Mutex::default(), pump })
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Whether it can still receive.
    pub(super) fn alive(&self) -> bool {
        !self.inbox.letters().lost && self.channel.status().connected() && self.live.usable()
    }

    /// Messages that came and have no verdict.
    pub(super) fn unacknowledged(&self) -> u64 {
        let letters = self.inbox.letters();
        (letters.ready.len() + letters.held.len()) as u64
    }

    /// How far it has got.
    pub(super) fn progress(&self) -> ConsumerProgress {
        let letters = self.inbox.letters();
        let waiting = letters.ready.front().map(|delivery| number_of(delivery.tag));
        let first_open = letters.held.first().copied().into_iter().chain(waiting).min();
        let done = first_open.map_or(letters.received, |number| number - 1);
        ConsumerProgress {
            session: self.generation,
            handed_back: letters.handed_back,
            received: letters.received,
            done,
        }
    }

    /// Gives out what is there, at most `limit`, waiting for the first until `deadline`. `None` when the session is
    /// lost. Nothing is taken when the caller goes away.
    pub(super) async fn take(&self, limit: usize, deadline: Instant) -> Option<Vec<Delivery>> {
        loop {
            let changed = self.inbox.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut letters = self.inbox.letters();
                if letters.lost {
                    return None;
                }
                let count = letters.ready.len().min(limit);
                if count > 0 {
                    let taken: Vec<_> = letters.ready.drain(..count).collect();
                    letters.held.extend(taken.iter().map(|delivery| number_of(delivery.tag)));
                    if !letters.ready.is_empty() {
                        // For another receiver, whose wake-up this one has used.
                        self.inbox.changed.notify_one();
                    }
                    return Some(taken);
                }
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Some(Vec::new());
            }
        }
    }

    /// Passes the verdict on. Tags that this session does not hold are left out.
    pub(super) async fn settle(&self, tags: &[u64], verdict: Verdict) -> Stored<()> {
        let settled = async {
            let turn = self.turn.lock().await;
            let (numbers, kept) = self
                .inbox
                .let_go(tags.iter().filter(|&&tag| tag >> NUMBER_BITS == self.generation), verdict);
            let mut sending = self.send(numbers, kept, verdict);
            // The first poll puts a frame into the library's queue. All are put there before anything can interrupt
            // this function: what `held` has forgotten is on its way, in order.
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
        timeout(CALL_LIMIT, settled)
            .await
            .unwrap_or_else(|_| Err(unknown("acknowledgements can't be sent")))
    }

    /// The frames for `numbers`, which are in order; `kept` is the smallest number that stays without a verdict.
    fn send(&self, numbers: Vec<u64>, kept: Option<u64>, verdict: Verdict) -> Vec<Sending<'_>> {
        let one = |number| -> Sending<'_> {
            match verdict {
                Verdict::Done => {
                    Box::pin(self.channel.basic_ack(number, BasicAckOptions { multiple: false }))
                }
                // Not `nack`: from 4.3 on the server counts only rejected messages towards the delivery limit.
                Verdict::HandBack => Box::pin(
                    self.channel.basic_reject(number, BasicRejectOptions { requeue: true }),
                ),
            }
        };
        if verdict == Verdict::HandBack {
            return numbers.into_iter().map(one).collect();
        }
        // Numbers are given out in order, so everything up to here has its verdict, and one frame does for all.
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

impl Drop for Session {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Inbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is held of `tags`; returns those numbers in order, and the smallest that is still held.
    fn let_go<'t>(
        &self,
        tags: impl Iterator<Item = &'t u64>,
        verdict: Verdict,
    ) -> (Vec<u64>, Option<u64>) {
        let mut letters = self.letters();
        let mut numbers: Vec<u64> =
            tags.map(|&tag| number_of(tag)).filter(|number| letters.held.remove(number)).collect();
        if verdict == Verdict::HandBack {
            letters.handed_back += numbers.len() as u64;
        }
        numbers.sort_unstable();
        (numbers, letters.held.first().copied())
    }
}

/// Moves messages from the library into the inbox, where they can be counted, until the consumer ends.
async fn pump(mut consumer: Consumer, generation: u64, inbox: Arc<Inbox>) {
    while let Some(Ok(message)) = consumer.next().await {
        let tag = (generation << NUMBER_BITS) | message.delivery_tag;
        {
            let mut letters = inbox.letters();
            letters.received = message.delivery_tag;
            letters.ready.push_back(Delivery {
                tag,
                body: message.data,
                redelivered: message.redelivered,
            });
        }
        inbox.changed.notify_one();
    }
    inbox.letters().lost = true;
    inbox.changed.notify_waiters();
}

fn number_of(tag: u64) -> u64 {
    tag & (u64::MAX >> (u64::BITS - NUMBER_BITS))
}
