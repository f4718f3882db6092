//! Finds an order: in the shared cache, in the ledger, or among the admission store's reservations.
//!
//! Status requests are by far the most frequent ones, also with made-up ids, and most of all while
//! the queue is slow. So one request costs a bounded number of store calls, and a miss is
//! remembered for [`MISS_REMEMBERED`].

use std::{sync::Arc, time::Duration};

use super::{App, local_cache::LocalCache, order_sharing::cache_key};
use crate::{
    domain::{AdmissionState, Order, OrderId, OrderStatus, Reservation, SaleId, Timestamp, UserId},
    ports::StoreError,
    problem::Problem,
};

/// A cached `queued` older than this is checked against the ledger: the worker's update may have
/// been lost.
const QUEUED_TRUSTED_MS: u64 = 1_500;
/// How long a miss is remembered: an order is looked up at most twice a second, and found at most
/// this much late.
const MISS_REMEMBERED: Duration = Duration::from_millis(500);
/// Most misses of each kind in memory, and when they are evicted. The app's clock decides whether a
/// miss is still valid.
const MISSES_MAX: usize = 100_000;
const MISSES_DROPPED: Duration = Duration::from_secs(10);
/// Sales read at a time.
const SALES_PAGE: u32 = 100;
/// Tolerance for differing clocks when the time in an order's id is compared with
/// [`App::looked_after_from`].
const CLOCKS_DIFFER_MS: u64 = 60_000;
/// Delay before a client retries while it is unknown whether there is such an order.
const RETRY_MS: u64 = 1_000;

/// This process's memory of earlier look-ups.
pub(super) struct OrderMemory {
    /// Queued orders that were looked up in the ledger, and when.
    asked: LocalCache<OrderId, Timestamp>,
    /// Orders that are in no store, or are not the user's, and when that was found.
    absent: LocalCache<(OrderId, UserId), Timestamp>,
    /// The sales that may have queued orders.
    live_sales: LocalCache<(), Arc<Vec<SaleId>>, StoreError>,
    /// The time up to which the queue is worked off, by the half second in which it was read.
    worked_off: LocalCache<u64, Option<Timestamp>>,
}

impl Default for OrderMemory {
    fn default() -> Self {
        Self {
            asked: LocalCache::new(MISSES_MAX, MISSES_DROPPED),
            absent: LocalCache::new(MISSES_MAX, MISSES_DROPPED),
            live_sales: LocalCache::new(1, MISS_REMEMBERED),
            worked_off: LocalCache::new(2, MISSES_DROPPED),
        }
    }
}

/// Whether a note made at `at` is still valid. It is not if the clock has been set back since.
fn lately(at: Timestamp, now: Timestamp) -> bool {
    at <= now && u128::from(now.since_ms(at)) < MISS_REMEMBERED.as_millis()
}

/// Whether the admission store holds an order.
enum Held {
    /// It does.
    Yes(Reservation),
    /// Every sale that the order may belong to is open, and none holds it; or its sale ended long
    /// ago, and no queued order belongs to such a sale.
    No,
    /// Unknown for now: a store does not answer, or is being rebuilt and has lost what it held.
    Unsure(Problem),
}

impl App {
    /// The order, if it is the user's.
    pub(super) async fn find_order(
        &self,
        order_id: OrderId,
        user_id: UserId,
    ) -> Result<Option<Order>, Problem> {
        let now = self.now();
        let memory = &self.order_memory;
        let cached = self.cached_order(order_id).await;
        // Checked after the shared cache, in which every instance stores an order before it sends
        // the 202.
        if cached.is_none()
            && memory.absent.get(&(order_id, user_id)).is_some_and(|at| lately(at, now))
        {
            return Ok(None);
        }
        // The admission store is asked before the ledger: if it gives up the order in between, the
        // order is in the ledger by then.
        let held = match &cached {
            Some(order) if order.user_id != user_id => return Ok(None),
            Some(order)
                if order.status != OrderStatus::Queued
                    || now.since_ms(order.created_at) < QUEUED_TRUSTED_MS =>
            {
                return Ok(cached);
            }
            Some(_) => {
                // Noted before the ledger is asked, so that concurrent requests ask it only once.
                if memory.asked.get(&order_id).is_some_and(|at| lately(at, now)) {
                    return Ok(cached);
                }
                memory.asked.insert(order_id, now);
                None
            }
            None => Some(self.held(order_id).await),
        };
        if let Some(order) = self.ports.orders.get(order_id).await? {
            if order.user_id != user_id {
                return Ok(None);
            }
            self.share_order(&order).await;
            return Ok(Some(order));
        }
        match held {
            None => Ok(cached),
            Some(Held::Yes(reservation)) => Ok(Some(reservation)
                .filter(|held| held.order.user_id == user_id)
                .map(|held| Order::queued(&held.order))),
            Some(Held::No) => {
                memory.absent.insert((order_id, user_id), now);
                Ok(None)
            }
            Some(Held::Unsure(problem)) => Err(problem),
        }
    }

    /// The reservation of a user's order that the ledger does not have yet.
    pub(super) async fn find_queued(
        &self,
        order_id: OrderId,
        user_id: UserId,
    ) -> Result<Option<Reservation>, Problem> {
        let found = self.find_queued_of_anybody(order_id).await?;
        Ok(found.filter(|held| held.order.user_id == user_id))
    }

    /// As [`App::find_queued`], whoever's order it is.
    pub(super) async fn find_queued_of_anybody(
        &self,
        order_id: OrderId,
    ) -> Result<Option<Reservation>, Problem> {
        let held = match self.cached_order(order_id).await {
            Some(order) => self.held_by(&[order.sale_id], order_id).await,
            None => self.held(order_id).await,
        };
        match held {
            Held::Yes(reservation) => Ok(Some(reservation)),
            Held::No => Ok(None),
            Held::Unsure(problem) => Err(problem),
        }
    }

    /// Looks for the order in the sales that it may belong to by its id, hardly ever more than one.
    async fn held(&self, order_id: OrderId) -> Held {
        match self.sales_with_queued().await {
            Ok(sales) => {
                let candidates: Vec<SaleId> =
                    sales.iter().copied().filter(|sale_id| order_id.may_be_of(*sale_id)).collect();
                let held = self.held_by(&candidates, order_id).await;
                if matches!(held, Held::No)
                    && self.may_have_outlasted(order_id)
                    && !self.is_queue_worked_off().await
                {
                    return Held::Unsure(Problem::Unavailable { retry_after_ms: RETRY_MS });
                }
                held
            }
            Err(error) => Held::Unsure(error.into()),
        }
    }

    /// Whether the order may belong to a sale that ended too long ago to be among
    /// [`App::sales_with_queued`].
    fn may_have_outlasted(&self, order_id: OrderId) -> bool {
        order_id.made_at() < self.looked_after_from().plus_ms(CLOCKS_DIFFER_MS)
    }

    /// Whether every order old enough to have left the shared cache was taken from the queue and
    /// recorded. Single flight: requests within half a second share one read, whichever order they
    /// ask for.
    async fn is_queue_worked_off(&self) -> bool {
        let half_second =
            self.monotonic_ms() / u64::try_from(MISS_REMEMBERED.as_millis()).unwrap_or(u64::MAX);
        let read = async { Ok(self.read_worked_off().await) };
        let until = self.order_memory.worked_off.load(half_second, read).await;
        let until = until.unwrap_or_else(|never| match *never {});
        // Half of the time that the cache keeps an order; the other half allows for differing
        // clocks.
        until.is_some_and(|until| {
            until.epoch_ms().abs_diff(self.now().epoch_ms()) <= self.config.cache.order_ms / 2
        })
    }

    async fn held_by(&self, sales: &[SaleId], order_id: OrderId) -> Held {
        let mut outcome = Held::No;
        for sale_id in sales {
            match self.ports.admission.find(*sale_id, order_id).await {
                Ok(Some(reservation)) => return Held::Yes(reservation),
                Ok(None) => match self.ports.admission.state(*sale_id).await {
                    Ok(AdmissionState::Open { .. }) => {}
                    Ok(AdmissionState::Missing | AdmissionState::Rebuilding { .. }) => {
                        outcome = Held::Unsure(Problem::Unavailable { retry_after_ms: RETRY_MS });
                    }
                    Err(error) => outcome = Held::Unsure(error.into()),
                },
                Err(error) => outcome = Held::Unsure(error.into()),
            }
        }
        outcome
    }

    /// Sales that ended before this time are not searched with every request.
    fn looked_after_from(&self) -> Timestamp {
        self.now().minus_ms(self.config.sweeper.tail_seconds * 1_000)
    }

    /// The sales that the sweeper looks after. Other sales have queued orders only if the queue has
    /// stood still for `sweeper.tail_seconds`. Single flight: concurrent callers share one read.
    async fn sales_with_queued(&self) -> Result<Arc<Vec<SaleId>>, StoreError> {
        let read = async {
            let from = self.looked_after_from();
            let mut sales = Vec::new();
            loop {
                let page =
                    self.ports.sales.ending_from(from, sales.last().copied(), SALES_PAGE).await?;
                sales.extend(page.iter().map(|sale| sale.sale_id));
                if page.len() < SALES_PAGE as usize {
                    return Ok(Arc::new(sales));
                }
            }
        };
        self.order_memory
            .live_sales
            .load((), read)
            .await
            .map_err(|error: Arc<StoreError>| (*error).clone())
    }

    async fn cached_order(&self, order_id: OrderId) -> Option<Order> {
        match self.ports.cache.get(&cache_key(order_id), self.now()).await {
            Ok(bytes) => bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            Err(error) => {
                tracing::warn!(%error, "shared cache");
                None
            }
        }
    }
}
