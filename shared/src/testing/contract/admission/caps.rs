//! The two caps of a sale: attempts per user, units per network.

use super::*;

/// What counts as an attempt and as a network's unit, and who is refused for it.
pub async fn suite(port: &Arc<dyn Admission>) {
    let port = &**port;
    who_gives_up_too_often_is_out(port).await;
    an_attempt_counts_once(port).await;
    attempts_are_known_without_a_reservation(port).await;
    a_network_gets_no_more_than_the_sale_allows(port).await;
    a_network_s_units_are_counted_by_order(port).await;
    a_network_s_limit_may_change(port).await;
    refusals_come_in_their_order(port).await;
    a_crowd_of_one_network_is_bounded(port).await;
}

/// Gives up an order of the user.
fn given_up(order: &AdmittedOrder) -> EndedOrder {
    EndedOrder { order_id: order.order_id, given_up_by: Some(order.user_id) }
}

async fn attempts(port: &dyn Admission, sale: &Sale, user_id: UserId) -> u32 {
    port.look(sale.sale_id, user_id, None).await.expect("store").expect("open").given_up
}

async fn network_sold_out(port: &dyn Admission, sale: &Sale, address: &str) -> bool {
    let from = Some(network(address));
    let look = port.look(sale.sale_id, user_id(), from).await.expect("store").expect("open");
    look.network_sold_out
}

/// A new user's claim from the address.
fn claim_from(sale: &Sale, address: &str) -> Claim {
    Claim { address_prefix: network(address), ..claim(sale, user_id()) }
}

async fn take_from(port: &dyn Admission, sale: &Sale, address: &str) -> AdmittedOrder {
    let claim = claim_from(sale, address);
    let expected = admitted(sale, &claim);
    assert_eq!(ask(port, &claim).await, AdmissionDecision::Reserved(expected.clone()));
    expected
}

/// A sale that is open in the store, with a limit for each network.
async fn opened_with(port: &dyn Admission, stock: u32, units_per_prefix: u32) -> Sale {
    let sale = Sale { units_per_prefix: Some(units_per_prefix), ..sale(stock) };
    open(port, &sale).await;
    sale
}

async fn who_gives_up_too_often_is_out(port: &dyn Admission) {
    let sale = opened(port, 5).await;
    let user = user_id();
    let mut last = None;
    for given in 0..3 {
        assert_eq!(attempts(port, &sale, user).await, given);
        let claim = claim(&sale, user);
        let AdmissionDecision::Reserved(order) = ask(port, &claim).await else {
            panic!("{given} attempts are fewer than three");
        };
        port.release(sale.sale_id, &[given_up(&order)]).await.expect("store");
        last = Some(claim);
    }
    let next = claim(&sale, user);
    assert_eq!(ask(port, &next).await, AdmissionDecision::TooManyAttempts);
    assert_eq!(attempts(port, &sale, user).await, 3);
    assert_held(port, sale.sale_id, 0, 0).await;
    // The retry of an old order is no further one.
    let last = last.expect("three were reserved");
    assert_eq!(ask(port, &last).await, AdmissionDecision::Ended);
    // The limit is the caller's: a higher one, or none, admits again.
    for attempts_max in [4, 0] {
        let next = Claim { attempts_max, ..claim(&sale, user) };
        let AdmissionDecision::Reserved(order) = ask(port, &next).await else {
            panic!("three attempts of {attempts_max}");
        };
        assert!(matches!(ask(port, &next).await, AdmissionDecision::Again(_)));
        port.release(sale.sale_id, &[ended(order.order_id)]).await.expect("store");
    }
    // Others, and other sales, are not concerned.
    take(port, &sale).await;
    let elsewhere = opened(port, 1).await;
    let reserved = ask(port, &claim(&elsewhere, user)).await;
    assert!(matches!(reserved, AdmissionDecision::Reserved(_)));
}

async fn an_attempt_counts_once(port: &dyn Admission) {
    let sale = opened(port, 5).await;
    let order = take(port, &sale).await;
    let user = order.user_id;
    let release = async |ended: &[EndedOrder]| {
        port.release(sale.sale_id, ended).await.expect("store");
        attempts(port, &sale, user).await
    };
    // An order that was rejected, or that an administrator cancelled.
    assert_eq!(release(&[ended(order_id())]).await, 0);
    let twice = [given_up(&order), given_up(&order)];
    assert_eq!(release(&twice).await, 1);
    assert_eq!(release(&twice).await, 1);
    assert_eq!(release(&[ended(order.order_id)]).await, 1, "it stays an attempt");
    assert_eq!(release(&[given_up(&order)]).await, 1);
    port.settle(sale.sale_id, std::slice::from_ref(&order)).await.expect("store");
    assert_eq!(find(port, &order).await, None);
    // It had ended before it was known to be given up; both in one call.
    let next = request(&sale, user);
    assert_eq!(release(&[ended(next.order_id)]).await, 1);
    assert_eq!(release(&[given_up(&next)]).await, 2);
    let both = request(&sale, user);
    assert_eq!(release(&[ended(both.order_id), given_up(&both), ended(both.order_id)]).await, 3);
    assert_eq!(attempts(port, &sale, user_id()).await, 0);
}

/// A rebuild releases the orders that the ledger has as given up.
async fn attempts_are_known_without_a_reservation(port: &dyn Admission) {
    let sale = sale(5);
    let user = user_id();
    let [before, during, after] = [(); 3].map(|()| request(&sale, user));
    port.release(sale.sale_id, &[given_up(&before)]).await.expect("store");
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    // This one is read as active before it is given up.
    assert!(port.restore(sale.sale_id, 1, std::slice::from_ref(&during)).await.expect("store"));
    port.release(sale.sale_id, &[given_up(&before), given_up(&during)]).await.expect("store");
    assert!(port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
    assert_eq!(attempts(port, &sale, user).await, 2);
    assert_held(port, sale.sale_id, 0, 0).await;
    port.release(sale.sale_id, &[given_up(&after)]).await.expect("store");
    assert_eq!(ask(port, &claim(&sale, user)).await, AdmissionDecision::TooManyAttempts);
}

async fn a_network_gets_no_more_than_the_sale_allows(port: &dyn Admission) {
    let sale = opened_with(port, 9, 2).await;
    let first = take_from(port, &sale, "192.0.2.1").await;
    assert!(!network_sold_out(port, &sale, "192.0.2.9").await);
    take_from(port, &sale, "192.0.2.200").await;
    assert!(network_sold_out(port, &sale, "192.0.2.9").await);
    let late = claim_from(&sale, "192.0.2.3");
    assert_eq!(ask(port, &late).await, AdmissionDecision::NetworkSoldOut);
    // A buyer's retry finds the order, also from elsewhere; the first network stays with it.
    for address in ["192.0.2.1", "198.51.100.1"] {
        let again = Claim { order_id: first.order_id, ..claim_from(&sale, address) };
        let again = Claim { user_id: first.user_id, ..again };
        let held = Reservation { order: first.clone(), settled: false };
        assert_eq!(ask(port, &again).await, AdmissionDecision::Again(held));
    }
    // Other networks buy on, and without a network the look names none.
    take_from(port, &sale, "192.0.3.1").await;
    take_from(port, &sale, "2001:db8:1:2::1").await;
    take_from(port, &sale, "2001:db8:1:3::1").await;
    assert!(network_sold_out(port, &sale, "2001:db8:1:ffff::1").await);
    assert!(!network_sold_out(port, &sale, "2001:db8:2::1").await);
    let look = port.look(sale.sale_id, user_id(), None).await.expect("store").expect("open");
    assert!(!look.network_sold_out);
    // A unit that comes back is free for the network again, once.
    for _ in 0..2 {
        port.release(sale.sale_id, &[ended(first.order_id)]).await.expect("store");
    }
    assert!(!network_sold_out(port, &sale, "192.0.2.9").await);
    take_from(port, &sale, "192.0.2.3").await;
    assert_eq!(ask(port, &claim_from(&sale, "192.0.2.4")).await, AdmissionDecision::NetworkSoldOut);
    // Also the last unit that a network holds comes back.
    let sale = opened_with(port, 9, 1).await;
    for _ in 0..3 {
        let only = take_from(port, &sale, "192.0.2.1").await;
        assert!(network_sold_out(port, &sale, "192.0.2.9").await);
        port.release(sale.sale_id, &[ended(only.order_id)]).await.expect("store");
    }
    assert!(!network_sold_out(port, &sale, "192.0.2.9").await);
}

/// Whatever happens to an order, and however often, its network has its unit once or not at all.
async fn a_network_s_units_are_counted_by_order(port: &dyn Admission) {
    let sale = Sale { units_per_prefix: Some(3), ..sale(9) };
    let from = |address: &str| AdmittedOrder {
        address_prefix: Some(network(address)),
        ..request(&sale, user_id())
    };
    let [restored, forgotten, unknown] =
        [from("192.0.2.1"), from("192.0.2.2"), request(&sale, user_id())];
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    for _ in 0..2 {
        let active = [restored.clone(), restored.clone(), unknown.clone()];
        assert!(port.restore(sale.sale_id, 1, &active).await.expect("store"));
    }
    assert!(port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
    for _ in 0..2 {
        let active = [forgotten.clone(), restored.clone(), forgotten.clone()];
        port.settle(sale.sale_id, &active).await.expect("store");
    }
    let held = Reservation { order: forgotten.clone(), settled: true };
    assert_eq!(find(port, &forgotten).await, Some(held));
    assert!(!network_sold_out(port, &sale, "192.0.2.9").await, "two of three");
    let taken = take_from(port, &sale, "192.0.2.3").await;
    port.settle(sale.sale_id, std::slice::from_ref(&taken)).await.expect("store");
    assert!(network_sold_out(port, &sale, "192.0.2.9").await);
    // An order whose network is not known takes no network's unit, and gives none back.
    port.release(sale.sale_id, &[ended(unknown.order_id)]).await.expect("store");
    assert!(network_sold_out(port, &sale, "192.0.2.9").await);
    let twice = [&restored, &restored, &forgotten].map(|order| ended(order.order_id));
    port.release(sale.sale_id, &twice).await.expect("store");
    for address in ["192.0.2.4", "192.0.2.5"] {
        assert!(!network_sold_out(port, &sale, address).await);
        take_from(port, &sale, address).await;
    }
    assert!(network_sold_out(port, &sale, "192.0.2.9").await);
    // An ended order does not come back, and takes no unit.
    port.release(sale.sale_id, &[ended(taken.order_id)]).await.expect("store");
    port.settle(sale.sale_id, std::slice::from_ref(&taken)).await.expect("store");
    assert!(!network_sold_out(port, &sale, "192.0.2.9").await);
}

async fn a_network_s_limit_may_change(port: &dyn Admission) {
    let mut sale = opened(port, 9).await;
    for _ in 0..3 {
        take_from(port, &sale, "192.0.2.1").await;
    }
    assert!(!network_sold_out(port, &sale, "192.0.2.1").await, "the sale has no limit");
    // Orders from before the limit count.
    for (limit, full) in [(2, true), (3, true), (4, false)] {
        let terms = next_terms(&mut sale, |sale| sale.units_per_prefix = Some(limit));
        assert!(port.set_terms(&terms).await.expect("store"));
        assert_eq!(network_sold_out(port, &sale, "192.0.2.1").await, full, "{limit}");
    }
    take_from(port, &sale, "192.0.2.1").await;
    let late = claim_from(&sale, "192.0.2.1");
    assert_eq!(ask(port, &late).await, AdmissionDecision::NetworkSoldOut);
    let terms = next_terms(&mut sale, |sale| sale.units_per_prefix = None);
    assert!(port.set_terms(&terms).await.expect("store"));
    assert!(matches!(ask(port, &late).await, AdmissionDecision::Reserved(_)));
}

async fn refusals_come_in_their_order(port: &dyn Admission) {
    let mut sale = opened_with(port, 1, 1).await;
    let winner = take_from(port, &sale, "192.0.2.1").await;
    let lost = [(); 3].map(|()| request(&sale, winner.user_id));
    port.release(sale.sale_id, &lost.each_ref().map(given_up)).await.expect("store");
    let mut worst = Claim { user_id: winner.user_id, ..claim_from(&sale, "192.0.2.1") };
    let bought = AdmissionDecision::AlreadyBought { order_id: winner.order_id };
    assert_eq!(ask(port, &worst).await, bought);
    let other = user_id();
    let lost = lost.map(|order| EndedOrder {
        order_id: order_id(),
        given_up_by: Some(AdmittedOrder { user_id: other, ..order }.user_id),
    });
    port.release(sale.sale_id, &lost).await.expect("store");
    worst.user_id = other;
    assert_eq!(ask(port, &worst).await, AdmissionDecision::TooManyAttempts);
    worst.user_id = user_id();
    assert_eq!(ask(port, &worst).await, AdmissionDecision::SoldOut);
    assert!(port.set_terms(&next_terms(&mut sale, |sale| sale.stock = 2)).await.expect("store"));
    assert_eq!(ask(port, &worst).await, AdmissionDecision::NetworkSoldOut);
    worst.address_prefix = network("192.0.3.1");
    assert!(matches!(ask(port, &worst).await, AdmissionDecision::Reserved(_)));
}

async fn a_crowd_of_one_network_is_bounded(port: &dyn Admission) {
    let sale = opened_with(port, 100, 7).await;
    let claims: Vec<_> = (0..40_u32)
        .map(|n| claim_from(&sale, if n % 2 == 0 { "192.0.2.1" } else { "192.0.3.1" }))
        .collect();
    let asked = claims.iter().map(|claim| ask(port, claim));
    let answers = futures_util::future::join_all(asked).await;
    for parity in 0..2 {
        let of_network = answers.iter().skip(parity).step_by(2);
        let reserved =
            of_network.filter(|answer| matches!(answer, AdmissionDecision::Reserved(_))).count();
        assert_eq!(reserved, 7);
    }
    assert_held(port, sale.sale_id, 14, 0).await;
}
