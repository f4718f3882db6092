//! The order queue: what its messages say, and how far its consumers have got.

use serde::{Deserialize, Serialize};

use super::AdmittedOrder;

/// Message version 1: the body of one queue message.
///
/// Instances of two releases read and write the same queue while one replaces the other. So a release may add a field that
/// may be absent, which the release before ignores: it must do no harm that it does. Any other change is a new version, which a
/// release reads before a later one writes it. A worker parks a version that it does not know. The order's reservation is then
/// overdue, and the sweeper publishes it again in the version that its own release writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMessage {
    /// Always 1.
    pub v: u32,
    /// The orders that were made durable together.
    pub orders: Vec<AdmittedOrder>,
}

impl QueueMessage {
    /// The version this code writes and reads.
    pub const VERSION: u32 = 1;
}

/// How much waits in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that wait or are with a consumer, as far as the queue tells.
    pub waiting: u64,
    /// Messages that were put aside.
    pub parked: u64,
}

/// What is between the publishers and the ledger, as far as the queue itself can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueBacklog {
    /// Messages that wait for a consumer; where `consumers` is 0 also those that a consumer has.
    pub ready: u64,
    /// Consumers that may have messages which `ready` does not count. Each should report how far it has got.
    pub consumers: u32,
}

/// A message that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names the message when it is retried or discarded. Equal bodies may share an id.
    pub id: String,
    /// Its body as it came.
    pub body: Vec<u8>,
    /// Why it was put aside.
    pub reason: String,
}

/// One message as a consumer gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names the delivery when it is acknowledged or handed back; good for the source it came from only.
    pub tag: u64,
    /// The body, a [`crate::domain::QueueMessage`] in JSON.
    pub body: Vec<u8>,
    /// Whether it was delivered before.
    pub redelivered: bool,
}

/// How far a consumer has got with the messages it was given. Messages are numbered from 1 on as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerProgress {
    /// Which of the consumer's connections this is about. The messages of an earlier one were given out again.
    pub session: u64,
    /// How many messages it has handed back: those were given out again, too.
    pub handed_back: u64,
    /// The number of the last message that came.
    pub received: u64,
    /// Every message up to this number is acknowledged or handed back.
    pub done: u64,
}

/// What one process that consumes the queue says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerReport {
    /// The process.
    pub consumer: u128,
    /// Grows with every report of this process: a report with the same beat as before is not a new one.
    pub beat: u64,
    /// How far it has got.
    pub progress: ConsumerProgress,
}
