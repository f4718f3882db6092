//! Payment, cancellation and expiry: each order leaves `Confirmed` once, by one of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CHUNK, Failure, FromRow, Row, Statement, Transaction, Work,
    actions::note,
    locking::{add_to_sold, insert, lock_orders, lock_sales},
    rows::ORDER_COLUMNS,
};
use crate::domain::{
    AdminAction, AdmittedOrder, NewOrder, Order, OrderId, OrderOrigin, OrderStatus, SaleId,
    Timestamp, Transition, Unrecordable, UserId,
};

/// See [`crate::ports::OrderLedger::pay`].
pub(super) struct Pay {
    pub(super) order_id: OrderId,
    pub(super) user_id: UserId,
    pub(super) now: Timestamp,
}

impl Work for Pay {
    type Output = Transition;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Transition, Failure> {
        let update = Statement::new(format!(
            "UPDATE orders{} SET status = 'paid', version = version + 1, updated_at_ms = ? \
             WHERE order_id = ? AND user_id = ? AND status = 'confirmed' AND pay_by_ms > ?",
            S::DIALECT.through("PRIMARY")
        ))
        .bind(self.now)
        .bind(self.order_id)
        .bind(self.user_id)
        .bind(self.now);
        let select = Statement::new(format!(
            "SELECT {ORDER_COLUMNS} FROM orders WHERE order_id = ? AND user_id = ?"
        ))
        .bind(self.order_id)
        .bind(self.user_id);
        for _ in 0..2 {
            transaction.execute(&update).await?;
            let Some(order) = transaction.fetch::<Order>(&select).await?.pop() else {
                return Ok(Transition::NotFound);
            };
            match order.status {
                OrderStatus::Paid => return Ok(Transition::Done(order)),
                // It was recorded between the two statements. Its row exists now, so the second
                // update finds it.
                OrderStatus::Confirmed if order.pay_by.is_some_and(|pay_by| self.now < pay_by) => {}
                _ => return Ok(Transition::Refused(order)),
            }
        }
        Err(Failure::Corrupt(format!(
            "order {} can be paid, but no update finds it so",
            self.order_id
        )))
    }
}

/// See [`crate::ports::OrderLedger::cancel`] and [`crate::ports::AdminLedger::cancel`]. `queued`
/// belongs to this order and user.
pub(super) struct Cancel {
    pub(super) order_id: OrderId,
    /// Whose order it must be; `None`: anybody's.
    pub(super) user_id: Option<UserId>,
    pub(super) queued: Option<AdmittedOrder>,
    /// `None`: the buyer cancels.
    pub(super) by_admin: Option<ByAdmin>,
    pub(super) now: Timestamp,
}

/// An administrator's cancellation.
pub(super) struct ByAdmin {
    pub(super) reason: String,
    pub(super) action: AdminAction,
}

impl Cancel {
    /// Stores the administrator's reason and action with the cancelled order.
    async fn explain<S: Transaction>(
        &self,
        transaction: &mut S,
        order: Order,
    ) -> Result<Transition, Failure> {
        let Some(ByAdmin { reason, action }) = &self.by_admin else {
            return Ok(Transition::Done(order));
        };
        let update = Statement::new(format!(
            "UPDATE orders{} SET cancellation_reason = ? WHERE order_id = ?",
            S::DIALECT.through("PRIMARY")
        ))
        .bind(reason.as_str())
        .bind(self.order_id);
        transaction.execute(&update).await?;
        note(transaction, action).await?;
        Ok(Transition::Done(Order { cancellation_reason: Some(reason.clone()), ..order }))
    }
}

impl Work for Cancel {
    type Output = Transition;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Transition, Failure> {
        // An order's sale never changes, so a plain read is enough to find out what to lock.
        let select = Statement::new("SELECT order_id, sale_id FROM orders WHERE order_id = ?")
            .bind(self.order_id);
        let found = transaction.fetch::<OfSale>(&select).await?.pop().map(|found| found.sale_id);
        let Some(sale_id) = found.or_else(|| self.queued.as_ref().map(|request| request.sale_id))
        else {
            return Ok(Transition::NotFound);
        };
        let sale = lock_sales(transaction, BTreeSet::from([sale_id])).await?.pop();
        let Some(order) = lock_orders(transaction, BTreeSet::from([self.order_id])).await?.pop()
        else {
            let Some(request) = &self.queued else {
                return Ok(Transition::NotFound);
            };
            request.storable().map_err(|Unrecordable(cause)| Failure::Corrupt(cause))?;
            let order = Order::recorded(request, OrderStatus::Cancelled, self.now);
            let origin = OrderOrigin {
                address_prefix: request.address_prefix,
                opened_at: sale.map(|sale| sale.starts_at),
            };
            insert(transaction, &[NewOrder { order: order.clone(), slot: None, origin }]).await?;
            return self.explain(transaction, order).await;
        };
        match order.status {
            _ if self.user_id.is_some_and(|user_id| user_id != order.user_id) => {
                Ok(Transition::NotFound)
            }
            OrderStatus::Cancelled => match &self.by_admin {
                Some(admin) if order.cancellation_reason.as_ref() != Some(&admin.reason) => {
                    Ok(Transition::Refused(order))
                }
                _ => Ok(Transition::Done(order)),
            },
            OrderStatus::Confirmed => {
                end(transaction, std::slice::from_ref(&order), OrderStatus::Cancelled, self.now)
                    .await?;
                self.explain(transaction, order.turned(OrderStatus::Cancelled, self.now)).await
            }
            _ => Ok(Transition::Refused(order)),
        }
    }
}

/// See [`crate::ports::OrderLedger::expire_due`] and [`crate::ports::OrderLedger::expire_due_of`].
pub(super) struct ExpireDue {
    pub(super) sale_id: Option<SaleId>,
    pub(super) now: Timestamp,
    pub(super) limit: u32,
}

impl Work for ExpireDue {
    type Output = Vec<Order>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Vec<Order>, Failure> {
        let mut select = Statement::new(format!(
            "SELECT order_id, sale_id FROM orders{} WHERE status = 'confirmed' AND pay_by_ms <= ?",
            S::DIALECT.through("orders_due")
        ))
        .bind(self.now);
        if let Some(sale_id) = self.sale_id {
            select = select.sql(" AND sale_id = ?").bind(sale_id);
        }
        let select = select.sql(" ORDER BY pay_by_ms, order_id LIMIT ?").bind(self.limit);
        let candidates = transaction.fetch::<OfSale>(&select).await?;
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        lock_sales(transaction, candidates.iter().map(|candidate| candidate.sale_id).collect())
            .await?;
        // Some may have been paid or cancelled since the read; the locked rows tell.
        let mut due = lock_orders(
            transaction,
            candidates.iter().map(|candidate| candidate.order_id).collect(),
        )
        .await?;
        due.retain(|order| {
            order.status == OrderStatus::Confirmed
                && order.pay_by.is_some_and(|pay_by| pay_by <= self.now)
        });
        end(transaction, &due, OrderStatus::Expired, self.now).await?;
        Ok(due.into_iter().map(|order| order.turned(OrderStatus::Expired, self.now)).collect())
    }
}

/// Ends confirmed orders whose rows and whose sales' rows are locked. Frees their slots and units.
async fn end<S: Transaction>(
    transaction: &mut S,
    orders: &[Order],
    status: OrderStatus,
    now: Timestamp,
) -> Result<(), Failure> {
    for chunk in orders.chunks(CHUNK) {
        // With a condition on the status, SQLite would use the status index and visit every row
        // with that status.
        let update = Statement::new(format!("UPDATE orders{} SET status = ?", S::DIALECT.through("PRIMARY")))
            .bind(status.as_str())
            .sql(", active_slot = NULL, version = version + 1, updated_at_ms = ? WHERE active_slot IS NOT NULL AND order_id IN ")
            .bind(now)
            .list(chunk.iter().map(|order| order.order_id));
        let changed = transaction.execute(&update).await?;
        if changed != chunk.len() as u64 {
            return Err(Failure::Corrupt(format!(
                "{changed} of {} locked orders could be changed",
                chunk.len()
            )));
        }
    }
    let mut units = BTreeMap::<SaleId, i64>::new();
    for order in orders {
        *units.entry(order.sale_id).or_default() += 1;
    }
    for (sale_id, units) in units {
        add_to_sold(transaction, sale_id, -units).await?;
    }
    Ok(())
}

struct OfSale {
    order_id: OrderId,
    sale_id: SaleId,
}

impl FromRow for OfSale {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self { order_id: row.parsed("order_id")?, sale_id: row.parsed("sale_id")? })
    }
}
