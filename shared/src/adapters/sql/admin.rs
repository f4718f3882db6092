//! The port `AdminLedger`.

use async_trait::async_trait;

use super::{
    AFTER_ALL_IDS, BEFORE_ALL_IDS, Failure, FromRow, Row, Statement, Store, Transaction, Value,
    Work,
    actions::{ACTION_COLUMNS, note},
    rows::{ORDER_COLUMNS, REPORT_COLUMNS, parse},
    transitions::{ByAdmin, Cancel},
};
use crate::{
    domain::{
        ActionId, AddressPrefix, AdminAction, AdmittedOrder, BanReach, Order, OrderId, OrderOrigin,
        ReportFilter, ReportPage, ReportSort, ReportedOrder, SaleId, Timestamp, Transition, UserId,
    },
    ports::{AdminLedger, Stored},
};

/// Most orders of a sale that are searched for one page by a condition that no index covers.
const SEARCHED_MAX: u32 = 5_000;
/// The latest orders of all sales that are searched for a network.
const REACH_SEARCHED_MAX: u32 = 50_000;

#[async_trait]
impl<S: Store> AdminLedger for S {
    async fn orders(
        &self,
        sale_id: SaleId,
        filter: &ReportFilter,
        sort: ReportSort,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<ReportPage> {
        let index = match filter {
            ReportFilter { order_id: Some(_), .. } => "PRIMARY",
            ReportFilter { user_id: Some(_), .. } => "orders_of_user",
            _ => "orders_of_sale",
        };
        let (direction, behind, until, begin) = match sort {
            ReportSort::Newest => ("DESC", "<", ">=", AFTER_ALL_IDS),
            ReportSort::Oldest => ("ASC", ">", "<=", BEFORE_ALL_IDS),
        };
        let begin = after.map_or_else(|| Value::from(begin), Value::from);
        // Where the search for this page ends, if it may not go through the rest of the sale.
        let mut end = None;
        let searches = filter.status.is_some() || filter.address_prefix.is_some();
        if searches && index == "orders_of_sale" {
            let select = Statement::new(format!(
                "SELECT order_id FROM orders{} WHERE sale_id = ? AND order_id {behind} ? ORDER BY order_id {direction} LIMIT 1 OFFSET ?",
                S::DIALECT.always_through(index)
            ))
            .bind(sale_id)
            .bind(begin.clone())
            .bind(SEARCHED_MAX - 1);
            end = self.fetch::<Id>(select).await?.pop().map(|Id(order_id)| order_id);
        }
        let mut select = Statement::new(format!(
            "SELECT {ORDER_COLUMNS}, {REPORT_COLUMNS} FROM orders{} WHERE sale_id = ? AND order_id {behind} ?",
            S::DIALECT.always_through(index)
        ))
        .bind(sale_id)
        .bind(begin);
        if let Some(end) = end {
            select = select.sql(format_args!(" AND order_id {until} ?")).bind(end);
        }
        if let Some(order_id) = filter.order_id {
            select = select.sql(" AND order_id = ?").bind(order_id);
        }
        if let Some(user_id) = filter.user_id {
            select = select.sql(" AND user_id = ?").bind(user_id);
        }
        if let Some(status) = filter.status {
            select = select.sql(" AND status = ?").bind(status.as_str());
        }
        if let Some(prefix) = filter.address_prefix {
            select = select.sql(" AND address_prefix = ?").bind(prefix.to_string().as_str());
        }
        let select = select.sql(format_args!(" ORDER BY order_id {direction} LIMIT ?")).bind(limit);
        let orders = self.fetch::<ReportedOrder>(select).await?;
        let full = orders.len() == limit as usize;
        let next = orders.last().filter(|_| full).map(|last| last.order.order_id).or(end);
        Ok(ReportPage { orders, next })
    }

    async fn cancel(
        &self,
        order_id: OrderId,
        queued: Option<&AdmittedOrder>,
        reason: &str,
        action: &AdminAction,
        now: Timestamp,
    ) -> Stored<Transition> {
        let queued = queued.filter(|request| request.order_id == order_id).cloned();
        let by_admin = Some(ByAdmin { reason: reason.to_owned(), action: action.clone() });
        self.transact(Cancel { order_id, user_id: None, queued, by_admin, now }).await
    }

    async fn reach_of_network(&self, prefix: AddressPrefix) -> Stored<BanReach> {
        let prefix = prefix.to_string();
        let select = Statement::new(
            "SELECT COUNT(*) AS searched, COUNT(CASE WHEN address_prefix = ? THEN 1 END) AS orders, \
             COUNT(CASE WHEN address_prefix = ? THEN active_slot END) AS active, \
             COUNT(DISTINCT CASE WHEN address_prefix = ? THEN user_id END) AS users \
             FROM (SELECT user_id, active_slot, address_prefix FROM orders ORDER BY order_id DESC LIMIT ?) AS latest",
        )
        .bind(prefix.as_str())
        .bind(prefix.as_str())
        .bind(prefix.as_str())
        .bind(REACH_SEARCHED_MAX);
        let reach = self.fetch::<Reach>(select).await?.pop().map(|Reach(reach)| reach);
        Ok(reach.unwrap_or_default())
    }

    async fn reach_of_user(&self, user_id: UserId, now: Timestamp) -> Stored<BanReach> {
        let select = Statement::new(format!(
            "SELECT 0 AS searched, COUNT(*) AS orders, COUNT(active_slot) AS active, 1 AS users FROM orders{} WHERE user_id = ?",
            S::DIALECT.through("orders_of_user")
        ))
        .bind(user_id);
        let reach = self.fetch::<Reach>(select).await?.pop().map(|Reach(reach)| reach);
        let select = Statement::new(
            "SELECT COUNT(*) AS sessions FROM sessions WHERE user_id = ? AND ended_at_ms IS NULL AND expires_at_ms > ?",
        )
        .bind(user_id)
        .bind(now);
        let sessions = self.fetch::<LiveSessions>(select).await?.pop().map(|live| live.0);
        Ok(BanReach { sessions, searched_orders: None, ..reach.unwrap_or_default() })
    }

    async fn note(&self, action: &AdminAction) -> Stored<()> {
        self.transact(Note { action: action.clone() }).await
    }

    async fn actions(&self, before: Option<ActionId>, limit: u32) -> Stored<Vec<AdminAction>> {
        let select = Statement::new(format!(
            "SELECT {ACTION_COLUMNS} FROM admin_actions WHERE action_id < ? ORDER BY action_id DESC LIMIT ?"
        ))
        .bind(before.map_or_else(|| Value::from(AFTER_ALL_IDS), Value::from))
        .bind(limit);
        self.fetch(select).await
    }
}

struct Reach(BanReach);

impl FromRow for Reach {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self(BanReach {
            users: row.number("users")?,
            orders: row.number("orders")?,
            active_orders: row.number("active")?,
            sessions: None,
            searched_orders: Some(row.number("searched")?),
        }))
    }
}

struct LiveSessions(u64);

impl FromRow for LiveSessions {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.number("sessions").map(Self)
    }
}

struct Id(OrderId);

impl FromRow for Id {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.parsed("order_id").map(Self)
    }
}

impl FromRow for ReportedOrder {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let address_prefix = row.text_or_null("address_prefix")?;
        Ok(Self {
            order: Order::from_row(row)?,
            origin: OrderOrigin {
                address_prefix: address_prefix
                    .map(|text| parse("address_prefix", &text))
                    .transpose()?,
                opened_at: row.int_or_null("opened_at_ms")?.map(Timestamp::from_epoch_ms),
            },
        })
    }
}

/// See [`AdminLedger::note`].
struct Note {
    action: AdminAction,
}

impl Work for Note {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        note(transaction, &self.action).await
    }
}
