//! Steps that the transactions on orders share: locking the rows of sales and orders, inserting
//! orders, changing `sold`.

use std::collections::BTreeSet;

use super::{
    CHUNK, Failure, FromRow, Row, Statement, Transaction, Value,
    rows::{ORDER_COLUMNS, signed},
    statement::row_groups,
};
use crate::domain::{LedgerSale, NewOrder, Order, OrderId, SaleId};

/// Locks the given sales, as far as they exist, in id order.
pub(super) async fn lock_sales<S: Transaction>(
    transaction: &mut S,
    sale_ids: BTreeSet<SaleId>,
) -> Result<Vec<LedgerSale>, Failure> {
    let mut sales = Vec::with_capacity(sale_ids.len());
    for chunk in sale_ids.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let select = Statement::new(format!(
            "SELECT sale_id, stock, sold, per_user_limit, price, currency, starts_at_ms FROM sales{} WHERE sale_id IN ",
            S::DIALECT.through("PRIMARY")
        ))
        .list(chunk.iter().copied())
        .sql(" ORDER BY sale_id")
        .sql(S::DIALECT.for_update());
        sales.extend(transaction.fetch::<LedgerSale>(&select).await?);
    }
    Ok(sales)
}

impl FromRow for LedgerSale {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            sale_id: row.parsed("sale_id")?,
            stock: row.number("stock")?,
            sold: row.number("sold")?,
            per_user_limit: row.number("per_user_limit")?,
            price: row.int("price")?,
            currency: row.parsed("currency")?,
            starts_at: row.time("starts_at_ms")?,
        })
    }
}

/// Locks the given orders, as far as they exist, in id order.
pub(super) async fn lock_orders<S: Transaction>(
    transaction: &mut S,
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
        orders.extend(transaction.fetch::<Order>(&select).await?);
    }
    Ok(orders)
}

/// Inserts new rows, many at a time.
pub(super) async fn insert<S: Transaction>(
    transaction: &mut S,
    orders: &[NewOrder],
) -> Result<(), Failure> {
    for group in row_groups(orders, CHUNK) {
        let rows = group.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let insert =
            Statement::new(format!("INSERT INTO orders ({ORDER_COLUMNS}, active_slot, address_prefix, opened_at_ms) VALUES "))
                .rows(rows);
        transaction.execute(&insert).await?;
    }
    Ok(())
}

/// In the order of the columns.
fn row(NewOrder { order, slot, origin }: &NewOrder) -> Result<[Value; 15], Failure> {
    let address_prefix = origin.address_prefix.map(|prefix| prefix.to_string());
    Ok([
        order.order_id.into(),
        order.sale_id.into(),
        order.user_id.into(),
        order.status.as_str().into(),
        order.reason.map(|reason| reason.as_str()).into(),
        order.cancellation_reason.as_deref().into(),
        order.price.into(),
        order.currency.as_str().into(),
        order.created_at.into(),
        order.pay_by.into(),
        order.updated_at.into(),
        signed("version", order.version)?,
        (*slot).into(),
        address_prefix.as_deref().into(),
        origin.opened_at.into(),
    ])
}

/// Changes how many units of a locked sale are held. The row's constraints are the last safeguard.
pub(super) async fn add_to_sold<S: Transaction>(
    transaction: &mut S,
    sale_id: SaleId,
    units: i64,
) -> Result<(), Failure> {
    let update = Statement::new("UPDATE sales SET sold = sold + ? WHERE sale_id = ?")
        .bind(units)
        .bind(sale_id);
    match transaction.execute(&update).await? {
        1 => Ok(()),
        _ => Err(Failure::Corrupt(format!("sale {sale_id} has active orders but no row"))),
    }
}
