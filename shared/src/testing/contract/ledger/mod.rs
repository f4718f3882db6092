//! Suites of the ledger ports: `Users`, `SessionLedger`, `BanLedger`, `Sales`, `OrderLedger`,
//! `DrawLedger`, `AdminLedger`, `SigningKeys`, `ChallengeLevels`.
//!
//! Suites tolerate other users of the same ledger, except that `expire_due` ends every order that
//! is due.

#![expect(clippy::unwrap_used, reason = "suites are tests")]

mod admin;
mod bans;
mod challenge_level;
mod draws;
mod forbidden;
mod keys;
mod orders;
mod paging;
mod races;
mod recording;
mod sales;
mod sessions;
mod users;

use std::sync::Arc;

pub use admin::{actions, admin_cancellation, reach, reports};
pub use bans::kept_bans;
pub use challenge_level::challenge_level;
pub use draws::{draw_beacon, draw_entries, draw_entry_races, draw_invitations};
pub use forbidden::forbidden;
pub use keys::signing_keys;
pub use orders::{
    attempts, cancellation, expiry, expiry_by_sale, network_limit, payment, stock_return, tally,
};
pub use paging::paging;
pub use races::{ending_races, record_rate, recording_races};
pub use recording::recording;
pub use sales::sales;
pub use sessions::{kept_sessions, session_races};
pub use users::users;

use crate::{
    domain::{
        AdmittedOrder, Order, OrderId, OrderStatus, Recorded, RejectReason, Sale, Transition,
        Unrecordable, UserId,
    },
    ports::{
        AdminLedger, BanLedger, ChallengeLevels, DrawLedger, Health, OrderLedger, Sales,
        SessionLedger, SigningKeys, StoreError, Stored, Users,
    },
    testing,
};

/// Time to pay for the suites' orders, counted from their recording.
const PAY_WITHIN_MS: u64 = 900_000;

/// The ports of one ledger.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the port of its type")]
pub struct Ledger {
    pub users: Arc<dyn Users>,
    pub sessions: Arc<dyn SessionLedger>,
    pub bans: Arc<dyn BanLedger>,
    pub sales: Arc<dyn Sales>,
    pub orders: Arc<dyn OrderLedger>,
    pub draws: Arc<dyn DrawLedger>,
    pub admin: Arc<dyn AdminLedger>,
    pub signing_keys: Arc<dyn SigningKeys>,
    pub challenge_levels: Arc<dyn ChallengeLevels>,
    pub health: Arc<dyn Health>,
}

impl Ledger {
    /// All ports of a store that implements every one of them.
    pub fn of<
        S: Users
            + SessionLedger
            + BanLedger
            + Sales
            + OrderLedger
            + DrawLedger
            + AdminLedger
            + SigningKeys
            + ChallengeLevels
            + Health
            + 'static,
    >(
        store: S,
    ) -> Self {
        let store = Arc::new(store);
        Self {
            users: store.clone(),
            sessions: store.clone(),
            bans: store.clone(),
            sales: store.clone(),
            orders: store.clone(),
            draws: store.clone(),
            admin: store.clone(),
            signing_keys: store.clone(),
            challenge_levels: store.clone(),
            health: store,
        }
    }

    async fn new_sale(&self, stock: u32, per_user_limit: u32) -> Sale {
        let sale = Sale { per_user_limit, ..testing::sale(stock) };
        self.sales.create(&sale).await.unwrap();
        sale
    }

    async fn record(&self, requests: &[AdmittedOrder]) -> Vec<Recorded> {
        all(self.orders.record(requests, testing::START, PAY_WITHIN_MS).await.unwrap())
    }

    /// Records one order that must be confirmed.
    async fn confirmed(&self, sale: &Sale) -> Order {
        let recorded =
            self.record(&[testing::request(sale, testing::user_id())]).await.pop().unwrap();
        assert_eq!(recorded.order.status, OrderStatus::Confirmed);
        recorded.order
    }

    async fn get(&self, order_id: OrderId) -> Order {
        self.orders.get(order_id).await.unwrap().unwrap()
    }

    /// Checks that the sale's row agrees with its orders' rows.
    async fn assert_sold(&self, sale: &Sale, sold: u32) {
        assert_eq!(self.sales.get(sale.sale_id).await.unwrap().unwrap().sold, sold);
        let tally = self.orders.tally(sale.sale_id).await.unwrap();
        assert_eq!(tally.active, u64::from(sold), "{tally:?}");
        assert_eq!(tally.users_over_limit, [] as [UserId; 0]);
    }
}

/// The store reports on its health as the database.
pub async fn health(ledger: &Ledger) {
    assert_eq!(ledger.health.name(), "database");
    ledger.health.check().await.unwrap();
}

/// The outcomes of orders that can all be recorded.
fn all(outcomes: Vec<Result<Recorded, Unrecordable>>) -> Vec<Recorded> {
    outcomes.into_iter().map(Result::unwrap).collect()
}

/// The reason of each outcome, `None` for a confirmed one.
fn reasons(recorded: &[Recorded]) -> Vec<Option<RejectReason>> {
    recorded
        .iter()
        .map(|Recorded { order, .. }| {
            let expected =
                if order.reason.is_some() { OrderStatus::Rejected } else { OrderStatus::Confirmed };
            assert_eq!(order.status, expected);
            order.reason
        })
        .collect()
}

fn done(transition: Stored<Transition>) -> Order {
    match transition {
        Ok(Transition::Done(order)) => order,
        other => panic!("expected Done, got {other:?}"),
    }
}

fn refused(transition: Stored<Transition>) -> Order {
    match transition {
        Ok(Transition::Refused(order)) => order,
        other => panic!("expected Refused, got {other:?}"),
    }
}

fn assert_corrupt<T: std::fmt::Debug>(result: Stored<T>) {
    assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{result:?}");
}

/// Retries after an error, as any caller may: repeating a call has the effect of one call.
async fn again<T, F: Future<Output = Stored<T>>>(call: impl Fn() -> F) -> T {
    let mut last = None;
    for _ in 0..20 {
        match call().await {
            Ok(value) => return value,
            Err(error @ StoreError::Corrupt { .. }) => panic!("{error}"),
            Err(error) => last = Some(error),
        }
    }
    panic!("still failing: {last:?}")
}
