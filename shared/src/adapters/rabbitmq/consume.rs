//! Consuming: the session of the moment, and a new one after its loss.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lapin::types::ShortString;
use tokio::time::{Instant, timeout};

use super::{
    RabbitMq,
    link::Link,
    publish::CALL_LIMIT,
    session::{Session, Verdict},
    unavailable,
};
use crate::{
    domain::{ConsumerProgress, Delivery},
    ports::{OrderSource, Stored},
};

/// Messages that a consumer may hold without a verdict, however large its batches.
const PREFETCH_MAX: u16 = 2_000;
/// Longest wait for a first message, whatever the caller says.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

pub(super) struct Consuming {
    link: Arc<Link>,
    queue: ShortString,
    generation: AtomicU64,
    /// The largest `limit` so far. A call may ask for less, to fill up a batch.
    largest: AtomicU32,
    current: Mutex<Option<Arc<Session>>>,
    /// Held while a session is being opened.
    opening: tokio::sync::Mutex<()>,
}

#[async_trait]
impl OrderSource for RabbitMq {
    fn progress(&self) -> Option<ConsumerProgress> {
        self.inner.consuming.alive().map(|session| session.progress())
    }

    /// Twice as many messages as the largest `limit` so far (at most 2,000) are fetched ahead from the moment the consumer
    /// is opened or opened again, so that the next batch is there when one is done. Making a connection may take 6 s on top of `wait_ms`.
    async fn receive(&self, limit: u32, wait_ms: u64) -> Stored<Vec<Delivery>> {
        self.inner.consuming.receive(limit, Duration::from_millis(wait_ms).min(WAIT_MAX)).await
    }

    async fn ack(&self, tags: &[u64]) -> Stored<()> {
        self.inner.consuming.settle(tags, Verdict::Done).await
    }

    async fn hand_back(&self, tags: &[u64]) -> Stored<()> {
        self.inner.consuming.settle(tags, Verdict::HandBack).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}

impl Consuming {
    pub(super) fn new(link: Arc<Link>, queue: ShortString) -> Self {
        Self {
            link,
            queue,
            generation: AtomicU64::new(0),
            largest: AtomicU32::new(0),
            current: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Messages that this process has and that wait for their verdict.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.current()
            .as_ref()
            .filter(|session| session.alive())
            .map_or(0, |session| session.unacknowledged())
    }

    async fn receive(&self, limit: u32, wait: Duration) -> Stored<Vec<Delivery>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + wait;
        let largest = self.largest.fetch_max(limit, Ordering::Relaxed).max(limit);
        let prefetch =
            u16::try_from(largest.saturating_mul(2)).unwrap_or(PREFETCH_MAX).min(PREFETCH_MAX);
        loop {
            let session = self.session(prefetch).await?;
            if let Some(deliveries) = session.take(limit as usize, deadline).await {
                return Ok(deliveries);
            }
            tracing::warn!("the consumer was lost; its messages come again");
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    async fn session(&self, prefetch: u16) -> Stored<Arc<Session>> {
        if let Some(session) = self.alive() {
            return Ok(session);
        }
        let _opening = self.opening.lock().await;
        if let Some(session) = self.alive() {
            return Ok(session);
        }
        let lost = self.current().take();
        if let Some(lost) = lost {
            // The queue may be gone too; a new connection makes it again.
            self.link.retire(lost.live());
        }
        let live = self.link.live().await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let opened = timeout(
            CALL_LIMIT,
            Session::open(Arc::clone(&live), self.queue.clone(), generation, prefetch),
        )
        .await;
        match opened.unwrap_or_else(|_| Err(unavailable("no consumer in time"))) {
            Ok(session) => {
                let session = Arc::new(session);
                *self.current() = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                self.link.retire(&live);
                Err(error)
            }
        }
    }

    fn alive(&self) -> Option<Arc<Session>> {
        self.current().clone().filter(|session| session.alive())
    }

    async fn settle(&self, tags: &[u64], verdict: Verdict) -> Stored<()> {
        let session = self.alive();
        match session {
            Some(session) => session.settle(tags, verdict).await,
            // Its messages come again.
            None => Ok(()),
        }
    }

    /// Ends for good. The server takes everything back before it agrees to the end of the connection.
    pub(super) async fn close(&self) {
        let _opening = self.opening.lock().await;
        self.link.close().await;
        self.current().take();
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
