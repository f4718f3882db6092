//! RabbitMQ 3.8 to 4.x: the order queue as a quorum queue, and its parking queue.
//!
//! Publishing and consuming have a connection each, so that a server that holds back publishers (a memory or disk
//! alarm stops reading from their sockets) still hears acknowledgements. A connection is made at first use; after a
//! loss it is made anew, with its queues, by `managed_connection`. lapin's own recovery is left off: it replays channels under
//! the same numbers, and then neither a delivery tag nor an unconfirmed publish tells which connection it belongs to.

mod client;
mod connection;
mod consume;
mod consumer;
mod dead_letters;
mod errors;
mod managed_connection;
mod managed_consumer;
mod publish;
mod socket;
mod topology;

pub use client::{AmqpUrlError, RabbitMq};
