//! SQL that the ledger's own constraints must refuse, whatever program sends it.

use super::Ledger;
use crate::{
    domain::OrderStatus,
    testing::{self, START},
};

/// Stores an order and returns statements that would corrupt the books, each with its intended
/// effect. All must fail; afterwards [`Forbidden::assert_unharmed`] checks that nothing changed.
pub async fn forbidden(ledger: &Ledger) -> Forbidden {
    let sale = ledger.new_sale(2, 1).await;
    let order = ledger.confirmed(&sale).await;
    let user = testing::user();
    ledger.users.create(&user).await.unwrap();
    let (sale_id, order_id, user_id, new_id) =
        (sale.sale_id, order.order_id, order.user_id, testing::order_id());
    let insert = |id: &str,
                  status: &str,
                  reason: &str,
                  slot: &str,
                  pay_by: &str,
                  price: i64,
                  version: u32| {
        format!(
            "INSERT INTO orders (order_id, sale_id, user_id, status, reason, active_slot, price, currency, created_at_ms, pay_by_ms, \
             updated_at_ms, stock_returned_at_ms, version) \
             VALUES ('{id}', '{sale_id}', '{user_id}', '{status}', {reason}, {slot}, {price}, 'USD', 1, {pay_by}, 1, NULL, {version})"
        )
    };
    let new_id = new_id.to_string();
    let statements = vec![
        (
            "sells more than the stock",
            format!("UPDATE sales SET sold = 3 WHERE sale_id = '{sale_id}'"),
        ),
        (
            "lowers the stock below what is sold",
            format!("UPDATE sales SET stock = 0 WHERE sale_id = '{sale_id}'"),
        ),
        (
            "makes the units sold negative",
            format!("UPDATE sales SET sold = -1 WHERE sale_id = '{sale_id}'"),
        ),
        (
            "sets the limit per user to zero",
            format!("UPDATE sales SET per_user_limit = 0 WHERE sale_id = '{sale_id}'"),
        ),
        (
            "sets the limit per network to zero",
            format!("UPDATE sales SET units_per_prefix = 0 WHERE sale_id = '{sale_id}'"),
        ),
        (
            "makes the price negative",
            format!("UPDATE sales SET price = -1 WHERE sale_id = '{sale_id}'"),
        ),
        (
            "ends before it starts",
            format!("UPDATE sales SET ends_at_ms = starts_at_ms WHERE sale_id = '{sale_id}'"),
        ),
        ("gives a slot twice", insert(&new_id, "confirmed", "NULL", "1", "9", 1, 1)),
        ("is active without a slot", insert(&new_id, "confirmed", "NULL", "NULL", "9", 1, 1)),
        ("is paid without a slot", insert(&new_id, "paid", "NULL", "NULL", "9", 1, 1)),
        ("has a slot number 0", insert(&new_id, "confirmed", "NULL", "0", "9", 1, 1)),
        ("keeps its slot when expired", insert(&new_id, "expired", "NULL", "2", "9", 1, 1)),
        ("has a word of its own", insert(&new_id, "queued", "NULL", "NULL", "9", 1, 1)),
        ("is rejected without a reason", insert(&new_id, "rejected", "NULL", "NULL", "NULL", 1, 1)),
        (
            "has a reason of its own",
            insert(&new_id, "rejected", "'bad-luck'", "NULL", "NULL", 1, 1),
        ),
        (
            "has a reason without being rejected",
            insert(&new_id, "cancelled", "'sold-out'", "NULL", "NULL", 1, 1),
        ),
        ("never has to be paid", insert(&new_id, "confirmed", "NULL", "2", "NULL", 1, 1)),
        ("costs less than nothing", insert(&new_id, "confirmed", "NULL", "2", "9", -1, 1)),
        ("has no version", insert(&new_id, "confirmed", "NULL", "2", "9", 1, 0)),
        (
            "takes an id twice",
            insert(&order_id.to_string(), "cancelled", "NULL", "NULL", "NULL", 1, 1),
        ),
        (
            "cancels and keeps the slot",
            format!("UPDATE orders SET status = 'cancelled' WHERE order_id = '{order_id}'"),
        ),
        (
            "returns the stock of an active order",
            format!("UPDATE orders SET stock_returned_at_ms = 1 WHERE order_id = '{order_id}'"),
        ),
        (
            "takes a phone twice",
            format!(
                "INSERT INTO users (user_id, phone, password_hash, role, created_at_ms) VALUES ('{}', '{}', '!', 'shopper', 1)",
                testing::user_id(),
                user.phone.as_str()
            ),
        ),
        (
            "tells of an end that was none",
            format!(
                "INSERT INTO sessions VALUES ('{}', '{}', 'shopper', 1, NULL, 1)",
                testing::session_id(),
                user.user_id
            ),
        ),
        (
            "makes a king",
            format!("UPDATE users SET role = 'king' WHERE user_id = '{}'", user.user_id),
        ),
    ];
    let above_limit = insert(&new_id, "confirmed", "NULL", "2", "9", 1, 1);
    Forbidden { ledger: ledger.clone(), sale, order, statements, above_limit }
}

/// See [`forbidden`].
pub struct Forbidden {
    ledger: Ledger,
    sale: crate::domain::Sale,
    order: crate::domain::Order,
    /// Each statement's intended effect, and its SQL.
    pub statements: Vec<(&'static str, String)>,
    above_limit: String,
}

impl Forbidden {
    /// Checks that the books are as before.
    pub async fn assert_unharmed(&self) {
        assert_eq!(self.ledger.get(self.order.order_id).await, self.order);
        self.ledger.assert_sold(&self.sale, 1).await;
    }

    /// SQL that a faulty program could send and that no constraint refuses: it makes `sold` wrong
    /// and puts a user above the limit.
    #[must_use]
    pub fn falsehoods(&self) -> [String; 2] {
        [
            format!("UPDATE sales SET sold = 0 WHERE sale_id = '{}'", self.sale.sale_id),
            self.above_limit.clone(),
        ]
    }

    /// Checks, after the books were falsified, that rows are counted instead of trusting `sold`,
    /// and that a change that the false books make impossible fails as corrupt.
    pub async fn assert_falsehood_is_seen(&self) {
        let Ledger { sales, orders, .. } = &self.ledger;
        assert_eq!(sales.get(self.sale.sale_id).await.unwrap().unwrap().sold, 0);
        let tally = orders.tally(self.sale.sale_id).await.unwrap();
        assert_eq!((tally.active, tally.users_over_limit), (2, vec![self.order.user_id]));
        super::assert_corrupt(
            orders.cancel(self.order.order_id, self.order.user_id, None, START).await,
        );
        assert_eq!(
            self.ledger.get(self.order.order_id).await.status,
            OrderStatus::Confirmed,
            "nothing of it was stored"
        );
    }
}
