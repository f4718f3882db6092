//! Changes of administrators and their trail: both or neither, whatever fails.

use std::sync::Arc;

use flashsale::{
    adapters::sqlite::Sqlite,
    domain::{
        ActionKind, AdmittedOrder, Ban, CreationKey, OrderId, OrderStatus, QueueMessage, Sale,
        SaleChange, Subject, Timestamp,
    },
    ports::{AdminLedger, BanLedger, OrderLedger, OrderQueue as _, Sales},
    testing::{self, START, Shop, TempDir},
};
use sqlx::Executor as _;

use super::{ledger::raw, sweeping::spied};

/// Makes every statement of a kind on a table fail.
async fn forbid(dir: &TempDir, what: &str) {
    let name = what.replace(' ', "_");
    let trigger =
        format!("CREATE TRIGGER {name} BEFORE {what} BEGIN SELECT RAISE(ABORT, 'forbidden'); END");
    raw(dir).await.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
}

async fn permit(dir: &TempDir, what: &str) {
    let drop = format!("DROP TRIGGER {}", what.replace(' ', "_"));
    raw(dir).await.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
}

/// Tries every change that notes an action; each must fail.
async fn change_in_vain(store: &Sqlite, sale: &Sale, order: OrderId) {
    let action = |kind| testing::action(kind);
    let once = CreationKey { key: "a".repeat(64), request: "b".repeat(64) };
    let new = testing::sale(1);
    assert!(store.create_once(&new, &once, &action(ActionKind::SaleCreated)).await.is_err());
    let change = SaleChange { stock: Some(9), ..SaleChange::default() };
    let changed =
        Sales::change(store, sale.sale_id, &change, &action(ActionKind::SaleChanged)).await;
    assert!(changed.is_err());
    let subject = Subject::address([192, 0, 2, 1].into());
    let ban = Ban { subject, reason: "a test".to_owned(), created_at: START, expires_at: None };
    assert!(BanLedger::put(store, &ban, &action(ActionKind::BanPut)).await.is_err());
    let cancellation = action(ActionKind::OrderCancelled);
    let cancelled = AdminLedger::cancel(store, order, None, "a test", &cancellation, START);
    assert!(cancelled.await.is_err());
}

#[tokio::test]
async fn a_change_and_its_action_are_stored_together_or_not_at_all() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    let sale = testing::sale(3);
    store.create(&sale).await.unwrap();
    let request = testing::request(&sale, testing::user_id());
    store.record(std::slice::from_ref(&request), START, 60_000).await.unwrap();
    let state = async || {
        let sales = Sales::list(&store, None, 10).await.unwrap();
        let order = OrderLedger::get(&store, request.order_id).await.unwrap();
        let bans = store.page(Timestamp::from_epoch_ms(0), None, 10).await.unwrap();
        (sales, order, bans)
    };
    let before = state().await;

    // The action can't be stored: nothing changes.
    forbid(&dir, "INSERT ON admin_actions").await;
    change_in_vain(&store, &sale, request.order_id).await;
    assert_eq!(state().await, before);
    permit(&dir, "INSERT ON admin_actions").await;

    // The change can't be stored: there is no action.
    let changes = ["INSERT ON sales", "UPDATE ON sales", "INSERT ON bans", "UPDATE ON orders"];
    for what in changes {
        forbid(&dir, what).await;
    }
    change_in_vain(&store, &sale, request.order_id).await;
    assert_eq!(store.actions(None, 10).await.unwrap(), []);
    for what in changes {
        permit(&dir, what).await;
    }

    // With neither in the way each is stored once, so the failures above had these causes.
    let action = testing::action(ActionKind::OrderCancelled);
    AdminLedger::cancel(&store, request.order_id, None, "a test", &action, START).await.unwrap();
    assert_eq!(store.actions(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_unit_comes_back_when_the_process_ends_right_after_an_administrator_s_cancellation() {
    let shop = Shop::without_captchas().await;
    let (sale, who) = (shop.sale(1).await, shop.shoppers(2).await);
    let order = shop.buy(&who[0], sale).await;
    shop.work().await;
    // The ledger's half is done, and then the process is gone.
    let action = testing::action(ActionKind::OrderCancelled);
    let now = shop.app.now();
    AdminLedger::cancel(&shop.store, order, None, "a test", &action, now).await.unwrap();
    let left = shop.app.ports.admission.find(sale, order).await.unwrap();
    assert!(left.is_some(), "the admission store does not know yet");
    shop.sweep().await;
    assert_eq!(shop.app.ports.admission.find(sale, order).await.unwrap(), None);
    let other = shop.buy(&who[1], sale).await;
    shop.work().await;
    assert_eq!(shop.status(&who[1], other).await, OrderStatus::Confirmed);
    // The shared cache is trusted for two seconds.
    shop.clock.advance_ms(3_000);
    let seen = shop.app.order(&who[0], order).await.unwrap();
    assert_eq!(seen.cancellation_reason.as_deref(), Some("a test"));
    shop.books_balance().await;
}

/// A message of the release before this one has no `address_prefix`.
#[tokio::test]
async fn messages_of_the_release_before_are_recorded() {
    let shop = Shop::without_captchas().await;
    let sale = shop.sale(1).await;
    let ledger: Arc<dyn AdminLedger> = Arc::new(shop.store.clone());
    let request = AdmittedOrder {
        sale_id: sale,
        price: 100,
        ..testing::request(&testing::sale(1), testing::user_id())
    };
    let message = QueueMessage { v: QueueMessage::VERSION, orders: vec![request.clone()] };
    let body = serde_json::to_value(&message).unwrap();
    assert_eq!(body["orders"][0].get("address_prefix"), None, "as before, where there is none");
    shop.store.publish(std::slice::from_ref(&request)).await.unwrap();
    shop.work().await;
    let (filter, sort) = (Default::default(), Default::default());
    let page = ledger.orders(sale, &filter, sort, None, 10).await.unwrap();
    assert_eq!(page.orders[0].order.status, OrderStatus::Confirmed);
    let signals = page.orders[0].signals();
    assert_eq!((signals.address_prefix, signals.order_after_ms), (None, Some(0)));
}

#[tokio::test]
async fn orders_of_a_large_sale_are_not_counted_for_every_console() {
    let (shop, orders) = spied(&[]).await;
    let (sale, shoppers, admin) = (shop.sale(2).await, shop.shoppers(2).await, shop.admin().await);
    let confirmed = async || {
        let stats = shop.app.sale_stats(&admin, sale).await.unwrap();
        (stats.orders.get("confirmed").copied().unwrap_or(0), orders.counted.calls())
    };
    let buy = async |who: usize| {
        shop.buy(&shoppers[who], sale).await;
        shop.work().await;
    };
    assert_eq!(confirmed().await, (0, 1));
    buy(0).await;
    assert_eq!(confirmed().await, (1, 1), "a quick count is made again");
    orders.count_slowly(shop.clock.clone(), 100);
    assert_eq!(confirmed().await, (1, 1));
    buy(1).await;
    shop.clock.advance_ms(1_999);
    assert_eq!(confirmed().await, (1, 0), "a slow one is used for 20 times as long as it took");
    orders.count_slowly(shop.clock.clone(), 5_000);
    shop.clock.advance_ms(1);
    assert_eq!(confirmed().await, (2, 1));
    shop.clock.advance_ms(29_999);
    assert_eq!(confirmed().await, (2, 0), "but for 30 s at most");
    shop.clock.advance_ms(1);
    assert_eq!(confirmed().await, (2, 1));
}
