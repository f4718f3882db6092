//! The queue and its parking queue as one value.

use std::sync::Arc;

use lapin::{types::ShortString, uri::AMQPUri};

use super::{
    connection::Connector, managed_connection::ManagedConnection, managed_consumer::ManagedConsumer,
};

/// Longest name of a queue in bytes: AMQP allows 255, and the parking queue's name is longer.
const QUEUE_NAME_MAX: usize = 200;

/// The queue `<queue>` and its parking queue `<queue>.parked` on a RabbitMQ server or cluster.
/// Cheap to clone. All clones share their connections and count as one consumer.
#[derive(Clone)]
pub struct RabbitMq {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) queue: ShortString,
    pub(super) parked: ShortString,
    pub(super) publishing: Arc<ManagedConnection>,
    pub(super) consumer: ManagedConsumer,
}

/// The address or the queue's name is invalid.
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
    /// Prepares a queue at an `amqp://` or `amqps://` address. No connection is made before the
    /// first call.
    ///
    /// # Errors
    /// When the address can't be parsed, or the queue's name is empty or too long.
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
        let connection = |purpose| {
            let connector = Connector::new(uri.clone(), purpose, queue.clone(), parked.clone());
            Arc::new(ManagedConnection::new(connector))
        };
        let publishing = connection("publish");
        let consumer = ManagedConsumer::new(connection("consume"), queue.clone());
        Ok(Self { inner: Arc::new(Inner { queue, parked, publishing, consumer }) })
    }

    /// Hands back the messages that were received and not acknowledged, then closes the
    /// connections. Every later call fails as unavailable. A publish in flight ends as unknown, so
    /// finish publishing first.
    pub async fn close(&self) {
        // Concurrently, because each may have to wait for the server.
        tokio::join!(self.inner.consumer.close(), self.inner.publishing.close());
    }
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
