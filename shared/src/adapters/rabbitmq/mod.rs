//! RabbitMQ 3.8 to 4.x: the order queue as a quorum queue, and its parking queue.
//!
//! Publishing and consuming have a connection each, so that a server that holds back publishers (a memory or disk
//! alarm stops reading from their sockets) still hears acknowledgements. A connection is made at first use; after a
//! loss it is made anew, with its queues, by `link`. lapin's own recovery is left off: it replays channels under
//! the same numbers, and then neither a delivery tag nor an unconfirmed publish tells which connection it belongs to.

mod connection;
mod consume;
mod dead_letters;
mod link;
mod publish;
mod session;
mod topology;

use std::sync::Arc;

use lapin::{ErrorKind, types::ShortString, uri::AMQPUri};

use crate::ports::StoreError;
use connection::Dial;
use consume::Consuming;
use link::Link;

/// The name of this store in errors.
const STORE: &str = "RabbitMQ";

/// How often a message is handed back before it is parked.
const DELIVERY_LIMIT: i32 = 50;

/// Longest name of a queue in bytes: AMQP allows 255, and the parking queue's name is longer.
const QUEUE_NAME_MAX: usize = 200;

/// The queue `<queue>` and its parking queue `<queue>.parked` on a RabbitMQ server or cluster. Cheap to clone; all
/// clones share their connections and are one consumer.
#[derive(Clone)]
pub struct RabbitMq {
    inner: Arc<Inner>,
}

struct Inner {
    queue: ShortString,
    parked: ShortString,
    publishing: Arc<Link>,
    consuming: Consuming,
}

/// The address or the queue's name can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AmqpUrlError {
    /// Not an AMQP address. The address is not shown, because it may hold a password.
    #[error(
        "amqp-url: expected amqp://[user:password@]host[:port][/virtual-host] or amqps://, with the host `/` written as %2f"
    )]
    Url,
    /// The name is empty or too long.
    #[error("amqp queue name: expected 1 to {QUEUE_NAME_MAX} bytes")]
    Queue,
}

impl RabbitMq {
    /// Prepares the queue at `amqp://` or `amqps://`. No connection is made before the first call.
    ///
    /// # Errors
    /// When the address can't be read, or the name of the queue is empty or too long.
    pub fn new(url: &str, queue: &str) -> Result<Self, AmqpUrlError> {
        // The library's message may repeat the address, and with it the password.
        let uri: AMQPUri = url.parse().map_err(|_| AmqpUrlError::Url)?;
        if uri.authority.host.is_empty() {
            return Err(AmqpUrlError::Url);
        }
        if queue.is_empty() || queue.len() > QUEUE_NAME_MAX {
            return Err(AmqpUrlError::Queue);
        }
        let queue = ShortString::from(queue);
        let parked = ShortString::from(format!("{queue}.parked"));
        let link = |purpose| {
            Arc::new(Link::new(Dial::new(uri.clone(), purpose, queue.clone(), parked.clone())))
        };
        let publishing = link("publish");
        let consuming = Consuming::new(link("consume"), queue.clone());
        Ok(Self { inner: Arc::new(Inner { queue, parked, publishing, consuming }) })
    }

    /// Hands back what was received and not acknowledged, then closes the connections. Every later call is refused
    /// as unavailable; a publish that is on its way ends as unknown, so let those end first.
    pub async fn close(&self) {
        // At the same time: each may have to wait for the server.
        tokio::join!(self.inner.consuming.close(), self.inner.publishing.close());
    }
}

fn unavailable(cause: impl ToString) -> StoreError {
    StoreError::Unavailable { store: STORE, cause: cause.to_string() }
}

fn unknown(cause: impl ToString) -> StoreError {
    StoreError::Unknown { store: STORE, cause: cause.to_string() }
}

/// For a call that changes nothing that matters when it is lost, or that was refused before it was sent.
fn not_done(error: &lapin::Error) -> StoreError {
    unavailable(error)
}

/// Whether the library refused the call itself, because it knew the connection or channel to be gone.
fn never_sent(error: &lapin::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidConnectionState(_)
            | ErrorKind::InvalidChannel(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for url in [
            "amqp://localhost",
            "amqp://user:pa%2Fss@10.0.0.1:5673/%2f",
            "amqps://broker.example.com/shop",
        ] {
            assert!(RabbitMq::new(url, "q").is_ok(), "{url}");
        }
    }

    #[test]
    fn a_bad_address_names_the_flag_and_hides_the_password() {
        for url in [
            "http://user:s3cret@host",
            "amqp:s3cret",
            "s3cret",
            "amqp://user:s3cret@host:99999",
            "amqp://u:s3cret@h?heartbeat=s3cret",
        ] {
            let error = RabbitMq::new(url, "q").err().expect(url);
            assert!(error.to_string().starts_with("amqp-url:"), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn names_have_a_limit() {
        for queue in [String::new(), "q".repeat(201)] {
            assert!(matches!(RabbitMq::new("amqp://localhost", &queue), Err(AmqpUrlError::Queue)));
        }
        assert!(RabbitMq::new("amqp://localhost", &"q".repeat(200)).is_ok());
    }
}
