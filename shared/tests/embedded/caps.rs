//! The two caps of a sale: how often a user may give up an order, and how many units one network
//! gets.

use flashsale::{
    api::NewSale,
    app::Caller,
    domain::{OrderId, OrderStatus, Patch, SaleChange, SaleId},
    ports::{Admission as _, OrderSource as _},
    testing::{START, client_at, ended, network},
};
use sqlx::Executor as _;

use crate::{
    app::{Shop, refused},
    ledger::raw,
};

const SETTINGS: [(&str, &str); 1] = [("CAPTCHA", "off")];

/// The user at an address.
fn at(who: &Caller, address: &str) -> Caller {
    Caller { client: client_at(address), ..who.clone() }
}

/// A sale of which one network gets at most `units_per_prefix` units.
async fn limited(shop: &Shop, stock: u32, units_per_prefix: u32) -> SaleId {
    let new = NewSale {
        units_per_prefix: Some(units_per_prefix),
        ..NewSale::new("Phone", 100, stock, START..START.plus_ms(86_400_000))
    };
    shop.app.create_sale(new).await.unwrap().sale_id
}

/// The user buys a unit, and the ledger has the order.
async fn bought(shop: &Shop, who: &Caller, sale: SaleId) -> OrderId {
    let order = shop.buy(who, sale).await;
    shop.work().await;
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
    order
}

/// The admission store loses everything, and is rebuilt.
async fn lose_and_rebuild(shop: &Shop) {
    shop.memory.lose_everything();
    for _ in 0..2 {
        shop.sweep().await;
        shop.clock.advance_ms(8_500);
    }
    shop.sweep().await;
}

#[tokio::test]
async fn who_cancels_three_times_gets_no_further_unit() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(2).await, shop.sale(5).await);
    let early = shop.ticket(&who[0], sale).await.unwrap();
    let mut last = (String::new(), None);
    for recorded in [true, false, true] {
        let ticket = shop.ticket(&who[0], sale).await.unwrap();
        let order = shop.order(&who[0], sale, &ticket).await.unwrap();
        if recorded {
            shop.work().await;
        }
        shop.app.cancel_order(&who[0], order).await.unwrap();
        shop.clock.advance_ms(5_000);
        last = (ticket, Some(order));
    }
    refused(shop.ticket(&who[0], sale).await, "too-many-attempts");
    refused(shop.order(&who[0], sale, &early).await, "too-many-attempts");
    assert_eq!(shop.order(&who[0], sale, &last.0).await.ok(), last.1, "the retry of an order");
    // Repetitions count nothing, and the user buys elsewhere, as others do here.
    shop.work().await;
    shop.sweep().await;
    shop.buy(&who[1], sale).await;
    let elsewhere = shop.sale(1).await;
    shop.buy(&who[0], elsewhere).await;
    shop.work().await;
    shop.books_balance().await;
}

#[tokio::test]
async fn what_expires_counts_and_what_others_end_does_not() {
    let shop = Shop::open(&[("CAPTCHA", "off"), ("ORDERS__ATTEMPTS_MAX", "1")]).await;
    let (who, sale) = (shop.shoppers(3).await, shop.sale(3).await);
    // An administrator cancels, a recorded order and one that is only queued.
    let admin = shop.admin().await;
    for recorded in [true, false] {
        let order = shop.buy(&who[0], sale).await;
        if recorded {
            shop.work().await;
        }
        shop.app.cancel_order_of_anybody(&admin, order, "a test").await.unwrap();
        shop.work().await;
    }
    // The ledger rejects: the admission store has lost the orders that hold the units.
    let one = shop.sale(1).await;
    bought(&shop, &who[1], one).await;
    let holder = shop.app.ports.orders.active(one, None, 9).await.unwrap().remove(0);
    shop.memory.release(one, &[ended(holder.order.order_id)]).await.unwrap();
    let rejected = shop.buy(&who[0], one).await;
    shop.work().await;
    assert_eq!(shop.status(&who[0], rejected).await, OrderStatus::Rejected);
    shop.clock.advance_ms(300);
    shop.ticket(&who[0], one).await.unwrap();
    // None of these has counted; an order that is not paid does.
    let order = bought(&shop, &who[0], sale).await;
    shop.clock.advance_ms(900_000);
    let swept = shop.sweep().await;
    assert!(swept.expired >= 1 && swept.returned >= 1, "{swept:?}");
    assert_eq!(shop.status(&who[0], order).await, OrderStatus::Expired);
    refused(shop.ticket(&who[0], sale).await, "too-many-attempts");
}

#[tokio::test]
async fn without_the_limit_a_user_may_cancel_for_ever() {
    let shop = Shop::open(&[("CAPTCHA", "off"), ("ORDERS__ATTEMPTS_MAX", "0")]).await;
    let (who, sale) = (shop.shoppers(1).await, shop.sale(1).await);
    for _ in 0..5 {
        let order = bought(&shop, &who[0], sale).await;
        shop.app.cancel_order(&who[0], order).await.unwrap();
        shop.clock.advance_ms(5_000);
    }
    shop.buy(&who[0], sale).await;
}

#[tokio::test]
async fn attempts_are_counted_again_after_a_loss() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(2).await, shop.sale(5).await);
    let admin = shop.admin().await;
    for user in &who {
        for given_up in 1..=3 {
            let order = bought(&shop, user, sale).await;
            // The second user gives up two only.
            if user.session.user_id == who[1].session.user_id && given_up == 3 {
                shop.app.cancel_order_of_anybody(&admin, order, "a test").await.unwrap();
            } else {
                shop.app.cancel_order(user, order).await.unwrap();
            }
            shop.clock.advance_ms(5_000);
        }
    }
    for _ in 0..2 {
        lose_and_rebuild(&shop).await;
        let given_up = async |who: &Caller| {
            let look = shop.memory.look(sale, who.session.user_id, None).await.unwrap();
            look.unwrap().given_up
        };
        assert_eq!((given_up(&who[0]).await, given_up(&who[1]).await), (3, 2));
        refused(shop.ticket(&who[0], sale).await, "too-many-attempts");
        shop.ticket(&who[1], sale).await.unwrap();
    }
    // An embedded process begins without the admission store's memory.
    let (dir, clock) = shop.end();
    let shop = Shop::open_in(dir, clock, &SETTINGS, |_| {}).await;
    assert_eq!(shop.app.open_admission().await.unwrap(), 0);
    refused(shop.ticket(&who[0], sale).await, "too-many-attempts");
    shop.buy(&who[1], sale).await;
    shop.work().await;
    shop.books_balance().await;
}

#[tokio::test]
async fn one_network_gets_no_more_units_than_the_sale_allows() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(5).await, limited(&shop, 5, 2).await);
    let page = shop.app.sale_page(&shop.client, sale).await.unwrap();
    assert_eq!(page.units_per_prefix, Some(2));
    let near = |n: usize| at(&who[n], &format!("198.51.100.{n}"));
    let early = shop.ticket(&near(2), sale).await.unwrap();
    let first = bought(&shop, &near(0), sale).await;
    bought(&shop, &near(1), sale).await;
    refused(shop.ticket(&near(3), sale).await, "network-sold-out");
    refused(shop.order(&near(2), sale, &early).await, "network-sold-out");
    refused(shop.ticket(&near(0), sale).await, "already-bought");
    // What counts is the address of the order's request, not of the ticket's.
    let elsewhere = at(&who[2], "203.0.113.1");
    shop.order(&elsewhere, sale, &early).await.unwrap();
    let ticket = shop.ticket(&at(&who[3], "203.0.113.2"), sale).await.unwrap();
    refused(shop.order(&near(3), sale, &ticket).await, "network-sold-out");
    shop.app.cancel_order(&near(0), first).await.unwrap();
    shop.order(&near(3), sale, &ticket).await.unwrap();
    refused(shop.ticket(&near(4), sale).await, "network-sold-out");
    shop.work().await;
    shop.books_balance().await;
}

#[tokio::test]
async fn a_network_s_units_are_counted_again_after_a_loss() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(4).await, limited(&shop, 9, 3).await);
    let near = |n: usize| at(&who[n], "2001:db8:1:2::1");
    bought(&shop, &near(0), sale).await;
    // One order is published again from its reservation, because its message was lost.
    let published_again = shop.buy(&near(1), sale).await;
    let lost = shop.store.receive(10, 10).await.unwrap();
    let tags: Vec<_> = lost.iter().map(|delivery| delivery.tag).collect();
    shop.store.ack(&tags).await.unwrap();
    shop.clock.advance_ms(5_001);
    assert_eq!(shop.sweep().await.republished, 1);
    shop.work().await;
    let cancelled = bought(&shop, &near(2), sale).await;
    shop.app.cancel_order(&near(2), cancelled).await.unwrap();
    let active = shop.app.ports.orders.active(sale, None, 10).await.unwrap();
    assert_eq!(active.len(), 2);
    for row in active {
        assert_eq!(row.origin.address_prefix, Some(network("2001:db8:1::")));
    }
    assert_eq!(shop.status(&near(1), published_again).await, OrderStatus::Confirmed);
    for _ in 0..2 {
        lose_and_rebuild(&shop).await;
        shop.ticket(&near(3), sale).await.unwrap();
    }
    bought(&shop, &near(3), sale).await;
    lose_and_rebuild(&shop).await;
    refused(shop.ticket(&near(2), sale).await, "network-sold-out");
    shop.ticket(&at(&who[2], "2001:db8:2::1"), sale).await.unwrap();
    shop.books_balance().await;
}

#[tokio::test]
async fn a_sale_without_its_limit_sells_to_one_network_again() {
    let shop = Shop::open(&SETTINGS).await;
    let (who, sale) = (shop.shoppers(3).await, limited(&shop, 3, 1).await);
    bought(&shop, &who[0], sale).await;
    refused(shop.ticket(&who[1], sale).await, "network-sold-out");
    let change = SaleChange { units_per_prefix: Patch::Remove, ..SaleChange::default() };
    shop.app.change_sale(&shop.admin().await, sale, &change).await.unwrap();
    let page = shop.app.sale_page(&shop.client, sale).await.unwrap();
    assert_eq!(page.units_per_prefix, None);
    bought(&shop, &who[1], sale).await;
    // A rebuild takes the sale's terms from the ledger.
    lose_and_rebuild(&shop).await;
    bought(&shop, &who[2], sale).await;
    shop.books_balance().await;
}

#[tokio::test]
async fn an_audit_names_a_network_above_the_limit_unless_the_sale_was_changed() {
    let shop = Shop::open(&SETTINGS).await;
    let who = shop.shoppers(3).await;
    let (broken, changed) = (limited(&shop, 9, 3).await, limited(&shop, 9, 3).await);
    for sale in [broken, changed] {
        for user in &who {
            bought(&shop, user, sale).await;
        }
    }
    shop.books_balance().await;
    let change = SaleChange { units_per_prefix: Patch::Set(2), ..SaleChange::default() };
    shop.app.change_sale(&shop.admin().await, changed, &change).await.unwrap();
    refused(shop.ticket(&shop.shoppers(1).await[0], changed).await, "network-sold-out");
    shop.books_balance().await;
    let lower = format!("UPDATE sales SET units_per_prefix = 2 WHERE sale_id = '{broken}'");
    raw(&shop.dir).await.execute(sqlx::AssertSqlSafe(lower)).await.unwrap();
    let books = shop.app.audit().await.unwrap();
    let findings: Vec<_> = books.iter().flat_map(|sale| &sale.findings).collect();
    let [finding] = findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.sale_id, finding.promise), (broken, 2));
    let prefix = network(&who[0].client.address.to_string());
    assert_eq!(finding.ids, [prefix.to_string()]);
}
