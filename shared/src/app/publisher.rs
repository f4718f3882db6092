//! Group commit for publishing: orders (and entries of draws) that arrive while as many publishes as
//! pay are being confirmed share the next one, so the wait for a confirm is paid once per group
//! instead of once per order. So is the call that stores them as queued in the shared cache.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{
    future::join,
    stream::{FuturesUnordered, StreamExt as _},
};
use metrics::Histogram;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::order_sharing::OrderSharing;
use crate::{
    domain::{AdmittedOrder, Entry},
    logging::OncePerSecond,
    metrics::{PUBLISH_GROUP, PUBLISH_SECONDS, elapsed, number},
    ports::{OrderQueue, StoreError, Stored},
};

static LINES: OncePerSecond = OncePerSecond::new();

/// What is published in groups, one message per group.
#[async_trait]
pub(super) trait Published: Send + Sync + Sized + 'static {
    /// Makes the group durable as one message.
    async fn publish(queue: &dyn OrderQueue, group: &[Self]) -> Stored<()>;
    /// Stores the group in the shared cache.
    async fn share(_: &OrderSharing, _: &[Self]) {}
}

#[async_trait]
impl Published for AdmittedOrder {
    async fn publish(queue: &dyn OrderQueue, group: &[Self]) -> Stored<()> {
        queue.publish(group).await
    }

    async fn share(sharing: &OrderSharing, group: &[Self]) {
        sharing.share_queued(group).await;
    }
}

#[async_trait]
impl Published for Entry {
    async fn publish(queue: &dyn OrderQueue, group: &[Self]) -> Stored<()> {
        queue.publish_entries(group).await
    }
}

type Waiting<T> = (T, Instant, oneshot::Sender<Stored<()>>);

pub(super) struct Publisher<T> {
    waiting: mpsc::Sender<Waiting<T>>,
}

impl<T: Published> Publisher<T> {
    /// An order that has waited for `wait_max` is refused and never published: a rebuild of the
    /// admission store relies on earlier publishes having ended.
    pub(super) fn spawn(
        queue: Arc<dyn OrderQueue>,
        sharing: OrderSharing,
        group_max: usize,
        waiting_max: usize,
        wait_max: Duration,
    ) -> Self {
        let (waiting, mut orders) = mpsc::channel::<Waiting<T>>(waiting_max);
        let (at_once, groups) =
            (queue.publishes_at_once().max(1), Groups::new(queue, sharing, wait_max));
        tokio::spawn(async move {
            let mut group = Vec::with_capacity(group_max);
            let mut publishing = FuturesUnordered::new();
            loop {
                tokio::select! {
                    received = orders.recv_many(&mut group, group_max), if publishing.len() < at_once => {
                        if received == 0 {
                            break;
                        }
                        publishing.push(groups.publish(std::mem::take(&mut group)));
                    }
                    Some(()) = publishing.next() => {}
                }
            }
            while publishing.next().await.is_some() {}
        });
        Self { waiting }
    }

    /// Returns once the order or entry is durable in the queue; by then the shared cache has an order
    /// too, unless the cache fails or is slow.
    pub(super) async fn publish(&self, request: T) -> Stored<()> {
        let (reply, outcome) = oneshot::channel();
        self.waiting.try_send((request, Instant::now(), reply)).map_err(|_| {
            StoreError::Unavailable {
                store: "order queue",
                cause: "too many orders wait to be published".to_owned(),
            }
        })?;
        outcome.await.map_err(|_| StoreError::Unknown {
            store: "order queue",
            cause: "the publisher has stopped".to_owned(),
        })?
    }
}

/// Publishes groups and measures them.
struct Groups {
    queue: Arc<dyn OrderQueue>,
    sharing: OrderSharing,
    wait_max: Duration,
    confirmed: Histogram,
    unavailable: Histogram,
    unknown: Histogram,
    orders: Histogram,
}

impl Groups {
    fn new(queue: Arc<dyn OrderQueue>, sharing: OrderSharing, wait_max: Duration) -> Self {
        let [confirmed, unavailable, unknown] = ["confirmed", "unavailable", "unknown"]
            .map(|outcome| PUBLISH_SECONDS.histogram(&[outcome]));
        let orders = PUBLISH_GROUP.histogram(&[]);
        Self { queue, sharing, wait_max, confirmed, unavailable, unknown, orders }
    }

    async fn publish<T: Published>(&self, group: Vec<Waiting<T>>) {
        let (mut requests, mut replies) =
            (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for (request, since, reply) in group {
            if since.elapsed() < self.wait_max {
                requests.push(request);
                replies.push(reply);
            } else {
                let cause = "the order waited too long to be published".to_owned();
                let _ = reply.send(Err(StoreError::Unavailable { store: "order queue", cause }));
            }
        }
        if requests.is_empty() {
            return;
        }
        self.orders.record(number(requests.len() as u64));
        let begun = Instant::now();
        let publish = async {
            let outcome = T::publish(self.queue.as_ref(), &requests).await;
            self.measure(&outcome, begun.elapsed());
            outcome
        };
        let (outcome, ()) = join(publish, T::share(&self.sharing, &requests)).await;
        if let Err(error) = &outcome
            && let Some(left_out) = LINES.pass()
        {
            tracing::warn!(%error, orders = requests.len(), left_out, "orders were not published");
        }
        for reply in replies {
            // A buyer who has disconnected retries with the same ticket; ignore the error.
            let _ = reply.send(outcome.clone());
        }
    }

    fn measure(&self, outcome: &Stored<()>, took: Duration) {
        let seconds = match outcome {
            Ok(()) => &self.confirmed,
            Err(StoreError::Unavailable { .. }) => &self.unavailable,
            Err(StoreError::Unknown { .. } | StoreError::Corrupt { .. }) => &self.unknown,
        };
        seconds.record(elapsed(took));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        adapters::memory::MemoryCache,
        domain::{CacheEntry, QueueBacklog, QueueDepth, Timestamp},
        ports::Cache,
        testing,
    };

    struct Slow {
        turns: Semaphore,
        begun: AtomicUsize,
        groups: Mutex<Vec<usize>>,
        fails: bool,
        at_once: usize,
    }

    #[async_trait]
    impl OrderQueue for Slow {
        fn publishes_at_once(&self) -> usize {
            self.at_once
        }

        async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.turns.acquire().await.unwrap().forget();
            self.groups.lock().unwrap().push(orders.len());
            if self.fails {
                Err(StoreError::Unknown { store: "test", cause: String::new() })
            } else {
                Ok(())
            }
        }

        async fn publish_entries(&self, _: &[Entry]) -> Stored<()> {
            Ok(())
        }

        async fn park(&self, _: &[u8], _: &str) -> Stored<()> {
            Ok(())
        }

        async fn depth(&self) -> Stored<QueueDepth> {
            Ok(QueueDepth::default())
        }

        async fn backlog(&self) -> Stored<QueueBacklog> {
            Ok(QueueBacklog::default())
        }

        async fn inherited(&self) -> Stored<Option<u64>> {
            Ok(None)
        }
    }

    fn sharing() -> OrderSharing {
        let clock = Arc::new(testing::ManualClock::at(testing::START));
        OrderSharing::new(Arc::new(MemoryCache::new()), clock, 60_000)
    }

    async fn run(fails: bool) -> (Vec<usize>, usize) {
        let queue = Arc::new(Slow {
            turns: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            groups: Mutex::default(),
            fails,
            at_once: 1,
        });
        let publisher =
            Arc::new(Publisher::spawn(queue.clone(), sharing(), 8, 100, Duration::from_secs(60)));
        let sale = testing::sale(100);
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let (publisher, request) =
                    (Arc::clone(&publisher), testing::request(&sale, testing::user_id()));
                tokio::spawn(async move { publisher.publish(request).await })
            })
            .collect();
        queue.turns.add_permits(100);
        let mut done = 0;
        for call in calls {
            done += usize::from(call.await.unwrap().is_ok());
        }
        let groups = queue.groups.lock().unwrap().clone();
        (groups, done)
    }

    #[tokio::test]
    async fn waiting_orders_share_a_publish() {
        let (groups, done) = run(false).await;
        assert_eq!(done, 20);
        assert_eq!(groups.iter().sum::<usize>(), 20);
        assert!(groups.len() <= 4, "{groups:?}");
        assert!(groups.iter().all(|size| *size <= 8), "{groups:?}");
    }

    /// A cache that counts its calls, and does not answer while it is silent.
    #[derive(Default)]
    struct Watched {
        inner: MemoryCache,
        puts: AtomicUsize,
        silent: bool,
    }

    #[async_trait]
    impl Cache for Watched {
        async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>> {
            self.inner.get(key, now).await
        }

        async fn put(&self, entries: &[CacheEntry], now: Timestamp) -> Stored<()> {
            self.puts.fetch_add(1, Ordering::SeqCst);
            if self.silent {
                std::future::pending::<()>().await;
            }
            self.inner.put(entries, now).await
        }
    }

    /// Publishes 20 orders through the cache; returns the groups' sizes and which orders the cache
    /// had when their publish returned.
    async fn publish_through(cache: Arc<Watched>) -> (Vec<usize>, Vec<bool>) {
        let queue = Arc::new(Slow {
            turns: Semaphore::new(100),
            begun: AtomicUsize::new(0),
            groups: Mutex::default(),
            fails: false,
            at_once: 1,
        });
        let clock = Arc::new(testing::ManualClock::at(testing::START));
        let sharing = OrderSharing::new(cache.clone(), clock, 60_000);
        let publisher =
            Arc::new(Publisher::spawn(queue.clone(), sharing, 8, 100, Duration::from_secs(60)));
        let sale = testing::sale(100);
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let (publisher, cache) = (Arc::clone(&publisher), Arc::clone(&cache));
                let request = testing::request(&sale, testing::user_id());
                tokio::spawn(async move {
                    let key = format!("order:{}", request.order_id);
                    publisher.publish(request).await.unwrap();
                    cache.get(&key, testing::START).await.unwrap().is_some()
                })
            })
            .collect();
        let mut shared = Vec::new();
        for call in calls {
            shared.push(call.await.unwrap());
        }
        let groups = queue.groups.lock().unwrap().clone();
        (groups, shared)
    }

    #[tokio::test]
    async fn the_cache_has_a_group_before_it_is_answered_with_one_call() {
        let cache = Arc::new(Watched::default());
        let (groups, shared) = publish_through(Arc::clone(&cache)).await;
        assert_eq!(shared, [true; 20]);
        assert_eq!(cache.puts.load(Ordering::SeqCst), groups.len());
        assert!(groups.len() < 20, "{groups:?}");
    }

    #[tokio::test]
    async fn a_silent_cache_fails_no_publish() {
        let cache = Arc::new(Watched { silent: true, ..Watched::default() });
        let (groups, shared) = publish_through(cache).await;
        assert_eq!(shared, [false; 20]);
        assert_eq!(groups.iter().sum::<usize>(), 20);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_the_whole_group() {
        assert_eq!(run(true).await.1, 0);
    }

    #[tokio::test]
    async fn an_order_that_waited_too_long_is_refused_and_not_published() {
        const WAIT: Duration = Duration::from_millis(100);
        let queue = Arc::new(Slow {
            turns: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            groups: Mutex::default(),
            fails: false,
            at_once: 1,
        });
        let publisher = Arc::new(Publisher::spawn(queue.clone(), sharing(), 1, 100, WAIT));
        let sale = testing::sale(100);
        let publish = || {
            let (publisher, request) =
                (Arc::clone(&publisher), testing::request(&sale, testing::user_id()));
            tokio::spawn(async move { publisher.publish(request).await })
        };
        // The first publish is under way, or refused as well on a machine that slept; the others
        // wait behind it.
        let first = publish();
        let late = [publish(), publish()];
        tokio::time::sleep(2 * WAIT).await;
        queue.turns.add_permits(100);
        let begun = usize::from(first.await.unwrap().is_ok());
        let mut refused = 0;
        for call in late {
            refused +=
                usize::from(matches!(call.await.unwrap(), Err(StoreError::Unavailable { .. })));
        }
        assert!(refused >= 1, "orders that waited too long are refused");
        assert_eq!(
            queue.groups.lock().unwrap().len() + refused,
            2 + begun,
            "and refused orders are not published"
        );
    }

    #[tokio::test]
    async fn as_many_publishes_run_at_once_as_the_queue_says() {
        let queue = Arc::new(Slow {
            turns: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            groups: Mutex::default(),
            fails: false,
            at_once: 3,
        });
        let publisher =
            Arc::new(Publisher::spawn(queue.clone(), sharing(), 1, 100, Duration::from_secs(60)));
        let sale = testing::sale(100);
        let calls: Vec<_> = (0..5)
            .map(|_| {
                let (publisher, request) =
                    (Arc::clone(&publisher), testing::request(&sale, testing::user_id()));
                tokio::spawn(async move { publisher.publish(request).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(queue.begun.load(Ordering::SeqCst), 3, "two wait");
        queue.turns.add_permits(5);
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(queue.groups.lock().unwrap().len(), 5);
    }
}
