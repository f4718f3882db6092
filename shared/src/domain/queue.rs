//! The order queue: the contents of its messages and the progress of its consumers.

use serde::{Deserialize, Serialize};

use super::{AdmittedOrder, Entry};

/// Message version 1: the body of one queue message.
///
/// During an upgrade, instances of two releases read and write the same queue. So a release may add
/// an optional field, which the previous release ignores; ignoring it must be harmless. Any other
/// change needs a new version, and a release must read that version before a later release writes
/// it. A worker parks a message of an unknown version. The order's reservation is then overdue, and
/// the sweeper publishes it again in the version that its own release writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMessage {
    /// Always 1.
    pub v: u32,
    /// The orders made durable by this message.
    pub orders: Vec<AdmittedOrder>,
}

impl QueueMessage {
    /// The version this code writes and reads.
    pub const VERSION: u32 = 1;
}

/// Message version 2: entries of sales by draw. A release that does not know it parks the message,
/// so sales by draw begin only after all instances were upgraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMessage {
    /// Always 2.
    pub v: u32,
    /// The entries made durable by this message.
    pub entries: Vec<Entry>,
}

impl EntryMessage {
    /// The version that carries entries.
    pub const VERSION: u32 = 2;
}

/// The depth of the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that wait or are with a consumer, as far as the queue reports them.
    pub waiting: u64,
    /// Parked messages.
    pub parked: u64,
}

/// Messages between the publishers and the ledger, as far as the queue itself reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueBacklog {
    /// Messages that wait for a consumer; if `consumers` is 0, this includes messages that a
    /// consumer holds.
    pub ready: u64,
    /// Consumers that may hold messages that `ready` does not count. Each should report its
    /// progress.
    pub consumers: u32,
}

/// A parked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names the message when it is retried or discarded. Equal bodies may share an id.
    pub id: String,
    /// Its unchanged body.
    pub body: Vec<u8>,
    /// Why it was parked.
    pub reason: String,
}

/// One message as delivered to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Identifies the delivery for acknowledging or handing back; valid only for the source that
    /// delivered it.
    pub tag: u64,
    /// The body, a [`crate::domain::QueueMessage`] in JSON.
    pub body: Vec<u8>,
    /// Whether this is a redelivery.
    pub redelivered: bool,
}

/// A consumer's progress through its messages, which are numbered from 1 in the order of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerProgress {
    /// The number of the consumer's connection. Messages of earlier connections were redelivered.
    pub session: u64,
    /// How many messages it has handed back; these were redelivered too.
    pub handed_back: u64,
    /// The number of the last delivered message.
    pub received: u64,
    /// Every message up to this number is acknowledged or handed back.
    pub done: u64,
}

/// The report of one process that consumes the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerReport {
    /// The process.
    pub consumer: u128,
    /// Grows with every report of this process: an unchanged beat means that there is no new
    /// report.
    pub beat: u64,
    /// Its progress.
    pub progress: ConsumerProgress,
}
