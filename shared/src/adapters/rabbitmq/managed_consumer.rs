//! Manages one consumer: opened on first use, and reopened after a loss.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use lapin::types::ShortString;
use tokio::time::{Instant, timeout};

use super::{
    connection::CALL_LIMIT,
    consumer::{Acknowledgement, ChannelConsumer},
    errors::unavailable,
    managed_connection::ManagedConnection,
};
use crate::domain::Delivery;
use crate::ports::Stored;

/// Limit on the unacknowledged messages of a consumer, however large its batches.
const PREFETCH_MAX: u16 = 2_000;

pub(super) struct ManagedConsumer {
    connection: Arc<ManagedConnection>,
    queue: ShortString,
    generation: AtomicU64,
    /// The largest `limit` so far. A call may ask for less, to fill up a batch.
    largest: AtomicU32,
    current: Mutex<Option<Arc<ChannelConsumer>>>,
    /// Locked while a consumer is being opened.
    opening: tokio::sync::Mutex<()>,
}

impl ManagedConsumer {
    pub(super) fn new(connection: Arc<ManagedConnection>, queue: ShortString) -> Self {
        Self {
            connection,
            queue,
            generation: AtomicU64::new(0),
            largest: AtomicU32::new(0),
            current: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Messages that this process holds unacknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.current()
            .as_ref()
            .filter(|consumer| consumer.alive())
            .map_or(0, |consumer| consumer.unacknowledged())
    }

    pub(super) async fn receive(&self, limit: u32, wait: Duration) -> Stored<Vec<Delivery>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + wait;
        let largest = self.largest.fetch_max(limit, Ordering::Relaxed).max(limit);
        let prefetch =
            u16::try_from(largest.saturating_mul(2)).unwrap_or(PREFETCH_MAX).min(PREFETCH_MAX);
        loop {
            let consumer = self.consumer(prefetch).await?;
            if let Some(deliveries) = consumer.take(limit as usize, deadline).await {
                return Ok(deliveries);
            }
            tracing::warn!("the consumer was lost; its messages will be delivered again");
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    async fn consumer(&self, prefetch: u16) -> Stored<Arc<ChannelConsumer>> {
        if let Some(consumer) = self.alive() {
            return Ok(consumer);
        }
        let _opening = self.opening.lock().await;
        if let Some(consumer) = self.alive() {
            return Ok(consumer);
        }
        let lost = self.current().take();
        if let Some(lost) = lost {
            // The queue may be gone too; a new connection declares it again.
            self.connection.retire(lost.connection());
        }
        let connection = self.connection.get().await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let opened = timeout(
            CALL_LIMIT,
            ChannelConsumer::open(
                Arc::clone(&connection),
                self.queue.clone(),
                generation,
                prefetch,
            ),
        )
        .await;
        match opened.unwrap_or_else(|_| Err(unavailable("no consumer in time"))) {
            Ok(consumer) => {
                let consumer = Arc::new(consumer);
                *self.current() = Some(Arc::clone(&consumer));
                Ok(consumer)
            }
            Err(error) => {
                self.connection.retire(&connection);
                Err(error)
            }
        }
    }

    pub(super) fn alive(&self) -> Option<Arc<ChannelConsumer>> {
        self.current().clone().filter(|consumer| consumer.alive())
    }

    pub(super) async fn acknowledge(&self, tags: &[u64], how: Acknowledgement) -> Stored<()> {
        let consumer = self.alive();
        match consumer {
            Some(consumer) => consumer.acknowledge(tags, how).await,
            // The server delivers its messages again.
            None => Ok(()),
        }
    }

    /// Stops consuming for good. The server takes back all messages before it confirms the close of
    /// the connection.
    pub(super) async fn close(&self) {
        let _opening = self.opening.lock().await;
        self.connection.close().await;
        self.current().take();
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<ChannelConsumer>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
