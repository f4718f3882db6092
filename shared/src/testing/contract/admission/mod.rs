//! Suites of [`Admission`]: every sentence of its contract, on fresh sales, so that suites can
//! share a server.

mod caps;
mod crowd;
mod orders;
mod rebuild;
mod reserve;

use std::{collections::BTreeMap, sync::Arc};

use crate::testing::{Claim, START, ended, network, order_id, request, sale, user_id};
use crate::{
    domain::{
        AdmissionDecision, AdmissionState, AdmittedOrder, EndedOrder, OrderId, Reservation, Sale,
        SaleId, SaleTerms, Timestamp, UserId,
    },
    ports::Admission,
};

pub use caps::suite as caps;
pub use crowd::suite as crowd;
pub use orders::suite as orders;
pub use rebuild::suite as rebuild;
pub use reserve::suite as reserve;

/// A time within the window of [`sale`].
fn at(ms: u64) -> Timestamp {
    START.plus_ms(ms)
}

/// A user's claim of a new order at [`START`], with a valid ticket.
fn claim(sale: &Sale, user_id: UserId) -> Claim {
    Claim::new(sale.sale_id, order_id(), user_id, START)
}

async fn ask(port: &dyn Admission, claim: &Claim) -> AdmissionDecision {
    port.reserve(&claim.request(), claim.now).await.expect("store")
}

/// What a claim becomes when it gets a unit.
fn admitted(sale: &Sale, claim: &Claim) -> AdmittedOrder {
    AdmittedOrder {
        order_id: claim.order_id,
        admitted_at: claim.now,
        address_prefix: Some(claim.address_prefix),
        ..request(sale, claim.user_id)
    }
}

/// Loads the sale under epoch 1, without orders, and opens it.
async fn open(port: &dyn Admission, sale: &Sale) {
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
}

/// A sale that is open in the store.
async fn opened(port: &dyn Admission, stock: u32) -> Sale {
    let sale = sale(stock);
    open(port, &sale).await;
    sale
}

/// A new user reserves a unit.
async fn take(port: &dyn Admission, sale: &Sale) -> AdmittedOrder {
    let claim = claim(sale, user_id());
    let request = admitted(sale, &claim);
    assert_eq!(ask(port, &claim).await, AdmissionDecision::Reserved(request.clone()));
    request
}

async fn available(port: &dyn Admission, sale: &Sale) -> u32 {
    port.look(sale.sale_id, user_id(), None)
        .await
        .expect("store")
        .expect("the sale is open")
        .available
}

async fn find(port: &dyn Admission, request: &AdmittedOrder) -> Option<Reservation> {
    port.find(request.sale_id, request.order_id).await.expect("store")
}

/// Asserts that orders hold this many units of the open sale, and that paging finds the same
/// number.
async fn assert_held(port: &dyn Admission, sale_id: SaleId, reserved: u32, settled: u32) {
    let state = port.state(sale_id).await.expect("store");
    let AdmissionState::Open { reserved: r, settled: s, .. } = state else {
        panic!("expected an open sale, not {state:?}");
    };
    assert_eq!((r, s), (reserved, settled), "reserved and settled");
    let all = read_all(port, sale_id, 3).await;
    let count = |settled| all.values().filter(|reservation| reservation.settled == settled).count();
    assert_eq!(
        (count(false), count(true)),
        (reserved as usize, settled as usize),
        "reserved and settled, read page by page"
    );
}

/// All reservations, read in pages of about `limit`.
async fn read_all(
    port: &dyn Admission,
    sale_id: SaleId,
    limit: u32,
) -> BTreeMap<OrderId, Reservation> {
    let (mut all, mut cursor) = (BTreeMap::new(), 0);
    loop {
        let page = port.reservations(sale_id, cursor, limit).await.expect("store");
        all.extend(
            page.reservations
                .into_iter()
                .map(|reservation| (reservation.order.order_id, reservation)),
        );
        match page.next {
            Some(next) => cursor = next,
            None => return all,
        }
    }
}

/// The store's answer to a user of a sale: the units available, and an order if the limit is
/// reached.
async fn look(
    port: &dyn Admission,
    sale_id: SaleId,
    user_id: UserId,
) -> Option<(u32, Option<OrderId>)> {
    let look = port.look(sale_id, user_id, None).await.expect("store")?;
    Some((look.available, look.already_bought))
}

/// The next version of the sale's terms, after `change`.
fn next_terms(sale: &mut Sale, change: impl FnOnce(&mut Sale)) -> SaleTerms {
    change(sale);
    sale.version += 1;
    sale.terms()
}
