//! Order status while stores fail, and the cost of a status request.

use std::sync::Arc;

use flashsale::{
    domain::{AdmissionState, OrderId, OrderStatus, SaleChange},
    ports::{Admission as _, OrderQueue as _},
    testing,
};

use crate::{
    app::{Shop, refused},
    spies::CountedCache,
    sweeping::spied,
};

/// Longer than the shared cache keeps a queued order.
const CACHE_LOST_MS: u64 = 60_001;

#[tokio::test]
async fn an_accepted_order_is_never_not_found_while_admission_is_lost_or_rebuilt() {
    let many = [
        ("CAPTCHA", "off"),
        ("LIMITS__ORDER_STATUS__LIMIT", "1000"),
        ("LIMITS__ORDER_STATUS__BURST", "1000"),
    ];
    let shop = Shop::open(&many).await;
    let who = &shop.shoppers(2).await;
    let (sale, other) = (shop.sale(5).await, shop.sale(5).await);
    let (order, elsewhere) = (shop.buy(&who[0], sale).await, shop.buy(&who[1], other).await);
    let made_up = OrderId::for_sale(shop.app.now(), sale, &[7; 10]);
    shop.clock.advance_ms(CACHE_LOST_MS);
    assert_eq!(shop.status(&who[0], order).await, OrderStatus::Queued, "found by its reservation");
    refused(shop.app.order(&who[0], made_up).await, "not-found");

    let in_doubt = async || {
        for id in [order, made_up] {
            refused(shop.app.order(&who[0], id).await, "unavailable");
            refused(shop.app.pay_order(&who[0], id).await, "unavailable");
            refused(shop.app.cancel_order(&who[0], id).await, "unavailable");
        }
        assert_eq!(shop.status(&who[1], elsewhere).await, OrderStatus::Queued, "of another sale");
        refused(
            shop.app.order(&who[0], OrderId::for_sale(shop.app.now(), other, &[7; 10])).await,
            "not-found",
        );
    };
    shop.clock.advance_ms(500);
    shop.admission.fail(sale);
    in_doubt().await;
    shop.admission.mend();
    shop.admission.lose(sale);
    in_doubt().await;
    shop.sweep().await;
    assert!(matches!(shop.admission.state(sale).await.unwrap(), AdmissionState::Rebuilding { .. }));
    in_doubt().await;
    shop.work().await;
    assert_eq!(
        shop.status(&who[0], order).await,
        OrderStatus::Confirmed,
        "at once: an uncertain answer is not cached"
    );
    for _ in 0..10 {
        shop.clock.advance_ms(2_000);
        shop.sweep().await;
        shop.work().await;
    }
    assert!(matches!(shop.admission.state(sale).await.unwrap(), AdmissionState::Open { .. }));
    refused(shop.app.order(&who[0], made_up).await, "not-found");
    shop.books_balance().await;
}

#[tokio::test]
async fn an_order_that_outlasts_its_sale_in_the_queue_is_never_not_found() {
    let shop = Shop::open(&[("CAPTCHA", "off"), ("SWEEPER__TAIL_SECONDS", "60")]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    let made_up = OrderId::for_sale(shop.app.now(), sale, &[7; 10]);
    // The sale ended long ago, and neither the shared cache nor the admission store still has the
    // order.
    let ends =
        SaleChange { ends_at: Some(shop.app.now().plus_ms(60_000)), ..SaleChange::default() };
    shop.app.change_sale(&shop.admin().await, sale, &ends).await.unwrap();
    shop.admission.lose(sale);
    shop.clock.advance_ms(600_000);
    let in_doubt = async || {
        for id in [order, made_up] {
            refused(shop.app.order(who, id).await, "unavailable");
            refused(shop.app.pay_order(who, id).await, "unavailable");
            refused(shop.app.cancel_order(who, id).await, "unavailable");
        }
    };
    in_doubt().await;
    shop.sweep().await;
    shop.clock.advance_ms(500);
    in_doubt().await;
    // A parked message may be retried.
    shop.store.park(b"nonsense", "a test").await.unwrap();
    assert_eq!(shop.work().await, 1);
    shop.sweep().await;
    shop.clock.advance_ms(500);
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
    refused(shop.app.order(who, made_up).await, "unavailable");
    let parked = shop.app.ports.dead_letters.list(1).await.unwrap();
    assert!(shop.app.ports.dead_letters.discard(&parked[0].id).await.unwrap());
    shop.sweep().await;
    shop.clock.advance_ms(500);
    refused(shop.app.order(who, made_up).await, "not-found");
    // The leader's statement is trusted for half a minute.
    shop.clock.advance_ms(29_500);
    refused(shop.app.order(who, made_up).await, "not-found");
    shop.clock.advance_ms(500);
    refused(shop.app.order(who, made_up).await, "unavailable");
}

#[tokio::test]
async fn old_made_up_orders_cost_one_look_at_the_shared_cache_in_half_a_second() {
    let cache = Arc::new(CountedCache::default());
    let settings = [("CAPTCHA", "off"), ("SWEEPER__TAIL_SECONDS", "60")];
    let shop = Shop::open_with(&settings, |ports| ports.cache = cache.clone()).await;
    let who = &shop.shoppers(1).await[0];
    let (sale, made_at) = (testing::sale_id(), shop.app.now());
    shop.clock.advance_ms(600_000);
    shop.sweep().await;
    let _ = (shop.admission.calls.calls(), cache.gets.calls());
    for n in 0..20 {
        refused(shop.app.order(who, OrderId::for_sale(made_at, sale, &[n; 10])).await, "not-found");
    }
    assert_eq!(
        (shop.admission.calls.calls(), cache.gets.calls()),
        (0, 20 + 1),
        "one look-up per id, and one of the queue for all"
    );
}

#[tokio::test]
async fn a_made_up_order_costs_no_call_per_sale_and_is_remembered() {
    let (shop, ledger) = spied(&[]).await;
    let who = &shop.shoppers(2).await;
    let mut sales = Vec::new();
    for _ in 0..150 {
        sales.push(shop.sale(1).await);
    }
    let cost = async |id: OrderId| {
        let _ = (shop.admission.calls.calls(), ledger.got.calls());
        refused(shop.app.order(&who[0], id).await, "not-found");
        (shop.admission.calls.calls(), ledger.got.calls())
    };
    let of_none = loop {
        let id = testing::order_id();
        if !sales.iter().any(|sale| id.may_be_of(*sale)) {
            break id;
        }
    };
    assert_eq!(cost(of_none).await, (0, 1));
    // The sale's last bytes are public, so a client can invent an id of its orders. Other sales
    // rarely share them.
    let sharing =
        sales.iter().filter(|sale| sales[149].as_bytes()[14..] == sale.as_bytes()[14..]).count();
    let of_one = OrderId::for_sale(shop.app.now(), sales[149], &[7; 10]);
    assert_eq!(cost(of_one).await, (2 * sharing, 1));
    shop.clock.advance_ms(499);
    for id in [of_none, of_one] {
        assert_eq!(cost(id).await, (0, 0));
    }
    shop.clock.advance_ms(1);
    assert_eq!(cost(of_one).await.1, 1);

    // Another user's order is not found either, while its owner finds it.
    let order = shop.buy(&who[1], sales[0]).await;
    refused(shop.app.order(&who[0], order).await, "not-found");
    assert_eq!(shop.status(&who[1], order).await, OrderStatus::Queued);
}

#[tokio::test]
async fn a_queued_order_is_read_from_the_ledger_twice_a_second_at_most() {
    let (shop, ledger) = spied(&[]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    let _ = ledger.got.calls();
    for _ in 0..20 {
        assert_eq!(shop.status(who, order).await, OrderStatus::Queued);
        shop.clock.advance_ms(100);
    }
    assert_eq!(
        ledger.got.calls(),
        1,
        "the first 1.5 seconds need no look, and then one serves for half a second"
    );
    for _ in 0..20 {
        assert_eq!(shop.status(who, order).await, OrderStatus::Queued);
        shop.clock.advance_ms(100);
    }
    assert_eq!(ledger.got.calls(), 4);
    // The worker's update is visible at once, despite cached answers.
    shop.status(who, order).await;
    shop.work().await;
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
}

#[tokio::test]
async fn an_order_that_was_missed_is_there_with_its_202() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let ticket = shop.app.issue_ticket(who, sale, None).await.unwrap();
    assert!(ticket.order_id.may_be_of(sale));
    refused(shop.app.order(who, ticket.order_id).await, "not-found");
    assert_eq!(shop.order(who, sale, &ticket.ticket).await.unwrap(), ticket.order_id);
    assert_eq!(shop.status(who, ticket.order_id).await, OrderStatus::Queued);
}
