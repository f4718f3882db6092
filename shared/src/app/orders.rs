//! Following an order: its status, payment (simulated) and cancellation.

use futures_util::future::try_join_all;

use super::{App, Client, SessionClaims, finish};
use crate::{
    domain::{Order, OrderId, OrderStatus, UserId},
    ports::{Reservation, Transition},
    problem::Problem,
};

/// A cached `queued` older than this is checked against the ledger: the worker's update may have been lost.
const QUEUED_TRUSTED_MS: u64 = 1_500;
/// How long any other status is believed without asking the ledger.
const RECORDED_TRUSTED_MS: u64 = 2_000;
/// Sales searched at a time for an order that is neither cached nor recorded.
const SALES_PAGE: u32 = 100;

impl App {
    /// One order of the user.
    ///
    /// # Errors
    /// `not-found` (also for another user's), `unauthenticated`, `rate-limited`, `banned`.
    pub async fn order(&self, who: &SessionClaims, client: &Client, order_id: OrderId) -> Result<Order, Problem> {
        self.enter(who, client, "order-status", self.config.limits.order_status).await?;
        self.find_order(order_id, who.user_id).await?.ok_or(Problem::NotFound)
    }

    /// The user's recorded orders, newest first, and where the next ones begin. An order still queued is not among them.
    ///
    /// # Errors
    /// `unauthenticated`, `rate-limited`, `banned`.
    pub async fn order_list(
        &self,
        who: &SessionClaims,
        client: &Client,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<(Vec<Order>, Option<OrderId>), Problem> {
        self.enter(who, client, "order-status", self.config.limits.order_status).await?;
        let orders = self.ports.orders.of_user(who.user_id, before, limit).await?;
        let full = orders.len() == limit as usize;
        let next = orders.last().filter(|_| full).map(|order| order.order_id);
        Ok((orders, next))
    }

    /// Pays an order. The payment is simulated: it always succeeds, in time.
    ///
    /// # Errors
    /// `not-found`, `order-queued`, `order-final`, `unauthenticated`, `rate-limited`, `banned`.
    pub async fn pay_order(&self, who: &SessionClaims, client: &Client, order_id: OrderId) -> Result<Order, Problem> {
        self.enter(who, client, "order-status", self.config.limits.order_status).await?;
        let transition = self.ports.orders.pay(order_id, who.user_id, self.now()).await?;
        if transition == Transition::NotFound && self.find_queued(order_id, who.user_id).await?.is_some() {
            return Err(Problem::OrderQueued);
        }
        self.after(transition).await
    }

    /// Cancels an order that is not paid, even while it is still queued.
    ///
    /// # Errors
    /// `not-found`, `order-final`, `unauthenticated`, `rate-limited`, `banned`.
    pub async fn cancel_order(&self, who: &SessionClaims, client: &Client, order_id: OrderId) -> Result<Order, Problem> {
        self.enter(who, client, "order-status", self.config.limits.order_status).await?;
        let (app, user_id) = (self.clone(), who.user_id);
        finish(async move { app.cancel_and_release(order_id, user_id).await }).await
    }

    async fn cancel_and_release(&self, order_id: OrderId, user_id: UserId) -> Result<Order, Problem> {
        let mut transition = self.ports.orders.cancel(order_id, user_id, None, self.now()).await?;
        if transition == Transition::NotFound
            && let Some(reservation) = self.find_queued(order_id, user_id).await?
        {
            transition = self.ports.orders.cancel(order_id, user_id, Some(&reservation.request), self.now()).await?;
        }
        if let Transition::Done(order) = &transition {
            // The ledger remembers that a unit is to be given back; the sweeper does what fails here.
            match self.ports.admission.release(order.sale_id, &[order.order_id]).await {
                Ok(()) => self.ports.orders.mark_stock_returned(&[order.order_id], self.now()).await?,
                Err(error) => tracing::warn!(%error, %order_id, "release; the sweeper will do it"),
            }
        }
        self.after(transition).await
    }

    async fn after(&self, transition: Transition) -> Result<Order, Problem> {
        match transition {
            Transition::Done(order) => {
                self.share_order(&order).await;
                Ok(order)
            }
            // Still confirmed, but too late to be paid: the sweeper is about to say so.
            Transition::Refused(Order { status: OrderStatus::Confirmed, .. }) => Err(Problem::OrderFinal { status: OrderStatus::Expired }),
            Transition::Refused(order) => Err(Problem::OrderFinal { status: order.status }),
            Transition::NotFound => Err(Problem::NotFound),
        }
    }

    /// The order, from the shared cache, the ledger or the admission store, in this order.
    async fn find_order(&self, order_id: OrderId, user_id: UserId) -> Result<Option<Order>, Problem> {
        let now = self.now();
        let cached = self.cached_order(order_id).await.filter(|order| order.user_id == user_id);
        if let Some(order) = &cached
            && (order.status != OrderStatus::Queued || now.since_ms(order.created_at) < QUEUED_TRUSTED_MS)
        {
            return Ok(cached);
        }
        if let Some(order) = self.ports.orders.get(order_id).await? {
            if order.user_id != user_id {
                return Ok(None);
            }
            self.share_order(&order).await;
            return Ok(Some(order));
        }
        if cached.is_some() {
            return Ok(cached);
        }
        Ok(self.find_queued(order_id, user_id).await?.map(|reservation| Order::queued(&reservation.request)))
    }

    /// The order's reservation. Only the sale's own data names it, so the sales looked after are searched; this is needed
    /// only when the cache has lost the order.
    async fn find_queued(&self, order_id: OrderId, user_id: UserId) -> Result<Option<Reservation>, Problem> {
        let of_user = |reservation: &Reservation| reservation.request.user_id == user_id;
        if let Some(order) = self.cached_order(order_id).await
            && let Some(found) = self.ports.admission.find(order.sale_id, order_id).await?
        {
            return Ok(Some(found).filter(of_user));
        }
        let from = self.now().minus_ms(self.config.sweeper.tail_seconds * 1_000);
        let mut after = None;
        loop {
            let page = self.ports.sales.ending_from(from, after, SALES_PAGE).await?;
            after = page.last().map(|sale| sale.sale_id);
            for found in try_join_all(page.iter().map(|sale| self.ports.admission.find(sale.sale_id, order_id))).await? {
                if found.is_some() {
                    return Ok(found.filter(of_user));
                }
            }
            if page.len() < SALES_PAGE as usize {
                return Ok(None);
            }
        }
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

    /// Puts an order into the shared cache, never over a newer one.
    pub(super) async fn share_order(&self, order: &Order) {
        let bytes = serde_json::to_vec(order).expect("an order can be written as JSON");
        let ttl_ms = if order.status == OrderStatus::Queued { self.config.cache.order_ms } else { RECORDED_TRUSTED_MS };
        if let Err(error) = self.ports.cache.put(&cache_key(order.order_id), order.version, &bytes, ttl_ms, self.now()).await {
            tracing::warn!(%error, "shared cache");
        }
    }
}

fn cache_key(order_id: OrderId) -> String {
    format!("order:{order_id}")
}
