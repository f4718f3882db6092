//! Reserving a unit: each answer, and their precedence.

use super::*;
use crate::domain::Currency;
use crate::testing;

/// Reserving, looking and finding, with one caller at a time.
pub async fn suite(port: &Arc<dyn Admission>) {
    let port = &**port;
    a_unit_is_given_once_and_found_again(port).await;
    nothing_is_known_of_a_sale_that_was_never_loaded(port).await;
    the_window_is_kept(port).await;
    an_expired_ticket_finds_only_what_it_got(port).await;
    the_limit_holds_per_user(port).await;
    the_limit_may_change_while_units_are_held(port).await;
    stock_runs_out_and_may_change(port).await;
    a_reservation_keeps_its_terms(port).await;
    terms_are_replaced_by_newer_ones_only(port).await;
    answers_come_in_their_order(port).await;
    every_unit_that_is_given_is_counted(port).await;
}

async fn a_unit_is_given_once_and_found_again(port: &dyn Admission) {
    let sale = opened(port, 2).await;
    let first = claim(&sale, user_id());
    let held = Reservation { order: admitted(&sale, &first), settled: false };
    assert_eq!(ask(port, &first).await, AdmissionDecision::Reserved(held.order.clone()));
    assert_eq!(available(port, &sale).await, 1);
    let later = Claim { now: at(5_000), ..first.clone() };
    assert_eq!(
        ask(port, &later).await,
        AdmissionDecision::Again(held.clone()),
        "the first admission, not the repeated claim"
    );
    assert_eq!(available(port, &sale).await, 1);
    assert_eq!(find(port, &held.order).await, Some(held));
    assert_eq!(port.find(sale.sale_id, order_id()).await.expect("store"), None);
    assert_held(port, sale.sale_id, 1, 0).await;
}

async fn nothing_is_known_of_a_sale_that_was_never_loaded(port: &dyn Admission) {
    let sale = sale(1);
    let claim = claim(&sale, user_id());
    assert_eq!(port.state(sale.sale_id).await.expect("store"), AdmissionState::Missing);
    assert_eq!(ask(port, &claim).await, AdmissionDecision::Closed);
    assert_eq!(look(port, sale.sale_id, claim.user_id).await, None);
    assert_eq!(port.find(sale.sale_id, claim.order_id).await.expect("store"), None);
    assert_eq!(port.claim_overdue(sale.sale_id, at(1), at(1), 10).await.expect("store"), []);
    assert!(read_all(port, sale.sale_id, 10).await.is_empty());
    assert!(!port.set_terms(&sale.terms()).await.expect("store"));
    assert!(!port.restore(sale.sale_id, 1, &[]).await.expect("store"));
    assert!(!port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
    assert_eq!(port.state(sale.sale_id).await.expect("store"), AdmissionState::Missing);
}

async fn the_window_is_kept(port: &dyn Admission) {
    let sale = opened(port, 9).await;
    let ask = async |now| super::ask(port, &Claim { now, ..claim(&sale, user_id()) }).await;
    assert_eq!(
        ask(sale.starts_at.minus_ms(1)).await,
        AdmissionDecision::NotOpen { starts_at: sale.starts_at }
    );
    assert!(
        matches!(ask(sale.starts_at).await, AdmissionDecision::Reserved(_)),
        "the start belongs to the window"
    );
    assert!(matches!(ask(sale.ends_at.minus_ms(1)).await, AdmissionDecision::Reserved(_)));
    assert_eq!(ask(sale.ends_at).await, AdmissionDecision::SaleEnded, "the end does not");
    assert_eq!(ask(sale.ends_at.plus_ms(1)).await, AdmissionDecision::SaleEnded);
    assert_held(port, sale.sale_id, 2, 0).await;
}

async fn an_expired_ticket_finds_only_what_it_got(port: &dyn Admission) {
    let sale = opened(port, 2).await;
    let lives = claim(&sale, user_id());
    let expired = Claim { ticket_expired: true, ..lives.clone() };
    assert_eq!(ask(port, &expired).await, AdmissionDecision::TicketExpired);
    assert_held(port, sale.sale_id, 0, 0).await;
    assert!(matches!(ask(port, &lives).await, AdmissionDecision::Reserved(_)));
    assert!(matches!(ask(port, &expired).await, AdmissionDecision::Again(_)));
    let after_the_sale = Claim { now: sale.ends_at.plus_ms(1), ..expired.clone() };
    assert!(matches!(ask(port, &after_the_sale).await, AdmissionDecision::Again(_)));
    port.release(sale.sale_id, &[lives.order_id].map(testing::ended)).await.expect("store");
    assert_eq!(ask(port, &expired).await, AdmissionDecision::Ended);
}

async fn the_limit_holds_per_user(port: &dyn Admission) {
    let mut sale = sale(10);
    sale.per_user_limit = 2;
    open(port, &sale).await;
    let user = user_id();
    let (one, two, three) = (claim(&sale, user), claim(&sale, user), claim(&sale, user));
    assert!(matches!(ask(port, &one).await, AdmissionDecision::Reserved(_)));
    assert_eq!(look(port, sale.sale_id, user).await, Some((9, None)));
    assert!(matches!(ask(port, &two).await, AdmissionDecision::Reserved(_)));
    let mine = [one.order_id, two.order_id];
    let AdmissionDecision::AlreadyBought { order_id } = ask(port, &three).await else {
        panic!("the limit is reached");
    };
    assert!(mine.contains(&order_id));
    let seen = port.look(sale.sale_id, user, None).await.expect("store").expect("open");
    assert_eq!(seen.available, 8);
    assert!(seen.already_bought.is_some_and(|id| mine.contains(&id)));
    assert_eq!(
        look(port, sale.sale_id, user_id()).await,
        Some((8, None)),
        "another user's orders are not mine"
    );
    // A settled order counts too, and releasing either order makes room.
    port.settle(sale.sale_id, &[admitted(&sale, &two)]).await.expect("store");
    assert!(matches!(ask(port, &three).await, AdmissionDecision::AlreadyBought { .. }));
    port.release(sale.sale_id, &[one.order_id].map(testing::ended)).await.expect("store");
    assert!(matches!(ask(port, &three).await, AdmissionDecision::Reserved(_)));
    port.release(sale.sale_id, &[two.order_id].map(testing::ended)).await.expect("store");
    assert!(matches!(ask(port, &claim(&sale, user)).await, AdmissionDecision::Reserved(_)));
    assert!(matches!(
        ask(port, &claim(&sale, user)).await,
        AdmissionDecision::AlreadyBought { .. }
    ));
}

/// A look tells whether there were admissions since an earlier one, even if the number of units
/// held is the same.
async fn every_unit_that_is_given_is_counted(port: &dyn Admission) {
    let sale = opened(port, 1).await;
    let admissions = async || {
        port.look(sale.sale_id, user_id(), None).await.expect("store").expect("open").admissions
    };
    let mut last = admissions().await;
    let mut grown = async || {
        let before = std::mem::replace(&mut last, admissions().await);
        last > before
    };
    let first = claim(&sale, user_id());
    assert!(matches!(ask(port, &first).await, AdmissionDecision::Reserved(_)));
    assert!(grown().await, "reserved");
    assert!(matches!(ask(port, &first).await, AdmissionDecision::Again(_)));
    assert_eq!(ask(port, &claim(&sale, user_id())).await, AdmissionDecision::SoldOut);
    port.settle(sale.sale_id, &[admitted(&sale, &first)]).await.expect("store");
    assert!(!grown().await, "no new admission");
    port.release(sale.sale_id, &[first.order_id].map(testing::ended)).await.expect("store");
    assert!(!grown().await, "given back");
    let forgotten = request(&sale, user_id());
    for _ in 0..2 {
        port.settle(sale.sale_id, std::slice::from_ref(&forgotten)).await.expect("store");
    }
    assert!(grown().await, "added because the ledger has it");
    port.release(sale.sale_id, &[forgotten.order_id].map(testing::ended)).await.expect("store");
    take(port, &sale).await;
    assert!(grown().await, "sold again");
}

async fn the_limit_may_change_while_units_are_held(port: &dyn Admission) {
    let mut sale = sale(10);
    sale.per_user_limit = 3;
    open(port, &sale).await;
    let user = user_id();
    let claims = [claim(&sale, user), claim(&sale, user), claim(&sale, user)];
    for claim in &claims {
        assert!(matches!(ask(port, claim).await, AdmissionDecision::Reserved(_)));
    }
    let set_limit = async |sale: &mut Sale, limit| {
        assert!(
            port.set_terms(&next_terms(sale, |sale| sale.per_user_limit = limit))
                .await
                .expect("store")
        );
    };
    set_limit(&mut sale, 1).await;
    assert_held(port, sale.sale_id, 3, 0).await;
    let newest = claim(&sale, user);
    // With the limit at 1, each of the three orders counts, whichever are released.
    for given_back in [&claims[0], &claims[1]] {
        port.release(sale.sale_id, &[given_back.order_id].map(testing::ended))
            .await
            .expect("store");
        assert!(matches!(ask(port, &newest).await, AdmissionDecision::AlreadyBought { .. }));
    }
    assert_eq!(look(port, sale.sale_id, user).await, Some((9, Some(claims[2].order_id))));
    set_limit(&mut sale, 2).await;
    assert_eq!(look(port, sale.sale_id, user).await, Some((9, None)));
    assert!(matches!(ask(port, &newest).await, AdmissionDecision::Reserved(_)));
    assert!(matches!(
        ask(port, &claim(&sale, user)).await,
        AdmissionDecision::AlreadyBought { .. }
    ));
}

async fn stock_runs_out_and_may_change(port: &dyn Admission) {
    let mut sale = opened(port, 2).await;
    let mine = take(port, &sale).await;
    take(port, &sale).await;
    let ask = async |sale: &Sale| super::ask(port, &claim(sale, user_id())).await;
    assert_eq!(ask(&sale).await, AdmissionDecision::SoldOut);
    assert_eq!(available(port, &sale).await, 0);
    let again = Claim { order_id: mine.order_id, ..claim(&sale, mine.user_id) };
    assert!(
        matches!(super::ask(port, &again).await, AdmissionDecision::Again(_)),
        "a winner finds its order in a sale that is sold out"
    );
    // The stock is lowered below the units held: none is available, none is taken away.
    assert!(port.set_terms(&next_terms(&mut sale, |sale| sale.stock = 1)).await.expect("store"));
    assert_eq!(available(port, &sale).await, 0);
    assert_held(port, sale.sale_id, 2, 0).await;
    port.release(sale.sale_id, &[mine.order_id].map(testing::ended)).await.expect("store");
    assert_eq!(available(port, &sale).await, 0);
    assert_eq!(ask(&sale).await, AdmissionDecision::SoldOut);
    assert!(port.set_terms(&next_terms(&mut sale, |sale| sale.stock = 3)).await.expect("store"));
    assert_eq!(available(port, &sale).await, 2);
    take(port, &sale).await;
    take(port, &sale).await;
    assert_eq!(ask(&sale).await, AdmissionDecision::SoldOut);
}

async fn a_reservation_keeps_its_terms(port: &dyn Admission) {
    let mut sale = sale(9);
    sale.price = Sale::PRICE_MAX;
    open(port, &sale).await;
    let old = take(port, &sale).await;
    assert_eq!(old.price, Sale::PRICE_MAX);
    let terms = next_terms(&mut sale, |sale| (sale.price, sale.currency) = (0, Currency::CNY));
    assert!(port.set_terms(&terms).await.expect("store"));
    assert_eq!(find(port, &old).await, Some(Reservation { order: old, settled: false }));
    let new = take(port, &sale).await;
    assert_eq!((new.price, new.currency), (0, Currency::CNY));
}

async fn terms_are_replaced_by_newer_ones_only(port: &dyn Admission) {
    let mut sale = sale(5);
    let old = sale.terms();
    assert!(port.begin_rebuild(&old, 1, START).await.expect("store"));
    let new = next_terms(&mut sale, |sale| sale.stock = 7);
    assert!(port.set_terms(&new).await.expect("store"), "also while the sale is being rebuilt");
    // A rebuild that read the ledger earlier does not replace the terms.
    assert!(port.begin_rebuild(&old, 2, at(1)).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 2).await.expect("store"));
    let expected =
        AdmissionState::Open { epoch: 2, version: new.version, stock: 7, reserved: 0, settled: 0 };
    assert_eq!(port.state(sale.sale_id).await.expect("store"), expected);
    assert!(
        port.set_terms(&old).await.expect("store"),
        "the sale is known, though its terms are newer"
    );
    assert_eq!(available(port, &sale).await, 7);
    // Versions compare as numbers, not as text.
    sale.version = 8;
    for stock in 9..=11 {
        assert!(
            port.set_terms(&next_terms(&mut sale, |sale| sale.stock = stock)).await.expect("store")
        );
        assert_eq!(available(port, &sale).await, stock);
    }
}

async fn answers_come_in_their_order(port: &dyn Admission) {
    let sale = opened(port, 1).await;
    let winner = take(port, &sale).await;
    let ask = async |claim: &Claim| super::ask(port, claim).await;
    // A claim against which everything stands but the state; each step then takes the first thing away.
    let mut worst = Claim {
        ticket_expired: true,
        now: sale.starts_at.minus_ms(1),
        ..claim(&sale, winner.user_id)
    };
    assert_eq!(ask(&worst).await, AdmissionDecision::TicketExpired);
    worst.ticket_expired = false;
    assert_eq!(ask(&worst).await, AdmissionDecision::NotOpen { starts_at: sale.starts_at });
    worst.now = sale.ends_at;
    assert_eq!(ask(&worst).await, AdmissionDecision::SaleEnded);
    worst.now = START;
    assert_eq!(ask(&worst).await, AdmissionDecision::AlreadyBought { order_id: winner.order_id });
    worst.user_id = user_id();
    assert_eq!(ask(&worst).await, AdmissionDecision::SoldOut);
    let held = Reservation { order: winner.clone(), settled: false };
    assert_eq!(
        ask(&Claim { order_id: winner.order_id, ..worst }).await,
        AdmissionDecision::Again(held)
    );
    // A closed sale precedes all of these; an ended order precedes that; and an order that holds a
    // unit precedes both.
    let closed = super::sale(1);
    let (winner, ended) = (request(&closed, user_id()), order_id());
    assert!(port.begin_rebuild(&closed.terms(), 1, START).await.expect("store"));
    assert!(port.restore(closed.sale_id, 1, std::slice::from_ref(&winner)).await.expect("store"));
    port.release(closed.sale_id, &[ended].map(testing::ended)).await.expect("store");
    let worst = Claim {
        ticket_expired: true,
        now: closed.starts_at.minus_ms(1),
        ..claim(&closed, winner.user_id)
    };
    assert_eq!(ask(&worst).await, AdmissionDecision::Closed);
    assert_eq!(ask(&Claim { order_id: ended, ..worst.clone() }).await, AdmissionDecision::Ended);
    let held = Reservation { order: winner.clone(), settled: true };
    assert_eq!(
        ask(&Claim { order_id: winner.order_id, ..worst }).await,
        AdmissionDecision::Again(held)
    );
}
