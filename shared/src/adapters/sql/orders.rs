//! The port `OrderLedger`, and what its transactions share.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;

use super::{
    AFTER_ALL_IDS, BEFORE_ALL_IDS, CHUNK, Failure, FromRow, Row, Session, Statement, Store, Value,
    Work,
    recording::{Book, HeldSale, HeldSlot, NewOrder, Outcome},
    rows::{ORDER_COLUMNS, signed},
    transitions::{Cancel, ExpireDue, Pay},
};
use crate::{
    domain::{
        AdmittedOrder, Order, OrderId, OrderStatus, SaleId, SaleTally, Timestamp, Transition,
        UserId,
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
    ) -> Stored<Vec<Outcome>> {
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
            let select =
                Statement::new(format!("SELECT {ORDER_COLUMNS} FROM orders WHERE order_id IN "))
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
            Statement::new(format!("SELECT {ORDER_COLUMNS} FROM orders WHERE user_id = ? AND order_id < ? ORDER BY order_id DESC LIMIT ?"))
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
        // A request that is not this order of this user says nothing about it.
        let queued = queued
            .filter(|request| request.order_id == order_id && request.user_id == user_id)
            .cloned();
        self.transact(Cancel { order_id, user_id, queued, now }).await
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
        // One ordered range of the index per status, each cut to the limit: a long list is never sorted as a whole.
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
    ) -> Stored<Vec<Order>> {
        let select = Statement::new(format!(
            "SELECT {ORDER_COLUMNS} FROM orders \
             WHERE sale_id = ? AND order_id > ? AND active_slot IS NOT NULL ORDER BY order_id LIMIT ?"
        ))
        .bind(sale_id)
        .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
        .bind(limit);
        self.fetch(select).await
    }

    async fn tally(&self, sale_id: SaleId) -> Stored<SaleTally> {
        // One statement, so that all of it is counted at the same instant.
        let select = Statement::new(
            "SELECT 'status' AS kind, status AS word, COUNT(*) AS n FROM orders WHERE sale_id = ? GROUP BY status \
             UNION ALL \
             SELECT 'user', user_id, COUNT(*) FROM orders WHERE sale_id = ? AND status IN ('confirmed', 'paid') \
             GROUP BY user_id HAVING COUNT(*) > (SELECT per_user_limit FROM sales WHERE sale_id = ?)",
        )
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
            }
        }
        tally.by_status.sort_unstable();
        tally.users_over_limit.sort_unstable();
        Ok(tally)
    }
}

enum Counted {
    Status(String, u64),
    UserOverLimit(UserId),
}

impl FromRow for Counted {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(match row.text("kind")?.as_str() {
            "user" => Self::UserOverLimit(row.parsed("word")?),
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

/// See [`OrderLedger::record`].
struct Record {
    requests: Vec<AdmittedOrder>,
    now: Timestamp,
    pay_by: Timestamp,
}

impl Work for Record {
    type Output = Vec<Outcome>;

    async fn run<S: Session>(&self, session: &mut S) -> Result<Self::Output, Failure> {
        let sales =
            lock_sales(session, self.requests.iter().map(|request| request.sale_id).collect())
                .await?;
        let sales: HashMap<_, _> = sales.into_iter().map(|sale| (sale.sale_id, sale)).collect();
        let existing =
            lock_orders(session, self.requests.iter().map(|request| request.order_id).collect())
                .await?;
        let existing: HashMap<_, _> =
            existing.into_iter().map(|order| (order.order_id, order)).collect();
        // Only of those whose orders may be confirmed: the others' rows are nobody's business here.
        let is_open = |request: &&AdmittedOrder| {
            sales.contains_key(&request.sale_id) && !existing.contains_key(&request.order_id)
        };
        let buyers = self
            .requests
            .iter()
            .filter(is_open)
            .map(|request| (request.sale_id, request.user_id))
            .collect();
        let slots = lock_slots(session, buyers).await?;
        // Seldom any: the price has changed since the order was admitted.
        let differs = |request: &&AdmittedOrder| {
            sales.get(&request.sale_id).is_some_and(|sale| sale.price != request.price)
        };
        let earlier_prices = earlier_prices(
            session,
            self.requests.iter().filter(differs).map(|request| request.sale_id).collect(),
        )
        .await?;
        let decided = Book::new(sales, earlier_prices, slots, existing).decide(
            &self.requests,
            self.now,
            self.pay_by,
        );
        insert(session, &decided.inserts).await?;
        for (&sale_id, &units) in &decided.taken {
            add_to_sold(session, sale_id, units.into()).await?;
        }
        Ok(decided.outcomes)
    }
}

/// Locks those of the sales that exist, in id order.
pub(super) async fn lock_sales<S: Session>(
    session: &mut S,
    sale_ids: BTreeSet<SaleId>,
) -> Result<Vec<HeldSale>, Failure> {
    let mut sales = Vec::with_capacity(sale_ids.len());
    for chunk in sale_ids.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let select = Statement::new(format!(
            "SELECT sale_id, stock, sold, per_user_limit, price, currency FROM sales{} WHERE sale_id IN ",
            S::DIALECT.through("PRIMARY")
        ))
        .list(chunk.iter().copied())
        .sql(" ORDER BY sale_id")
        .sql(S::DIALECT.for_update());
        sales.extend(session.fetch::<HeldSale>(&select).await?);
    }
    Ok(sales)
}

impl FromRow for HeldSale {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            sale_id: row.parsed("sale_id")?,
            stock: row.number("stock")?,
            sold: row.number("sold")?,
            per_user_limit: row.number("per_user_limit")?,
            price: row.int("price")?,
            currency: row.parsed("currency")?,
        })
    }
}

/// All prices that the sales have had.
async fn earlier_prices<S: Session>(
    session: &mut S,
    sale_ids: BTreeSet<SaleId>,
) -> Result<HashSet<(SaleId, i64)>, Failure> {
    let mut prices = HashSet::new();
    for chunk in sale_ids.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let select = Statement::new("SELECT sale_id, price FROM sale_prices WHERE sale_id IN ")
            .list(chunk.iter().copied());
        prices.extend(
            session
                .fetch::<Price>(&select)
                .await?
                .into_iter()
                .map(|Price(sale_id, price)| (sale_id, price)),
        );
    }
    Ok(prices)
}

struct Price(SaleId, i64);

impl FromRow for Price {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self(row.parsed("sale_id")?, row.int("price")?))
    }
}

/// Locks those of the orders that exist, in id order.
pub(super) async fn lock_orders<S: Session>(
    session: &mut S,
    order_ids: BTreeSet<OrderId>,
) -> Result<Vec<Order>, Failure> {
    let mut orders = Vec::new();
    for chunk in order_ids.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let select = Statement::new(format!(
            "SELECT {ORDER_COLUMNS} FROM orders{} WHERE order_id IN ",
            S::DIALECT.through("PRIMARY")
        ))
        .list(chunk.iter().copied())
        .sql(" ORDER BY order_id")
        .sql(S::DIALECT.for_update());
        orders.extend(session.fetch::<Order>(&select).await?);
    }
    Ok(orders)
}

/// Locks the units that the users hold of the sales.
async fn lock_slots<S: Session>(
    session: &mut S,
    buyers: BTreeSet<(SaleId, UserId)>,
) -> Result<Vec<HeldSlot>, Failure> {
    let mut slots = Vec::new();
    for chunk in buyers.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        // The version is only there because the index does not hold it: MySQL walks through an index that holds all columns, and
        // so through the locked orders of other sales, while the table is small.
        let mut select = Statement::new(format!(
            "SELECT sale_id, user_id, active_slot, version FROM orders{} WHERE active_slot IS NOT NULL AND (",
            S::DIALECT.through("orders_slot_held_once")
        ));
        let mut separator = "";
        for of_sale in chunk.chunk_by(|(a, _), (b, _)| a == b) {
            select = select.sql(separator).sql("(sale_id = ? AND user_id IN ").bind(of_sale[0].0);
            select = select.list(of_sale.iter().map(|&(_, user_id)| user_id)).sql(")");
            if !separator.is_empty() {
                select = select.once();
            }
            separator = " OR ";
        }
        slots.extend(
            session.fetch::<HeldSlot>(&select.sql(")").sql(S::DIALECT.for_update())).await?,
        );
    }
    Ok(slots)
}

impl FromRow for HeldSlot {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            sale_id: row.parsed("sale_id")?,
            user_id: row.parsed("user_id")?,
            slot: row.number("active_slot")?,
        })
    }
}

/// Inserts new rows, many at a time.
pub(super) async fn insert<S: Session>(
    session: &mut S,
    orders: &[NewOrder],
) -> Result<(), Failure> {
    for chunk in orders.chunks(CHUNK) {
        let rows = chunk.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let insert =
            Statement::new(format!("INSERT INTO orders ({ORDER_COLUMNS}, active_slot) VALUES "))
                .rows(rows);
        session.execute(&insert).await?;
    }
    Ok(())
}

/// In the order of `ORDER_COLUMNS`.
fn row(NewOrder { order, slot }: &NewOrder) -> Result<[Value; 12], Failure> {
    Ok([
        order.order_id.into(),
        order.sale_id.into(),
        order.user_id.into(),
        order.status.as_str().into(),
        order.reason.map(|reason| reason.as_str()).into(),
        order.price.into(),
        order.currency.as_str().into(),
        order.created_at.into(),
        order.pay_by.into(),
        order.updated_at.into(),
        signed("version", order.version)?,
        (*slot).into(),
    ])
}

/// Changes how many units of a locked sale are held. The row's constraints are the last guard.
pub(super) async fn add_to_sold<S: Session>(
    session: &mut S,
    sale_id: SaleId,
    units: i64,
) -> Result<(), Failure> {
    let update = Statement::new("UPDATE sales SET sold = sold + ? WHERE sale_id = ?")
        .bind(units)
        .bind(sale_id);
    match session.execute(&update).await? {
        1 => Ok(()),
        _ => Err(Failure::Corrupt(format!("sale {sale_id} has active orders but no row"))),
    }
}

/// See [`OrderLedger::mark_stock_returned`].
struct MarkStockReturned {
    order_ids: BTreeSet<OrderId>,
    now: Timestamp,
}

impl Work for MarkStockReturned {
    type Output = ();

    async fn run<S: Session>(&self, session: &mut S) -> Result<(), Failure> {
        for chunk in self.order_ids.iter().copied().collect::<Vec<_>>().chunks(CHUNK) {
            // An active order has nothing to return: its unit must still be returned when it ends.
            let update = Statement::new(format!(
                "UPDATE orders{} SET stock_returned_at_ms = ?",
                S::DIALECT.through("PRIMARY")
            ))
            .bind(self.now)
            .sql(" WHERE active_slot IS NULL AND stock_returned_at_ms IS NULL AND order_id IN ")
            .list(chunk.iter().copied());
            session.execute(&update).await?;
        }
        Ok(())
    }
}
