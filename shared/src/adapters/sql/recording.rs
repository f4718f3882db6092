//! Recording a batch of admitted orders: one transaction that locks the rows, lets the domain
//! decide and stores the decisions.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    CHUNK, Failure, FromRow, Row, Statement, Transaction, Work,
    locking::{add_to_sold, insert, lock_orders, lock_sales},
};
use crate::domain::{
    AdmittedOrder, LedgerSlot, Recorded, RecordingView, SaleId, Timestamp, Unrecordable, UserId,
};

/// See [`crate::ports::OrderLedger::record`].
pub(super) struct Record {
    pub(super) requests: Vec<AdmittedOrder>,
    pub(super) now: Timestamp,
    pub(super) pay_by: Timestamp,
}

impl Work for Record {
    type Output = Vec<Result<Recorded, Unrecordable>>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Self::Output, Failure> {
        let sales =
            lock_sales(transaction, self.requests.iter().map(|request| request.sale_id).collect())
                .await?;
        let sales: HashMap<_, _> = sales.into_iter().map(|sale| (sale.sale_id, sale)).collect();
        let existing = lock_orders(
            transaction,
            self.requests.iter().map(|request| request.order_id).collect(),
        )
        .await?;
        let existing: HashMap<_, _> =
            existing.into_iter().map(|order| (order.order_id, order)).collect();
        // Lock slots only for orders that may be confirmed; other rows stay unlocked.
        let is_open = |request: &&AdmittedOrder| {
            sales.contains_key(&request.sale_id) && !existing.contains_key(&request.order_id)
        };
        let buyers = self
            .requests
            .iter()
            .filter(is_open)
            .map(|request| (request.sale_id, request.user_id))
            .collect();
        let slots = lock_slots(transaction, buyers).await?;
        // Rarely any: the price has changed since the order was admitted.
        let differs = |request: &&AdmittedOrder| {
            sales.get(&request.sale_id).is_some_and(|sale| sale.price != request.price)
        };
        let earlier_prices = earlier_prices(
            transaction,
            self.requests.iter().filter(differs).map(|request| request.sale_id).collect(),
        )
        .await?;
        let decided = RecordingView::new(sales, earlier_prices, slots, existing).decide(
            &self.requests,
            self.now,
            self.pay_by,
        );
        insert(transaction, &decided.inserts).await?;
        for (&sale_id, &units) in &decided.taken {
            add_to_sold(transaction, sale_id, units.into()).await?;
        }
        Ok(decided.outcomes)
    }
}

/// All prices that the sales have had.
async fn earlier_prices<S: Transaction>(
    transaction: &mut S,
    sale_ids: BTreeSet<SaleId>,
) -> Result<HashSet<(SaleId, i64)>, Failure> {
    let mut prices = HashSet::new();
    for chunk in sale_ids.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let select = Statement::new("SELECT sale_id, price FROM sale_prices WHERE sale_id IN ")
            .list(chunk.iter().copied());
        prices.extend(
            transaction
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

/// Locks the units that the users hold in the sales.
async fn lock_slots<S: Transaction>(
    transaction: &mut S,
    buyers: BTreeSet<(SaleId, UserId)>,
) -> Result<Vec<LedgerSlot>, Failure> {
    let mut slots = Vec::new();
    for chunk in buyers.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        // `version` is selected only because the index does not contain it. If an index covers all
        // columns, MySQL scans it while the table is small, and so meets the locked orders of other
        // sales.
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
            transaction.fetch::<LedgerSlot>(&select.sql(")").sql(S::DIALECT.for_update())).await?,
        );
    }
    Ok(slots)
}

impl FromRow for LedgerSlot {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            sale_id: row.parsed("sale_id")?,
            user_id: row.parsed("user_id")?,
            slot: row.number("active_slot")?,
        })
    }
}
