//! Implements the consumer's port.

use std::time::Duration;

use async_trait::async_trait;

use super::{client::RabbitMq, consumer::Acknowledgement};
use crate::domain::{ConsumerProgress, Delivery};
use crate::ports::{OrderSource, Stored};

/// Longest wait for a first message; a caller's longer wait is cut to this.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

#[async_trait]
impl OrderSource for RabbitMq {
    fn progress(&self) -> Option<ConsumerProgress> {
        self.inner.consumer.alive().map(|consumer| consumer.progress())
    }

    /// Up to twice the largest `limit` so far (at most 2,000 messages) is prefetched from the
    /// moment a consumer is opened or reopened, so that the next batch is there when one is done.
    /// Making a connection may take 6 s on top of `wait_ms`.
    async fn receive(&self, limit: u32, wait_ms: u64) -> Stored<Vec<Delivery>> {
        self.inner.consumer.receive(limit, Duration::from_millis(wait_ms).min(WAIT_MAX)).await
    }

    async fn ack(&self, tags: &[u64]) -> Stored<()> {
        self.inner.consumer.acknowledge(tags, Acknowledgement::Ack).await
    }

    async fn hand_back(&self, tags: &[u64]) -> Stored<()> {
        self.inner.consumer.acknowledge(tags, Acknowledgement::HandBack).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}
