//! What happens to a reservation: settled, released, claimed as overdue, read.

use std::collections::BTreeSet;

use super::*;

/// Settling, releasing, the overdue index and paging, with one caller at a time.
pub async fn suite(port: &Arc<dyn Admission>) {
    let port = &**port;
    settling_marks_once(port).await;
    settling_adds_what_was_forgotten(port).await;
    settling_reaches_any_state_but_missing(port).await;
    releasing_gives_a_unit_back_once(port).await;
    what_has_ended_does_not_come_back(port).await;
    a_rebuild_does_not_bring_back_what_has_ended(port).await;
    overdue_orders_are_handed_out_once_per_period(port).await;
    many_are_found_at_once(port).await;
    paging_sees_everything(port).await;
    batches_may_be_long(port).await;
}

async fn settling_marks_once(port: &dyn Admission) {
    let sale = opened(port, 3).await;
    let order = take(port, &sale).await;
    take(port, &sale).await;
    // The ledger's copy may differ in fields that it does not store; the first admission stays.
    let from_ledger = AdmittedOrder { admitted_at: at(7), price: 1, ..order.clone() };
    for _ in 0..2 {
        port.settle(sale.sale_id, &[from_ledger.clone(), from_ledger.clone()])
            .await
            .expect("store");
        assert_eq!(
            find(port, &order).await,
            Some(Reservation { order: order.clone(), settled: true })
        );
        assert_held(port, sale.sale_id, 1, 1).await;
        assert_eq!(available(port, &sale).await, 1);
    }
    let again = Claim { order_id: order.order_id, ..claim(&sale, order.user_id) };
    let expected = AdmissionDecision::Again(Reservation { order: order.clone(), settled: true });
    assert_eq!(ask(port, &again).await, expected);
    port.settle(sale.sale_id, &[]).await.expect("store");
    port.release(sale.sale_id, &[order.order_id].map(ended)).await.expect("store");
    assert_held(port, sale.sale_id, 1, 0).await;
}

async fn settling_adds_what_was_forgotten(port: &dyn Admission) {
    let sale = opened(port, 1).await;
    let kept = take(port, &sale).await;
    let traced = AdmittedOrder {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..request(&sale, user_id())
    };
    // Also a second order of a user whose limit is 1, and the same order twice in one call.
    let second = request(&sale, kept.user_id);
    let forgotten = [traced.clone(), second.clone(), second.clone()];
    for _ in 0..2 {
        port.settle(sale.sale_id, &forgotten).await.expect("store");
        assert_held(port, sale.sale_id, 1, 2).await;
        assert_eq!(available(port, &sale).await, 0, "three of one are held");
    }
    assert_eq!(
        find(port, &traced).await,
        Some(Reservation { order: traced.clone(), settled: true })
    );
    let bought = port
        .look(sale.sale_id, traced.user_id, None)
        .await
        .expect("store")
        .expect("open")
        .already_bought;
    assert_eq!(bought, Some(traced.order_id));
    // Either remaining order keeps the user at the limit.
    port.release(sale.sale_id, &[traced.order_id, kept.order_id].map(ended)).await.expect("store");
    assert_held(port, sale.sale_id, 0, 1).await;
    let third = claim(&sale, kept.user_id);
    assert_eq!(
        ask(port, &third).await,
        AdmissionDecision::AlreadyBought { order_id: second.order_id }
    );
    port.release(sale.sale_id, &[second.order_id].map(ended)).await.expect("store");
    assert!(matches!(ask(port, &third).await, AdmissionDecision::Reserved(_)));
    // Two forgotten orders of one user in one call.
    let user = user_id();
    let pair = [request(&sale, user), request(&sale, user)];
    port.settle(sale.sale_id, &pair).await.expect("store");
    port.release(sale.sale_id, &[third.order_id, pair[1].order_id].map(ended))
        .await
        .expect("store");
    assert_eq!(
        ask(port, &claim(&sale, user)).await,
        AdmissionDecision::AlreadyBought { order_id: pair[0].order_id }
    );
}

async fn settling_reaches_any_state_but_missing(port: &dyn Admission) {
    let sale = sale(5);
    let order = request(&sale, user_id());
    port.settle(sale.sale_id, std::slice::from_ref(&order)).await.expect("store");
    assert_eq!(find(port, &order).await, None);
    assert_eq!(port.state(sale.sale_id).await.expect("store"), AdmissionState::Missing);
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    assert!(read_all(port, sale.sale_id, 10).await.is_empty());
    port.settle(sale.sale_id, std::slice::from_ref(&order)).await.expect("store");
    assert_eq!(find(port, &order).await, Some(Reservation { order, settled: true }));
    assert!(port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
    assert_held(port, sale.sale_id, 0, 1).await;
}

async fn releasing_gives_a_unit_back_once(port: &dyn Admission) {
    let sale = opened(port, 2).await;
    let (one, two) = (take(port, &sale).await, take(port, &sale).await);
    port.settle(sale.sale_id, std::slice::from_ref(&two)).await.expect("store");
    for _ in 0..2 {
        port.release(sale.sale_id, &[one.order_id, one.order_id, order_id()].map(ended))
            .await
            .expect("store");
        assert_held(port, sale.sale_id, 0, 1).await;
        assert_eq!(available(port, &sale).await, 1);
    }
    assert_eq!(find(port, &one).await, None);
    port.release(sale.sale_id, &[]).await.expect("store");
    let next = Claim { order_id: order_id(), ..claim(&sale, one.user_id) };
    assert!(
        matches!(ask(port, &next).await, AdmissionDecision::Reserved(_)),
        "its user may buy again"
    );
    assert_eq!(ask(port, &claim(&sale, user_id())).await, AdmissionDecision::SoldOut);
    port.release(sale.sale_id, &[two.order_id].map(ended)).await.expect("store");
    assert_held(port, sale.sale_id, 1, 0).await;
}

async fn what_has_ended_does_not_come_back(port: &dyn Admission) {
    let sale = sale(5);
    let [before_load, held, settled, unknown] = std::array::from_fn(|_| request(&sale, user_id()));
    // Even a store that has lost the sale remembers it; otherwise a rebuild could restore the
    // order.
    port.release(sale.sale_id, &[before_load.order_id].map(ended)).await.expect("store");
    assert_eq!(port.state(sale.sale_id).await.expect("store"), AdmissionState::Missing);
    open(port, &sale).await;
    let as_claim =
        |order: &AdmittedOrder| Claim { order_id: order.order_id, ..claim(&sale, order.user_id) };
    assert!(matches!(ask(port, &as_claim(&held)).await, AdmissionDecision::Reserved(_)));
    port.settle(sale.sale_id, std::slice::from_ref(&settled)).await.expect("store");
    let all = [before_load, held, settled, unknown];
    port.release(sale.sale_id, &all.each_ref().map(|order| ended(order.order_id)))
        .await
        .expect("store");
    let gone = async || {
        for order in &all {
            assert_eq!(ask(port, &as_claim(order)).await, AdmissionDecision::Ended);
            assert_eq!(find(port, order).await, None);
        }
    };
    gone().await;
    port.settle(sale.sale_id, &all).await.expect("store");
    gone().await;
    assert_eq!(available(port, &sale).await, 5);
}

async fn a_rebuild_does_not_bring_back_what_has_ended(port: &dyn Admission) {
    let sale = sale(5);
    let [before, during, other] = std::array::from_fn(|_| request(&sale, user_id()));
    let all = [before.clone(), during.clone(), other.clone()];
    port.release(sale.sale_id, &[before.order_id].map(ended)).await.expect("store");
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    assert!(port.restore(sale.sale_id, 1, std::slice::from_ref(&during)).await.expect("store"));
    port.release(sale.sale_id, &[during.order_id].map(ended)).await.expect("store");
    // Neither does the rebuild that takes over.
    assert!(port.begin_rebuild(&sale.terms(), 2, at(1)).await.expect("store"));
    assert!(port.restore(sale.sale_id, 2, &all).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 2).await.expect("store"));
    for (order, held) in [(&before, false), (&during, false), (&other, true)] {
        assert_eq!(find(port, order).await.is_some(), held);
        let claim = Claim { order_id: order.order_id, ..claim(&sale, order.user_id) };
        assert_eq!(ask(port, &claim).await == AdmissionDecision::Ended, !held);
    }
    assert_held(port, sale.sale_id, 0, 1).await;
    assert_eq!(available(port, &sale).await, 4);
}

async fn overdue_orders_are_handed_out_once_per_period(port: &dyn Admission) {
    let sale = opened(port, 9).await;
    let mut orders = Vec::new();
    for ms in [40, 10, 30, 20, 50] {
        let claim = Claim { now: at(ms), ..claim(&sale, user_id()) };
        assert!(matches!(ask(port, &claim).await, AdmissionDecision::Reserved(_)));
        orders.push(admitted(&sale, &claim));
    }
    let [at_40, at_10, at_30, at_20, at_50] = orders.try_into().expect("five were taken");
    port.settle(sale.sale_id, std::slice::from_ref(&at_20)).await.expect("store");
    let overdue = async |before, now, limit| {
        let claimed =
            port.claim_overdue(sale.sale_id, at(before), at(now), limit).await.expect("store");
        assert!(claimed.iter().all(|reservation| !reservation.settled));
        claimed.into_iter().map(|reservation| reservation.order).collect::<Vec<_>>()
    };
    assert_eq!(overdue(9, 100, 9).await, []);
    assert_eq!(overdue(40, 100, 0).await, []);
    assert_eq!(
        overdue(40, 100, 2).await,
        [at_10.clone(), at_30.clone()],
        "oldest first, the settled one left out"
    );
    assert_eq!(overdue(40, 101, 2).await, std::slice::from_ref(&at_40), "40 is at or before 40");
    assert_eq!(
        overdue(99, 102, 9).await,
        std::slice::from_ref(&at_50),
        "the others were claimed after 99"
    );
    assert_eq!(overdue(99, 103, 9).await, []);
    // They are overdue again in the next period, by the time of their last claim; equal times by
    // id.
    let mut next = [at_10.clone(), at_30.clone(), at_40.clone()];
    next[..2].sort_by_key(|order| order.order_id);
    assert_eq!(overdue(101, 200, 9).await, next);
    // A claimed order keeps its time of admission, and can be settled and released like any other.
    assert_eq!(
        find(port, &at_10).await,
        Some(Reservation { order: at_10.clone(), settled: false })
    );
    port.settle(sale.sale_id, std::slice::from_ref(&at_10)).await.expect("store");
    port.release(sale.sale_id, &[at_30.order_id].map(ended)).await.expect("store");
    assert_held(port, sale.sale_id, 2, 2).await;
    assert_eq!(overdue(200, 300, 9).await, [at_50, at_40]);
}

async fn many_are_found_at_once(port: &dyn Admission) {
    let sale = opened(port, 2_000).await;
    assert_eq!(port.find_many(sale.sale_id, &[]).await.expect("store"), []);
    let waiting = take(port, &sale).await;
    let traced = AdmittedOrder {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..request(&sale, user_id())
    };
    let mut settled: Vec<_> = (0..1_100).map(|_| request(&sale, user_id())).collect();
    settled.push(traced);
    port.settle(sale.sale_id, &settled).await.expect("store");
    let gone = settled.remove(0);
    port.release(sale.sale_id, &[gone.order_id].map(ended)).await.expect("store");
    let mut asked: Vec<OrderId> = settled.iter().map(|request| request.order_id).collect();
    // Some ids are missing in the store, and one appears twice.
    asked.extend([waiting.order_id, gone.order_id, order_id(), waiting.order_id]);
    let mut expected: Vec<_> =
        settled.into_iter().map(|request| Reservation { order: request, settled: true }).collect();
    expected.push(Reservation { order: waiting, settled: false });
    expected.sort_by_key(|reservation| reservation.order.order_id);
    let mut found = port.find_many(sale.sale_id, &asked).await.expect("store");
    found.sort_by_key(|reservation| reservation.order.order_id);
    assert_eq!(found, expected);
    assert_eq!(
        port.find_many(crate::testing::sale_id(), &asked).await.expect("store"),
        [],
        "another sale"
    );
}

async fn paging_sees_everything(port: &dyn Admission) {
    let sale = opened(port, 1_000).await;
    // Enough that no store keeps them in one page.
    let stay: Vec<_> = (0..600).map(|_| request(&sale, user_id())).collect();
    let go: Vec<_> = (0..300).map(|_| request(&sale, user_id())).collect();
    port.settle(sale.sale_id, &stay).await.expect("store");
    port.settle(sale.sale_id, &go).await.expect("store");
    assert_eq!(read_all(port, sale.sale_id, 1_000).await.len(), 900);
    let (mut seen, mut cursor, mut leaving) = (BTreeSet::new(), 0, go.chunks(100));
    loop {
        let page = port.reservations(sale.sale_id, cursor, 50).await.expect("store");
        seen.extend(page.reservations.into_iter().map(|reservation| reservation.order.order_id));
        // Reservations come and go while the pages are read.
        if let Some(some) = leaving.next() {
            port.release(
                sale.sale_id,
                &some.iter().map(|order| ended(order.order_id)).collect::<Vec<_>>(),
            )
            .await
            .expect("store");
            take(port, &sale).await;
        }
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let missed: Vec<_> = stay.iter().filter(|order| !seen.contains(&order.order_id)).collect();
    assert!(missed.is_empty(), "held throughout but missing in the pages: {missed:?}");
}

async fn batches_may_be_long(port: &dyn Admission) {
    let sale = sale(9_000);
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    let orders: Vec<_> = (0..4_321).map(|_| request(&sale, user_id())).collect();
    assert!(port.restore(sale.sale_id, 1, &orders[..617]).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
    port.settle(sale.sale_id, &orders).await.expect("store");
    assert_eq!(available(port, &sale).await, 9_000 - 4_321);
    port.release(
        sale.sale_id,
        &orders[..4_198].iter().map(|order| ended(order.order_id)).collect::<Vec<_>>(),
    )
    .await
    .expect("store");
    assert_held(port, sale.sale_id, 0, 123).await;
    for order in &orders[4_198..] {
        assert_eq!(
            find(port, order).await,
            Some(Reservation { order: order.clone(), settled: true })
        );
    }
    let watched: Vec<_> = (0..620).map(|_| claim(&sale, user_id())).collect();
    for claim in &watched {
        assert!(matches!(ask(port, claim).await, AdmissionDecision::Reserved(_)));
    }
    let claimed = port.claim_overdue(sale.sale_id, START, at(1), 610).await.expect("store");
    let mut ids: Vec<_> = claimed.iter().map(|reservation| reservation.order.order_id).collect();
    assert!(ids.is_sorted(), "of one age, by id");
    ids.dedup();
    assert_eq!(ids.len(), 610);
    assert_eq!(port.claim_overdue(sale.sale_id, START, at(2), 610).await.expect("store").len(), 10);
}
