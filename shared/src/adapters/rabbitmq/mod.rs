//! RabbitMQ 3.8 to 4.x: the order queue as a quorum queue, and its parking queue.
//!
//! Publishing and consuming have a connection each: under a memory or disk alarm the server stops
//! reading from publishers' sockets, but must still receive acknowledgements. `managed_connection`
//! makes a connection on first use, and after a loss makes it again together with its queues.
//! lapin's own recovery is off: it replays channels under the same numbers, and then neither a
//! delivery tag nor an unconfirmed publish tells which connection it belongs to.

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
