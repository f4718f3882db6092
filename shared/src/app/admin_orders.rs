//! A sale's orders, as an administrator lists, searches and cancels them, and the trail of what
//! administrators did.

use super::{Admin, App, finish};
use crate::{
    domain::{
        ActionId, ActionKind, AdminAction, FieldChange, Order, OrderId, OrderStatus, Phone,
        ReportFilter, ReportPage, ReportSort, SaleId, Transition,
    },
    metrics::{self, Outcomes},
    problem::Problem,
};

static CANCELLATIONS: Outcomes = Outcomes::new(metrics::CANCELLATIONS);

impl App {
    /// A page of a sale's recorded orders, with their signals.
    ///
    /// # Errors
    /// `not-found`, `unavailable`.
    pub async fn sale_orders(
        &self,
        admin: &Admin,
        sale_id: SaleId,
        filter: &ReportFilter,
        sort: ReportSort,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<ReportPage, Problem> {
        self.sale_exists(admin, sale_id).await?;
        Ok(self.ports.admin_ledger.orders(sale_id, filter, sort, after, limit).await?)
    }

    /// Checks that the ledger has the sale.
    ///
    /// # Errors
    /// `not-found`, `unavailable`.
    pub async fn sale_exists(&self, _: &Admin, sale_id: SaleId) -> Result<(), Problem> {
        self.ports.sales.get(sale_id).await?.map(drop).ok_or(Problem::NotFound)
    }

    /// The filter for the orders of the user with a phone. `None`: nobody has it.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn filter_by_phone(
        &self,
        _: &Admin,
        filter: ReportFilter,
        phone: &Phone,
    ) -> Result<Option<ReportFilter>, Problem> {
        let user = self.ports.users.by_phone(phone).await?;
        Ok(user.map(|user| ReportFilter { user_id: Some(user.user_id), ..filter }))
    }

    /// Cancels a buyer's order that is queued or confirmed, and returns its unit. A paid order is
    /// final: its money would have to be returned first.
    ///
    /// # Errors
    /// `not-found`, `invalid`, `order-final`, `unavailable`.
    pub async fn cancel_order_of_anybody(
        &self,
        admin: &Admin,
        order_id: OrderId,
        reason: &str,
    ) -> Result<Order, Problem> {
        const REASON_CHARS_MAX: usize = 500;
        let reason = reason.trim().to_owned();
        if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
            let expected = "1 to 500 characters".to_owned();
            return Err(Problem::Invalid { field: "reason".to_owned(), expected });
        }
        let changes = vec![
            FieldChange::to("status", OrderStatus::Cancelled.as_str()),
            FieldChange::to("cancellation_reason", reason.as_str()),
        ];
        let action = admin.action(self, ActionKind::OrderCancelled, order_id, changes);
        let (app, admin) = (self.clone(), *admin);
        let cancelled =
            finish(async move { app.cancel_for_reason(&admin, order_id, &reason, &action).await })
                .await;
        CANCELLATIONS.note("cancelled", cancelled)
    }

    async fn cancel_for_reason(
        &self,
        admin: &Admin,
        order_id: OrderId,
        reason: &str,
        action: &AdminAction,
    ) -> Result<Order, Problem> {
        let ledger = &self.ports.admin_ledger;
        let mut transition = ledger.cancel(order_id, None, reason, action, self.now()).await?;
        if transition == Transition::NotFound
            && let Some(reservation) = self.find_queued_of_anybody(order_id).await?
        {
            let queued = Some(&reservation.order);
            transition = ledger.cancel(order_id, queued, reason, action, self.now()).await?;
        }
        if matches!(transition, Transition::Done(_)) {
            admin.did(action);
        }
        self.release_cancelled(&transition).await?;
        self.after(transition).await
    }

    /// The trail of administrators' actions, newest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn admin_actions(
        &self,
        _: &Admin,
        before: Option<ActionId>,
        limit: u32,
    ) -> Result<Vec<AdminAction>, Problem> {
        Ok(self.ports.admin_ledger.actions(before, limit).await?)
    }
}
