//! The sweeper and the auditor when one sale fails, when clocks differ, and when sales are large or
//! ended long ago.

use std::sync::Arc;

use flashsale::{
    adapters::memory::MemoryAdmission,
    domain::{AdmissionState, AdmittedOrder, OrderStatus, SaleId},
    ports::{Admission as _, LedgerClock, OrderLedger as _, OrderQueue as _, OrderSource as _},
    testing::{self, ManualClock, START, request, user_id},
};

use crate::{
    app::Shop,
    spies::{SilentCache, SpiedAdmission, SpiedOrders},
};

const DAY_MS: u64 = 86_400_000;

/// A shop and a spy on its ledger's orders.
pub async fn spied(settings: &[(&str, &str)]) -> (Shop, Arc<SpiedOrders>) {
    let mut spy = None;
    let settings = [&[("CAPTCHA", "off")], settings].concat();
    let shop = Shop::open_with(&settings, |ports| {
        let orders = Arc::new(SpiedOrders::new(ports.orders.clone()));
        ports.orders = orders.clone();
        spy = Some(orders);
    })
    .await;
    (shop, spy.unwrap())
}

async fn available(shop: &Shop, sale: SaleId) -> u32 {
    match shop.app.ports.admission.state(sale).await.unwrap() {
        AdmissionState::Open { stock, reserved, settled, .. } => stock - reserved - settled,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sale_whose_store_fails_does_not_keep_the_units_of_others() {
    let (shop, _) = spied(&[("SWEEPER__BATCH_MAX", "2")]).await;
    let shoppers = shop.shoppers(24).await;
    let (broken, healthy) = (shop.sale(23).await, shop.sale(1).await);
    for who in &shoppers[..23] {
        shop.buy(who, broken).await;
    }
    shop.buy(&shoppers[23], healthy).await;
    shop.work().await;
    shop.clock.advance_ms(900_000);
    while !shop.app.ports.orders.expire_due(shop.app.now(), 100).await.unwrap().is_empty() {}
    shop.admission.fail(broken);
    let mut ticks = 0;
    while available(&shop, healthy).await == 0 {
        let swept = shop.app.sweep().await.unwrap();
        assert!(swept.failed > 0, "failures are counted");
        ticks += 1;
        assert!(ticks <= 3, "two pages of orders come before the other sale's");
    }
    shop.admission.mend();
    while available(&shop, broken).await < 23 {
        shop.sweep().await;
        ticks += 1;
        assert!(ticks <= 9, "the failed orders are tried again");
    }
}

#[tokio::test]
async fn a_sale_whose_orders_can_not_expire_does_not_hold_up_others() {
    let (shop, orders) = spied(&[]).await;
    let shoppers = shop.shoppers(2).await;
    let (broken, healthy) = (shop.sale(1).await, shop.sale(1).await);
    let stuck = shop.buy(&shoppers[0], broken).await;
    let order = shop.buy(&shoppers[1], healthy).await;
    shop.work().await;
    orders.never_expire(broken);
    shop.clock.advance_ms(900_000);
    let swept = shop.app.sweep().await.unwrap();
    assert_eq!((swept.expired, swept.returned), (1, 1));
    assert!(swept.failed > 0);
    assert_eq!(shop.status(&shoppers[1], order).await, OrderStatus::Expired);
    assert_eq!(shop.status(&shoppers[0], stuck).await, OrderStatus::Confirmed);
}

#[tokio::test]
async fn a_sale_that_fails_does_not_hold_up_the_sweep_of_others() {
    let shop = Shop::without_captchas().await;
    let shoppers = shop.shoppers(2).await;
    let (broken, healthy) = (shop.sale(1).await, shop.sale(1).await);
    for (who, sale) in shoppers.iter().zip([broken, healthy]) {
        shop.buy(who, sale).await;
    }
    let lost = shop.store.receive(10, 10).await.unwrap();
    shop.store.ack(&lost.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    shop.clock.advance_ms(5_001);
    shop.admission.fail(broken);
    let swept = shop.app.sweep().await.unwrap();
    assert_eq!((swept.republished, swept.failed), (1, 1));
    shop.admission.mend();
    assert_eq!(shop.sweep().await.republished, 1);
}

#[tokio::test]
async fn a_process_whose_clock_is_wrong_does_not_lead_and_expires_nothing() {
    let ledger_clock = Arc::new(ManualClock::at(START));
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        ports.ledger_clock = ledger_clock.clone() as Arc<dyn LedgerClock>
    })
    .await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    shop.work().await;
    assert!(shop.sweep().await.leader);
    // The clock jumps sixteen minutes ahead: by this clock the order is overdue.
    shop.clock.set_by_ms(960_000);
    let swept = shop.sweep().await;
    assert_eq!((swept.leader, swept.clock_wrong, swept.expired), (false, true, 0));
    assert_eq!(shop.app.clock_fault().await.unwrap(), Some(960_000));
    let other = shop.another();
    assert!(other.sweep().await.unwrap().clock_wrong, "also one that has just started");
    shop.clock.set_by_ms(-960_000 - 2_001);
    assert!(shop.sweep().await.clock_wrong, "behind by more than two seconds");
    shop.clock.set_by_ms(1);
    // A comparison is reused for ten seconds, because the clock was set by only 1 ms since.
    for _ in 0..2 {
        shop.clock.advance_ms(10_000);
        ledger_clock.advance_ms(10_000);
        let swept = shop.sweep().await;
        assert_eq!(
            (swept.leader, swept.clock_wrong, swept.expired),
            (true, false, 0),
            "two seconds are tolerated"
        );
    }
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
}

#[tokio::test]
async fn a_leader_whose_clock_goes_wrong_leaves_the_lead_to_another() {
    let ledger_clock = Arc::new(ManualClock::at(START));
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        ports.ledger_clock = ledger_clock.clone() as Arc<dyn LedgerClock>
    })
    .await;
    let mut ports = shop.app.ports.clone();
    ports.clock = ledger_clock.clone();
    let other = flashsale::app::App::new(shop.app.config.clone(), ports).unwrap();
    assert!(shop.sweep().await.leader);
    assert!(!other.sweep().await.unwrap().leader);
    shop.clock.set_by_ms(-60_000);
    assert!(!shop.sweep().await.leader);
    assert!(other.sweep().await.unwrap().leader, "at once, before the lease expires");
}

#[tokio::test]
async fn a_clock_set_back_does_not_put_off_reconciling() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(2).await);
    shop.buy(who, sale).await;
    shop.work().await;
    assert_eq!(shop.sweep().await.reconciled, 0);
    // An order that the admission store does not know.
    let row = shop.app.ports.sales.get(sale).await.unwrap().unwrap();
    shop.app
        .ports
        .orders
        .record(&[request(&row, user_id())], shop.app.now(), 900_000)
        .await
        .unwrap();
    shop.clock.set_by_ms(-600_000);
    let mut reconciled = 0;
    for _ in 0..3 {
        shop.clock.advance_ms(5_000);
        reconciled += shop.sweep().await.reconciled;
    }
    assert_eq!(reconciled, 1);
    shop.books_balance().await;
}

/// Records `count` orders of a sale without the admission store.
async fn record_many(shop: &Shop, sale: SaleId, count: usize) {
    let row = shop.app.ports.sales.get(sale).await.unwrap().unwrap();
    let all: Vec<_> = (0..count).map(|_| request(&row, user_id())).collect();
    for some in all.chunks(1_000) {
        shop.app.ports.orders.record(some, shop.app.now(), 86_400_000).await.unwrap();
    }
}

#[tokio::test]
async fn a_large_sale_is_compared_page_by_page_over_several_ticks() {
    const ORDERS: usize = 12_000;
    const ENDED: usize = 1_500;
    let memory = Arc::new(MemoryAdmission::default());
    let mut spies = None;
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        let (admission, orders) = (
            Arc::new(SpiedAdmission::new(memory.clone())),
            Arc::new(SpiedOrders::new(ports.orders.clone())),
        );
        ports.admission = admission.clone();
        ports.orders = orders.clone();
        spies = Some((admission, orders));
    })
    .await;
    let (admission, orders) = spies.unwrap();
    let sale = shop.sale(u32::try_from(ORDERS).unwrap() + 10).await;
    record_many(&shop, sale, ORDERS).await;
    let (mut ticks, mut reconciled, mut compared) = (0, 0, 0);
    while reconciled < u32::try_from(ORDERS).unwrap() {
        shop.clock.advance_ms(5_000);
        reconciled += shop.sweep().await.reconciled;
        let pages = admission.pages.calls() + orders.active.calls();
        assert!(pages <= 20, "{pages} pages in one tick");
        compared += usize::from(pages > 0);
        ticks += 1;
        assert!(ticks < 20);
    }
    assert!(compared >= 2, "it continued where it stopped: {compared}");
    // The other direction: some of them end without the admission store, and their units are not
    // returned.
    let mut after = None;
    let mut ended = 0;
    while ended < ENDED {
        let page = orders.active(sale, after, 500).await.unwrap();
        let page: Vec<_> = page.into_iter().map(|row| row.order).collect();
        after = page.last().map(|order| order.order_id);
        for order in &page {
            shop.app
                .ports
                .orders
                .cancel(order.order_id, order.user_id, None, shop.app.now())
                .await
                .unwrap();
        }
        let ids: Vec<_> = page.iter().map(|order| order.order_id).collect();
        shop.app.ports.orders.mark_stock_returned(&ids, shop.app.now()).await.unwrap();
        ended += page.len();
    }
    orders.active.calls();
    let mut released = 0;
    while (released as usize) < ended {
        shop.clock.advance_ms(5_000);
        released += shop.sweep().await.reconciled;
        let pages = admission.pages.calls() + orders.active.calls();
        assert!(pages <= 20, "{pages} pages in one tick");
        ticks += 1;
        assert!(ticks < 60);
    }
    let books = shop.app.audit().await.unwrap();
    assert!(books[0].findings.is_empty(), "{:?}", books[0].findings);
    for most in [
        admission.pages.most(),
        admission.found.most(),
        orders.active.most(),
        orders.got_many.most(),
    ] {
        assert!((1..=500).contains(&most), "a page is all that is asked for at once: {most}");
    }
}

#[tokio::test]
async fn the_auditor_names_what_differs_and_counts_it() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(1).await, shop.sale(100).await);
    record_many(&shop, sale, 30).await;
    let order = shop.buy(&shoppers[0], sale).await;
    shop.work().await;
    // One ended order whose unit is still held, and thirty active orders without a held unit.
    shop.app
        .ports
        .orders
        .cancel(order, shoppers[0].session.user_id, None, shop.app.now())
        .await
        .unwrap();
    let books = shop.app.sale_books(&shop.admin().await, sale).await.unwrap();
    let [unheld, leaked] = books.findings.as_slice() else { panic!("{:?}", books.findings) };
    assert_eq!((unheld.promise, unheld.ids.len()), (4, 20));
    assert!(unheld.what.starts_with("30 active orders"), "{}", unheld.what);
    assert_eq!((leaked.promise, &leaked.ids), (4, &vec![order.to_string()]));
    assert!(leaked.what.starts_with("1 units held"), "{}", leaked.what);
}

#[tokio::test]
async fn the_auditor_looks_again_before_it_reports_what_moves() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    shop.work().await;
    // The unit of an order that has just ended is returned during the audit.
    shop.app.ports.orders.cancel(order, who.session.user_id, None, shop.app.now()).await.unwrap();
    let admin = shop.admin().await;
    let (books, ()) = futures_util::join!(shop.app.sale_books(&admin, sale), async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        shop.sweep().await;
    });
    assert!(books.unwrap().findings.is_empty());
}

#[tokio::test]
async fn a_reservation_of_a_sale_that_ended_long_ago_is_settled() {
    let shop = Shop::without_captchas().await;
    // Enough sales that the ended ones take several ticks.
    let mut sales = Vec::new();
    for _ in 0..45 {
        sales.push(shop.sale(1).await);
    }
    let (first, last) = (sales[0], sales[44]);
    let shoppers = shop.shoppers(2).await;
    let orders = [shop.buy(&shoppers[0], first).await, shop.buy(&shoppers[1], last).await];
    // The order is never published, and no sweep runs for three days.
    let lost = shop.store.receive(10, 10).await.unwrap();
    shop.store.ack(&lost.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    shop.clock.advance_ms(3 * DAY_MS);
    let books = shop.app.audit().await.unwrap();
    assert_eq!(
        books.iter().filter(|sale| !sale.findings.is_empty()).count(),
        2,
        "the books do not balance"
    );
    let mut republished = 0;
    for _ in 0..3 {
        republished += shop.sweep().await.republished;
        shop.clock.advance_ms(1_000);
    }
    assert_eq!(republished, 2);
    shop.work().await;
    let [one, two] = [
        shop.app.ports.orders.get(orders[0]).await.unwrap(),
        shop.app.ports.orders.get(orders[1]).await.unwrap(),
    ];
    assert!(one.unwrap().status.is_active() && two.unwrap().status.is_active());
    shop.sweep().await;
    shop.books_balance().await;
}

#[tokio::test]
async fn a_rebuild_waits_for_publishes_under_way_whoever_begins_and_ends_it() {
    let memory = Arc::new(MemoryAdmission::default());
    let shop =
        Shop::open_with(&[("CAPTCHA", "off")], |ports| ports.admission = memory.clone()).await;
    let sale = shop.sale(1).await;
    let is_open = async || matches!(memory.state(sale).await.unwrap(), AdmissionState::Open { .. });
    memory.lose_everything();
    shop.sweep().await;
    shop.clock.advance_ms(8_000);
    shop.sweep().await;
    assert!(!is_open().await, "a publish may take longer");
    shop.app.stop_sweeping().await.unwrap();
    // Another process continues; it knows the start of the rebuild only by the first process's
    // clock.
    let other = shop.another();
    shop.clock.advance_ms(500);
    assert!(other.sweep().await.unwrap().leader);
    assert!(!is_open().await);
    shop.clock.advance_ms(8_500);
    assert!(other.sweep().await.unwrap().leader);
    assert!(is_open().await, "an embedded queue knows at once that it is empty");
    // The longest wait counts from the start of the rebuild, whichever process leads.
    shop.store
        .publish(&[request(&shop.app.ports.sales.get(sale).await.unwrap().unwrap(), user_id())])
        .await
        .unwrap();
    memory.lose_everything();
    other.sweep().await.unwrap();
    shop.clock.advance_ms(19_999);
    other.sweep().await.unwrap();
    assert!(!is_open().await, "the rebuild waits for the order in the queue");
    shop.clock.advance_ms(1);
    assert!(shop.another().sweep().await.is_ok_and(|swept| !swept.leader));
    other.sweep().await.unwrap();
    assert!(is_open().await);
}

#[tokio::test]
async fn a_silent_shard_of_the_stores_holds_a_batch_up_for_a_moment_only() {
    let cache = Arc::new(SilentCache::default());
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| ports.cache = cache.clone()).await;
    let who = shop.shoppers(3).await;
    let (silent, sound) = (shop.sale(1).await, shop.sale(1).await);
    let orders = [shop.buy(&who[0], silent).await, shop.buy(&who[1], sound).await];
    // The ledger rejects it because the unit is taken, so it must be released.
    let late = AdmittedOrder {
        sale_id: silent,
        price: 100,
        ..request(&testing::sale(1), who[2].session.user_id)
    };
    shop.store.publish(std::slice::from_ref(&late)).await.unwrap();
    shop.admission.silence(silent);
    cache.silence(true);
    let work = tokio::time::timeout(std::time::Duration::from_secs(30), shop.work());
    assert_eq!(work.await.expect("the batch is acknowledged although one shard is silent"), 3);
    cache.silence(false);
    let settled = async |sale, order| shop.memory.find(sale, order).await.unwrap().unwrap().settled;
    assert_eq!([settled(silent, orders[0]).await, settled(sound, orders[1]).await], [false, true]);
    shop.admission.mend();
    shop.clock.advance_ms(5_001);
    assert_eq!(shop.sweep().await.settled, 1);
    assert_eq!(shop.status(&who[0], orders[0]).await, OrderStatus::Confirmed);
    shop.books_balance().await;
}
