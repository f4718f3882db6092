//! The port `OrderLedger`.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{
    AFTER_ALL_IDS, BEFORE_ALL_IDS, CHUNK, Dialect, Failure, FromRow, Row, Statement, Store,
    Transaction, Value, Work,
    recording::Record,
    rows::{ORDER_COLUMNS, REPORT_COLUMNS},
    transitions::{Cancel, ExpireDue, Pay},
};
use crate::{
    domain::{
        AddressPrefix, AdmittedOrder, Order, OrderId, OrderStatus, Recorded, ReportedOrder, Sale,
        SaleId, SaleTally, Timestamp, Transition, Unrecordable, UserId,
    },
    ports::{OrderLedger, Stored},
};

#[async_trait]
impl<S: Store> OrderLedger for S {
    async fn record(
        &self,
        requests: &[AdmittedOrder],
        now: Timestamp,
        pay_within_ms: u64,
    ) -> Stored<Vec<Result<Recorded, Unrecordable>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.transact(Record {
            requests: requests.to_vec(),
            now,
            pay_by: now.plus_ms(pay_within_ms),
        })
        .await
    }

    async fn get(&self, order_id: OrderId) -> Stored<Option<Order>> {
        let select =
            Statement::new(format!("SELECT {ORDER_COLUMNS} FROM orders WHERE order_id = ?"))
                .bind(order_id);
        Ok(self.fetch(select).await?.pop())
    }

    async fn get_many(&self, order_ids: &[OrderId]) -> Stored<Vec<Order>> {
        let ids: BTreeSet<_> = order_ids.iter().copied().collect();
        let mut orders = Vec::with_capacity(ids.len());
        for chunk in ids.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
            let select = Statement::new(format!(
                "SELECT {ORDER_COLUMNS} FROM orders{} WHERE order_id IN ",
                S::DIALECT.through("PRIMARY")
            ))
            .list(chunk.iter().copied());
            orders.extend(self.fetch::<Order>(select).await?);
        }
        Ok(orders)
    }

    async fn of_user(
        &self,
        user_id: UserId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>> {
        let select =
            Statement::new(format!(
                "SELECT {ORDER_COLUMNS} FROM orders{} WHERE user_id = ? AND order_id < ? ORDER BY order_id DESC LIMIT ?",
                S::DIALECT.through("orders_of_user")
            ))
                .bind(user_id)
                .bind(before.map_or_else(|| Value::from(AFTER_ALL_IDS), Value::from))
                .bind(limit);
        self.fetch(select).await
    }

    async fn pay(&self, order_id: OrderId, user_id: UserId, now: Timestamp) -> Stored<Transition> {
        self.transact(Pay { order_id, user_id, now }).await
    }

    async fn cancel(
        &self,
        order_id: OrderId,
        user_id: UserId,
        queued: Option<&AdmittedOrder>,
        now: Timestamp,
    ) -> Stored<Transition> {
        // A queued request for another order or user says nothing about this one.
        let queued = queued
            .filter(|request| request.order_id == order_id && request.user_id == user_id)
            .cloned();
        self.transact(Cancel { order_id, user_id: Some(user_id), queued, by_admin: None, now })
            .await
    }

    async fn expire_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<Order>> {
        self.transact(ExpireDue { sale_id: None, now, limit }).await
    }

    async fn sales_with_due(
        &self,
        now: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<SaleId>> {
        let select = Statement::new(format!(
            "SELECT DISTINCT sale_id FROM orders{} WHERE status = 'confirmed' AND pay_by_ms <= ? AND sale_id > ? \
             ORDER BY sale_id LIMIT ?",
            S::DIALECT.through("orders_due")
        ))
        .bind(now)
        .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
        .bind(limit);
        Ok(self
            .fetch::<WithDue>(select)
            .await?
            .into_iter()
            .map(|WithDue(sale_id)| sale_id)
            .collect())
    }

    async fn expire_due_of(
        &self,
        sale_id: SaleId,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Order>> {
        self.transact(ExpireDue { sale_id: Some(sale_id), now, limit }).await
    }

    async fn stock_to_return(&self, after: Option<OrderId>, limit: u32) -> Stored<Vec<Order>> {
        // One ordered index range per status, each cut to the limit, so that a long list is never
        // sorted as a whole.
        let mut select = Statement::new(format!("SELECT {ORDER_COLUMNS} FROM ("));
        let mut separator = "";
        for status in ["cancelled", "expired", "rejected"] {
            select = select
                .sql(format_args!(
                    "{separator}SELECT * FROM (SELECT {ORDER_COLUMNS} FROM orders{} \
                     WHERE status = '{status}' AND stock_returned_at_ms IS NULL AND order_id > ? ORDER BY order_id LIMIT ?) AS {status}",
                    S::DIALECT.through("orders_stock_to_return")
                ))
                .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
                .bind(limit);
            separator = " UNION ALL ";
        }
        self.fetch(select.sql(") AS due ORDER BY order_id LIMIT ?").bind(limit)).await
    }

    async fn mark_stock_returned(&self, order_ids: &[OrderId], now: Timestamp) -> Stored<()> {
        if order_ids.is_empty() {
            return Ok(());
        }
        self.transact(MarkStockReturned { order_ids: order_ids.iter().copied().collect(), now })
            .await
    }

    async fn active(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<ReportedOrder>> {
        let select = Statement::new(format!(
            "SELECT {ORDER_COLUMNS}, {REPORT_COLUMNS} FROM orders{} \
             WHERE sale_id = ? AND order_id > ? AND active_slot IS NOT NULL ORDER BY order_id LIMIT ?",
            S::DIALECT.through("orders_of_sale")
        ))
        .bind(sale_id)
        .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
        .bind(limit);
        self.fetch(select).await
    }

    async fn given_up(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>> {
        let select = Statement::new(format!(
            "SELECT {ORDER_COLUMNS} FROM orders{} WHERE sale_id = ? AND order_id > ? \
             AND (status = 'expired' OR (status = 'cancelled' AND cancellation_reason IS NULL)) ORDER BY order_id LIMIT ?",
            S::DIALECT.always_through("orders_of_sale")
        ))
        .bind(sale_id)
        .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
        .bind(limit);
        self.fetch(select).await
    }

    async fn count_by_status(&self, sale_id: SaleId) -> Stored<Vec<(String, u64)>> {
        let select = Statement::new(by_status(S::DIALECT)).bind(sale_id);
        let mut counts = Vec::new();
        for counted in self.fetch(select).await? {
            if let Counted::Status(word, count) = counted {
                counts.push((word, count));
            }
        }
        counts.sort_unstable();
        Ok(counts)
    }

    async fn tally(&self, sale_id: SaleId) -> Stored<SaleTally> {
        // One statement, so that everything is counted at the same instant.
        let (of_sale, by_status) = (S::DIALECT.through("orders_of_sale"), by_status(S::DIALECT));
        let select = Statement::new(format!(
            "{by_status} \
             UNION ALL \
             SELECT 'user', user_id, COUNT(*) FROM orders{of_sale} WHERE sale_id = ? AND status IN ('confirmed', 'paid') \
             GROUP BY user_id HAVING COUNT(*) > (SELECT per_user_limit FROM sales WHERE sale_id = ?) \
             UNION ALL \
             SELECT 'network', address_prefix, COUNT(*) FROM orders{of_sale} WHERE sale_id = ? AND status IN ('confirmed', 'paid') \
             AND address_prefix IS NOT NULL GROUP BY address_prefix \
             HAVING COUNT(*) > (SELECT units_per_prefix FROM sales WHERE sale_id = ? AND version = 1 AND epoch <= {})",
            Sale::FIRST_EPOCH
        ))
        .bind(sale_id)
        .bind(sale_id)
        .bind(sale_id)
        .bind(sale_id)
        .bind(sale_id);
        let mut tally = SaleTally::default();
        for counted in self.fetch(select).await? {
            match counted {
                Counted::Status(word, count) => {
                    if word.parse().is_ok_and(OrderStatus::is_active) {
                        tally.active += count;
                    }
                    tally.by_status.push((word, count));
                }
                Counted::UserOverLimit(user_id) => tally.users_over_limit.push(user_id),
                Counted::NetworkOverLimit(prefix) => tally.networks_over_limit.push(prefix),
            }
        }
        tally.by_status.sort_unstable();
        tally.users_over_limit.sort_unstable();
        Ok(tally)
    }
}

/// Counts a sale's orders by status. Through the sale's index: to group by status the server would
/// read the whole table in the order of another one.
fn by_status(dialect: Dialect) -> String {
    let of_sale = dialect.through("orders_of_sale");
    format!(
        "SELECT 'status' AS kind, status AS word, COUNT(*) AS n FROM orders{of_sale} WHERE sale_id = ? GROUP BY status"
    )
}

enum Counted {
    Status(String, u64),
    UserOverLimit(UserId),
    NetworkOverLimit(AddressPrefix),
}

impl FromRow for Counted {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(match row.text("kind")?.as_str() {
            "user" => Self::UserOverLimit(row.parsed("word")?),
            "network" => Self::NetworkOverLimit(row.parsed("word")?),
            _ => Self::Status(row.text("word")?, row.number("n")?),
        })
    }
}

struct WithDue(SaleId);

impl FromRow for WithDue {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.parsed("sale_id").map(Self)
    }
}

/// See [`OrderLedger::mark_stock_returned`].
struct MarkStockReturned {
    order_ids: BTreeSet<OrderId>,
    now: Timestamp,
}

impl Work for MarkStockReturned {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        for chunk in self.order_ids.iter().copied().collect::<Vec<_>>().chunks(CHUNK) {
            // An active order is not returned yet: its unit must still be returned when it ends.
            let update = Statement::new(format!(
                "UPDATE orders{} SET stock_returned_at_ms = ?",
                S::DIALECT.through("PRIMARY")
            ))
            .bind(self.now)
            .sql(" WHERE active_slot IS NULL AND stock_returned_at_ms IS NULL AND order_id IN ")
            .list(chunk.iter().copied());
            transaction.execute(&update).await?;
        }
        Ok(())
    }
}
