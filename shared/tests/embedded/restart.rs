//! The state after a restart on the embedded stores: the admission store was in the previous
//! process's memory.

use flashsale::{
    domain::{AdmissionDecision, AdmissionState, OrderId, OrderStatus, QueueDepth},
    ports::{Admission as _, OrderQueue as _, OrderSource as _},
    testing::{self, Claim},
};

use crate::{
    app::{Shop, refused},
    ledger::raw,
};

const SETTINGS: [(&str, &str); 1] = [("CAPTCHA", "off")];

/// The same shop after a restart of its process.
async fn restarted(shop: Shop) -> Shop {
    let (dir, clock) = shop.end();
    Shop::open_in(dir, clock, &SETTINGS, |_| {}).await
}

#[tokio::test]
async fn with_nothing_in_the_queue_a_sale_is_open_at_once() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let ticket = shop.ticket(&who[0], sale).await.unwrap();
    let order = shop.order(&who[0], sale, &ticket).await.unwrap();
    shop.work().await;
    let shop = restarted(shop).await;
    assert_eq!(shop.memory.state(sale).await.unwrap(), AdmissionState::Missing);
    assert_eq!(shop.app.open_admission().await.unwrap(), 0, "in one step, without time passing");
    refused(shop.ticket(&who[0], sale).await, "already-bought");
    refused(shop.ticket(&who[1], sale).await, "sold-out");
    assert_eq!(shop.order(&who[0], sale, &ticket).await.unwrap(), order);
    shop.books_balance().await;
    // The sweeper's first tick alone does the same.
    let shop = restarted(shop).await;
    let swept = shop.sweep().await;
    assert_eq!((swept.rebuilt, swept.rebuilding), (2, 0));
    refused(shop.ticket(&who[0], sale).await, "already-bought");
    shop.books_balance().await;
}

#[tokio::test]
async fn an_order_in_the_queue_keeps_its_unit_and_only_what_was_left_is_waited_for() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(3).await, shop.sale(1).await);
    let ticket = shop.ticket(&who[0], sale).await.unwrap();
    let late = shop.ticket(&who[1], sale).await.unwrap();
    let order = shop.order(&who[0], sale, &ticket).await.unwrap();
    let shop = restarted(shop).await;
    assert_eq!(shop.app.open_admission().await.unwrap(), 1);
    refused(shop.order(&who[1], sale, &late).await, "not-durable-yet");
    refused(shop.order(&who[0], sale, &ticket).await, "not-durable-yet");
    refused(shop.ticket(&who[1], sale).await, "unavailable");
    refused(shop.app.order(&who[0], order).await, "unavailable");
    // The rebuild does not wait for orders of this process.
    let other = shop.sale(1).await;
    shop.buy(&who[2], other).await;
    assert_eq!(shop.app.open_admission().await.unwrap(), 1);
    let left = shop.store.receive(1, 10).await.unwrap();
    shop.app.record_messages(&[left[0].body.clone()]).await.unwrap();
    assert_eq!(shop.app.open_admission().await.unwrap(), 1, "recorded, but not acknowledged");
    shop.store.ack(&[left[0].tag]).await.unwrap();
    assert_eq!(shop.app.open_admission().await.unwrap(), 0);
    assert_eq!(shop.store.depth().await.unwrap(), QueueDepth { waiting: 1, parked: 0 });
    // A successful buyer never receives `sold-out`.
    assert_eq!(shop.order(&who[0], sale, &ticket).await.unwrap(), order);
    refused(shop.ticket(&who[0], sale).await, "already-bought");
    refused(shop.order(&who[1], sale, &late).await, "sold-out");
    assert_eq!(shop.status(&who[0], order).await, OrderStatus::Confirmed);
    shop.work().await;
    shop.books_balance().await;
}

#[tokio::test]
async fn a_unit_that_was_reserved_and_never_published_is_free_again() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let (now, user_id) = (shop.app.now(), who[0].session.user_id);
    let order_id = OrderId::for_sale(now, sale, &[7; 10]);
    let claim = Claim::new(sale, order_id, user_id, now);
    let decision = shop.memory.reserve(&claim.request(), now).await.unwrap();
    assert!(matches!(decision, AdmissionDecision::Reserved(_)));
    let shop = restarted(shop).await;
    assert_eq!(shop.app.open_admission().await.unwrap(), 0);
    shop.buy(&who[1], sale).await;
    shop.work().await;
    shop.books_balance().await;
}

#[tokio::test]
async fn what_never_leaves_the_queue_is_waited_for_the_longest_time() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    shop.buy(who, sale).await;
    let shop = restarted(shop).await;
    shop.sweep().await;
    shop.clock.advance_ms(19_999);
    let swept = shop.sweep().await;
    assert_eq!((swept.rebuilt, swept.rebuilding), (0, 1));
    let books = shop.app.sale_books(&shop.admin().await, sale).await.unwrap();
    assert_eq!(books.findings.len(), 1, "{:?}", books.findings);
    assert!(
        books.findings[0].what.contains("has not been rebuilt"),
        "the sweeping process has not rebuilt it"
    );
    shop.clock.advance_ms(1);
    assert_eq!(shop.sweep().await.rebuilt, 1);
}

#[tokio::test]
async fn an_audit_without_a_sweeper_finds_what_the_ledger_shows_and_nothing_else() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(2).await, shop.sale(5).await);
    shop.buy(&who[0], sale).await;
    shop.work().await;
    shop.buy(&who[1], sale).await;
    let shop = restarted(shop).await;
    let books = shop.app.sale_books(&shop.admin().await, sale).await.unwrap();
    assert!(books.findings.is_empty(), "{:?}", books.findings);
    assert_eq!((books.available, books.reserved, books.sold), (4, 0, 1));
    let broken = sqlx::query("UPDATE sales SET sold = 3");
    broken.execute(&mut raw(&shop.dir).await).await.unwrap();
    let books = shop.app.sale_books(&shop.admin().await, sale).await.unwrap();
    let [finding] = books.findings.as_slice() else { panic!("{:?}", books.findings) };
    assert_eq!(finding.promise, 1);
    assert_eq!(finding.what, "1 active orders, but the sale says 3 sold");
}

#[tokio::test]
async fn many_sales_are_opened() {
    let shop = Shop::open(&SETTINGS).await;
    for _ in 0..220 {
        let sale = testing::sale(1);
        shop.app.ports.sales.create(&sale).await.unwrap();
    }
    shop.clock.advance_ms(1);
    assert_eq!(shop.app.open_admission().await.unwrap(), 0, "other processes may publish");
    let shop = restarted(shop).await;
    assert_eq!(shop.app.open_admission().await.unwrap(), 0);
    let sales = shop.app.ports.sales.list(None, 1_000).await.unwrap();
    assert_eq!(sales.len(), 220);
    for sale in sales {
        let state = shop.memory.state(sale.sale_id).await.unwrap();
        assert!(matches!(state, AdmissionState::Open { .. }), "{state:?}");
    }
}
