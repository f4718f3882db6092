//! Following an order: its status, payment (simulated) and cancellation.

use super::{App, Caller, finish, limits::RateLimit};
use crate::{
    domain::{Order, OrderId, OrderStatus, Transition, UserId},
    metrics::{self, Outcomes},
    problem::Problem,
};

static PAYMENTS: Outcomes = Outcomes::new(metrics::PAYMENTS);
static CANCELLATIONS: Outcomes = Outcomes::new(metrics::CANCELLATIONS);

impl App {
    /// One order of the user.
    ///
    /// # Errors
    /// `not-found` (also for another user's), `unauthenticated`, `rate-limited`, `banned`;
    /// `unavailable` while it is unknown whether there is such an order.
    pub async fn order(&self, caller: &Caller, order_id: OrderId) -> Result<Order, Problem> {
        self.enter(caller, RateLimit::OrderStatus).await?;
        self.find_order(order_id, caller.session.user_id).await?.ok_or(Problem::NotFound)
    }

    /// The user's recorded orders, newest first, and the cursor of the next page. A queued order is
    /// not among them.
    ///
    /// # Errors
    /// `unauthenticated`, `rate-limited`, `banned`.
    pub async fn order_list(
        &self,
        caller: &Caller,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<(Vec<Order>, Option<OrderId>), Problem> {
        self.enter(caller, RateLimit::OrderStatus).await?;
        let orders = self.ports.orders.of_user(caller.session.user_id, before, limit).await?;
        let full = orders.len() == limit as usize;
        let next = orders.last().filter(|_| full).map(|order| order.order_id);
        Ok((orders, next))
    }

    /// Pays an order. The payment is simulated: it always succeeds before the deadline.
    ///
    /// # Errors
    /// `not-found`, `order-queued`, `order-final`, `unauthenticated`, `rate-limited`, `banned`,
    /// `unavailable`.
    pub async fn pay_order(&self, caller: &Caller, order_id: OrderId) -> Result<Order, Problem> {
        PAYMENTS.note("paid", self.pay(caller, order_id).await)
    }

    async fn pay(&self, caller: &Caller, order_id: OrderId) -> Result<Order, Problem> {
        self.enter(caller, RateLimit::OrderStatus).await?;
        let transition =
            self.ports.orders.pay(order_id, caller.session.user_id, self.now()).await?;
        if transition == Transition::NotFound
            && self.find_queued(order_id, caller.session.user_id).await?.is_some()
        {
            return Err(Problem::OrderQueued);
        }
        self.after(transition).await
    }

    /// Cancels an unpaid order, even while it is still queued.
    ///
    /// # Errors
    /// `not-found`, `order-final`, `unauthenticated`, `rate-limited`, `banned`, `unavailable`.
    pub async fn cancel_order(&self, caller: &Caller, order_id: OrderId) -> Result<Order, Problem> {
        CANCELLATIONS.note("cancelled", self.cancel(caller, order_id).await)
    }

    async fn cancel(&self, caller: &Caller, order_id: OrderId) -> Result<Order, Problem> {
        self.enter(caller, RateLimit::OrderStatus).await?;
        let (app, user_id) = (self.clone(), caller.session.user_id);
        finish(async move { app.cancel_and_release(order_id, user_id).await }).await
    }

    async fn cancel_and_release(
        &self,
        order_id: OrderId,
        user_id: UserId,
    ) -> Result<Order, Problem> {
        let mut transition = self.ports.orders.cancel(order_id, user_id, None, self.now()).await?;
        if transition == Transition::NotFound
            && let Some(reservation) = self.find_queued(order_id, user_id).await?
        {
            transition = self
                .ports
                .orders
                .cancel(order_id, user_id, Some(&reservation.order), self.now())
                .await?;
        }
        self.release_cancelled(&transition).await?;
        self.after(transition).await
    }

    /// Returns the unit of an order that was cancelled.
    pub(super) async fn release_cancelled(&self, transition: &Transition) -> Result<(), Problem> {
        let Transition::Done(order) = transition else { return Ok(()) };
        let Order { sale_id, order_id, .. } = order;
        // The ledger has noted that the unit must be returned; if this call fails, the sweeper
        // returns it.
        match self.ports.admission.release(*sale_id, &[order.into()]).await {
            Ok(()) => self.ports.orders.mark_stock_returned(&[*order_id], self.now()).await?,
            Err(error) => tracing::warn!(%error, %order_id, "release; the sweeper will do it"),
        }
        Ok(())
    }

    pub(super) async fn after(&self, transition: Transition) -> Result<Order, Problem> {
        match transition {
            Transition::Done(order) => {
                self.share_order(&order).await;
                Ok(order)
            }
            // Still confirmed, but past its deadline: the sweeper is about to expire it.
            Transition::Refused(Order { status: OrderStatus::Confirmed, .. }) => {
                Err(Problem::OrderFinal { status: OrderStatus::Expired })
            }
            Transition::Refused(order) => Err(Problem::OrderFinal { status: order.status }),
            Transition::NotFound => Err(Problem::NotFound),
        }
    }
}
