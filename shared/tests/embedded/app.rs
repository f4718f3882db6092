//! The use cases on the embedded stores, with a manual clock and known captcha answers, which a
//! test over HTTP could have only through a back door.

use std::{ops::Deref, sync::Arc};

use flashsale::{
    adapters::memory::MemoryAdmission,
    app::{App, Caller, CaptchaAnswer, Client, Credentials, SessionClaims},
    config::Config,
    domain::{AdmittedOrder, OrderStatus, Phone, QueueDepth, QueueMessage, Role, SaleId},
    ports::{Admission as _, OrderLedger, OrderQueue as _, OrderSource as _, Ports, StoreError},
    problem::Problem,
    testing::{self, ManualClock, START, TempDir},
};

use crate::{
    ledger::raw,
    spies::{SharedQueue, SpiedAdmission},
};

/// A shop with a spy on its admission store.
pub struct Shop {
    shop: testing::Shop,
    pub admission: Arc<SpiedAdmission>,
    /// The store behind `admission`.
    pub memory: Arc<MemoryAdmission>,
}

impl Shop {
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        Self::open_with(settings, |_| {}).await
    }

    /// A shop with some ports replaced.
    pub async fn open_with(settings: &[(&str, &str)], change: impl FnOnce(&mut Ports)) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        Self::open_in(TempDir::new(), clock, settings, |ports| {
            // As with servers: other processes may be running, and the admission store may lose its
            // data while this process runs.
            ports.queue = Arc::new(SharedQueue::new(Arc::clone(&ports.queue)));
            change(ports);
        })
        .await
    }

    /// A shop in a directory that an earlier shop may have used, in the only process that uses it.
    pub async fn open_in(
        dir: TempDir,
        clock: Arc<ManualClock>,
        settings: &[(&str, &str)],
        change: impl FnOnce(&mut Ports),
    ) -> Self {
        let memory = Arc::new(MemoryAdmission::default());
        let admission = Arc::new(SpiedAdmission::new(memory.clone()));
        let shop = testing::Shop::open_in(dir, clock, settings, |ports| {
            ports.admission = admission.clone();
            change(ports);
        })
        .await;
        Self { shop, admission, memory }
    }

    /// Ends the process and loses its memory.
    pub fn end(self) -> (TempDir, Arc<ManualClock>) {
        self.shop.end()
    }

    pub async fn without_captchas() -> Self {
        Self::open(&[("CAPTCHA", "off")]).await
    }
}

impl Deref for Shop {
    type Target = testing::Shop;

    fn deref(&self) -> &testing::Shop {
        &self.shop
    }
}

#[track_caller]
pub fn refused<T>(outcome: Result<T, Problem>, slug: &str) -> Problem {
    let problem = outcome.err().expect("refused");
    assert_eq!(problem.slug(), slug, "{problem:?}");
    problem
}

#[tokio::test]
async fn a_ticket_gives_the_same_order_for_ever() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let ticket = shop.ticket(who, sale).await.unwrap();
    let order = shop.order(who, sale, &ticket).await.unwrap();
    assert_eq!(shop.status(who, order).await, OrderStatus::Queued);
    assert_eq!(shop.order(who, sale, &ticket).await.unwrap(), order);
    shop.work().await;
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
    // Long after the ticket has expired.
    shop.clock.advance_ms(600_000);
    assert_eq!(shop.order(who, sale, &ticket).await.unwrap(), order);
    shop.app.cancel_order(who, order).await.unwrap();
    assert_eq!(shop.order(who, sale, &ticket).await.unwrap(), order, "even when it is cancelled");
    assert_eq!(shop.work().await, 0, "it creates no new order");
    assert_eq!(shop.status(who, order).await, OrderStatus::Cancelled);
    shop.books_balance().await;
}

#[tokio::test]
async fn sold_out_is_answered_from_memory_and_seen_to_end() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(3).await, shop.sale(1).await);
    let order = shop.buy(&shoppers[0], sale).await;
    refused(shop.ticket(&shoppers[1], sale).await, "sold-out");
    // Only users known to hold no order are answered from memory, here without a check of the
    // session.
    let ended = SessionClaims { session_id: testing::session_id(), ..shoppers[2].session.clone() };
    let ended = Caller { session: ended, ..shoppers[2].clone() };
    refused(shop.ticket(&ended, sale).await, "unauthenticated");
    refused(shop.ticket(&shoppers[2], sale).await, "sold-out");
    refused(shop.ticket(&ended, sale).await, "sold-out");
    shop.work().await;
    shop.app.cancel_order(&shoppers[0], order).await.unwrap();
    refused(shop.ticket(&shoppers[1], sale).await, "sold-out");
    shop.clock.advance_ms(250);
    shop.ticket(&shoppers[1], sale).await.unwrap();
    refused(shop.ticket(&ended, sale).await, "unauthenticated");
    shop.books_balance().await;
}

#[tokio::test]
async fn unpaid_orders_expire_and_their_units_come_back() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(2).await);
    let (unpaid, paid) = (shop.buy(&shoppers[0], sale).await, shop.buy(&shoppers[1], sale).await);
    shop.work().await;
    shop.app.pay_order(&shoppers[1], paid).await.unwrap();
    shop.clock.advance_ms(899_999);
    assert_eq!(shop.sweep().await.expired, 0);
    shop.clock.advance_ms(1);
    refused(shop.app.pay_order(&shoppers[0], unpaid).await, "order-final");
    let swept = shop.sweep().await;
    assert_eq!((swept.expired, swept.returned), (1, 1));
    assert_eq!(shop.status(&shoppers[0], unpaid).await, OrderStatus::Expired);
    assert_eq!(shop.status(&shoppers[1], paid).await, OrderStatus::Paid);
    refused(shop.app.pay_order(&shoppers[0], unpaid).await, "order-final");
    assert_eq!(shop.app.sale_page(&shop.client, sale).await.unwrap().available, 1);
    shop.buy(&shoppers[0], sale).await;
    shop.books_balance().await;
}

#[tokio::test]
async fn an_order_that_was_never_published_is_published_by_the_sweeper() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    // As after a crash between reserving and publishing.
    let lost = shop.store.receive(10, 10).await.unwrap();
    shop.store.ack(&lost.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(shop.sweep().await.republished, 0, "not yet");
    shop.clock.advance_ms(5_001);
    assert_eq!(shop.sweep().await.republished, 1);
    assert_eq!(shop.sweep().await.republished, 0, "once per period");
    assert_eq!(shop.work().await, 1);
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
    shop.books_balance().await;
}

#[tokio::test]
async fn an_order_that_was_recorded_but_not_settled_is_settled_by_the_sweeper() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    shop.buy(who, sale).await;
    let batch = shop.store.receive(10, 10).await.unwrap();
    let message: flashsale::domain::QueueMessage = serde_json::from_slice(&batch[0].body).unwrap();
    // As after a crash of the worker right after the ledger's commit.
    shop.app.ports.orders.record(&message.orders, shop.app.now(), 900_000).await.unwrap();
    shop.store.ack(&[batch[0].tag]).await.unwrap();
    shop.clock.advance_ms(5_001);
    let swept = shop.sweep().await;
    assert_eq!((swept.settled, swept.republished), (1, 0));
    shop.books_balance().await;
}

#[tokio::test]
async fn a_queued_order_can_be_cancelled_but_not_paid() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    refused(shop.app.pay_order(who, order).await, "order-queued");
    assert_eq!(shop.app.cancel_order(who, order).await.unwrap().status, OrderStatus::Cancelled);
    assert_eq!(shop.work().await, 1, "the message is still delivered");
    assert_eq!(shop.status(who, order).await, OrderStatus::Cancelled);
    assert_eq!(shop.app.sale_page(&shop.client, sale).await.unwrap().available, 1);
    shop.books_balance().await;
}

#[tokio::test]
async fn poison_messages_are_parked_and_the_others_recorded() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    let good = shop.store.receive(10, 10).await.unwrap();
    let bodies =
        vec![b"nonsense".to_vec(), good[0].body.clone(), br#"{"v":9,"orders":[]}"#.to_vec()];
    shop.app.record_messages(&bodies).await.unwrap();
    shop.app.record_messages(&bodies[1..2]).await.unwrap();
    shop.store.ack(&[good[0].tag]).await.unwrap();
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
    assert_eq!(shop.app.ports.queue.depth().await.unwrap().parked, 2);
    shop.books_balance().await;
}

#[tokio::test]
async fn an_order_in_a_message_of_an_unknown_version_is_recorded_all_the_same() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    // A message of a newer release that was rolled back to this one.
    let published = shop.store.receive(10, 10).await.unwrap();
    let newer = String::from_utf8(published[0].body.clone()).unwrap().replace("\"v\":1", "\"v\":2");
    assert!(newer.contains("\"v\":2"), "{newer}");
    shop.app.record_messages(&[newer.into_bytes()]).await.unwrap();
    shop.store.ack(&[published[0].tag]).await.unwrap();
    let parked = shop.app.parked(&shop.admin().await, 10).await.unwrap();
    assert!(
        parked[0].reason.contains("message version 2 is unknown") && parked[0].order_ids == [order],
        "{parked:?}"
    );
    assert_eq!(shop.status(who, order).await, OrderStatus::Queued);
    shop.clock.advance_ms(5_001);
    assert_eq!(shop.sweep().await.republished, 1);
    assert_eq!(shop.work().await, 1);
    assert_eq!(shop.status(who, order).await, OrderStatus::Confirmed);
    shop.books_balance().await;
}

/// An order that the product never admits: its price is negative.
fn unrecordable(sale: SaleId) -> Vec<u8> {
    let order = AdmittedOrder {
        sale_id: sale,
        price: -1,
        ..testing::request(&testing::sale(1), testing::user_id())
    };
    serde_json::to_vec(&QueueMessage { v: QueueMessage::VERSION, orders: vec![order] }).unwrap()
}

#[tokio::test]
async fn poison_is_parked_once_however_often_its_batch_is_repeated() {
    let shop = Shop::without_captchas().await;
    let sale = shop.sale(1).await;
    let poison = unrecordable(sale);
    let batch = [b"nonsense".to_vec(), poison.clone(), poison.clone()];
    for _ in 0..3 {
        shop.app.record_messages(&batch).await.unwrap();
    }
    let parked = shop.app.ports.dead_letters.list(10).await.unwrap();
    let mut bodies: Vec<_> = parked.iter().map(|parked| &parked.body).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [&batch[0], &poison]);
    // A retried message is no longer parked, so it is parked again instead of being lost.
    let id = &parked.iter().find(|parked| parked.body == poison).unwrap().id;
    shop.app.retry_parked(&shop.admin().await, id).await.unwrap();
    assert_eq!(shop.work().await, 1);
    assert_eq!(shop.app.ports.queue.depth().await.unwrap(), QueueDepth { waiting: 0, parked: 2 });
}

#[tokio::test]
async fn a_broken_row_of_one_sale_makes_no_order_poison_and_holds_up_no_other_sale() {
    let shop = Shop::without_captchas().await;
    let who = shop.shoppers(2).await;
    let (broken, sound) = (shop.sale(5).await, shop.sale(5).await);
    let (waiting, confirmed) = (shop.buy(&who[0], broken).await, shop.buy(&who[1], sound).await);
    let set_stock = async |stock: u64| {
        let mut connection = raw(&shop.dir).await;
        let update = sqlx::query("UPDATE sales SET stock = ? WHERE sale_id = ?")
            .bind(i64::try_from(stock).unwrap());
        update.bind(broken.to_string()).execute(&mut connection).await.unwrap();
    };
    // More than the field holds.
    set_stock(1 << 40).await;
    let batch = shop.store.receive(10, 10).await.unwrap();
    let mut bodies: Vec<_> = batch.iter().map(|delivery| delivery.body.clone()).collect();
    bodies.push(b"nonsense".to_vec());
    for _ in 0..3 {
        let refused = shop.app.record_messages(&bodies).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    }
    assert_eq!(shop.status(&who[1], confirmed).await, OrderStatus::Confirmed);
    assert_eq!(
        shop.app.ports.queue.depth().await.unwrap().parked,
        0,
        "and nothing is parked before the rest is recorded"
    );
    set_stock(5).await;
    shop.app.record_messages(&bodies).await.unwrap();
    shop.store.ack(&batch.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(shop.status(&who[0], waiting).await, OrderStatus::Confirmed);
    assert_eq!(shop.app.ports.queue.depth().await.unwrap(), QueueDepth { waiting: 0, parked: 1 });
    shop.books_balance().await;
}

#[tokio::test]
async fn a_sale_whose_admission_fails_holds_up_no_other_and_is_mended_by_the_sweeper() {
    let shop = Shop::without_captchas().await;
    let who = shop.shoppers(4).await;
    let (failing, sound) = (shop.sale(1).await, shop.sale(1).await);
    let orders = [shop.buy(&who[0], failing).await, shop.buy(&who[1], sound).await];
    // The ledger rejects it because the unit is taken, so it must be released.
    let late = AdmittedOrder {
        sale_id: failing,
        price: 100,
        ..testing::request(&testing::sale(1), who[2].session.user_id)
    };
    shop.store.publish(std::slice::from_ref(&late)).await.unwrap();
    shop.admission.fail(failing);
    assert_eq!(shop.work().await, 3, "recorded and acknowledged");
    assert_eq!(shop.app.ports.queue.depth().await.unwrap(), QueueDepth { waiting: 0, parked: 0 });
    let settled = async |sale, order| shop.memory.find(sale, order).await.unwrap().unwrap().settled;
    assert_eq!([settled(failing, orders[0]).await, settled(sound, orders[1]).await], [false, true]);
    assert_eq!(
        OrderLedger::get(&shop.store, orders[0]).await.unwrap().unwrap().status,
        OrderStatus::Confirmed
    );
    shop.admission.mend();
    shop.clock.advance_ms(5_001);
    let swept = shop.sweep().await;
    assert_eq!((swept.settled, swept.republished), (1, 0));
    assert!(settled(failing, orders[0]).await);
    shop.books_balance().await;
}

#[tokio::test]
async fn guessing_is_slowed_and_the_owner_is_not_locked_out() {
    let shop = Shop::open(&[]).await;
    let phone = Phone::from_e164("+12015550123").unwrap();
    shop.app.add_user(phone, "correct horse".to_owned(), Role::Shopper).await.unwrap();
    let attacker = Client { address: "198.51.100.1".parse().unwrap() };
    let sign_in = async |client: &Client, password: &str, captcha| {
        let given = Credentials {
            phone: "+12015550123".to_owned(),
            country: None,
            password: password.to_owned(),
            captcha,
        };
        shop.app.sign_in(client, given).await.map(drop)
    };
    let captcha = async |client: &Client| {
        let drawn = shop.app.draw_login_captcha(client).await.unwrap();
        Some(CaptchaAnswer { captcha_id: drawn.captcha_id, answer: "kpt4x".to_owned() })
    };
    for _ in 0..3 {
        refused(sign_in(&attacker, "guess", None).await, "bad-credentials");
    }
    refused(sign_in(&attacker, "guess", None).await, "captcha-required");
    for _ in 0..6 {
        refused(sign_in(&attacker, "guess", captcha(&attacker).await).await, "bad-credentials");
    }
    refused(sign_in(&attacker, "guess", captcha(&attacker).await).await, "rate-limited");
    // The owner, at another address, signs in with one captcha; after that no captcha is needed.
    refused(sign_in(&shop.client, "correct horse", None).await, "captcha-required");
    sign_in(&shop.client, "correct horse", captcha(&shop.client).await).await.unwrap();
    sign_in(&shop.client, "correct horse", None).await.unwrap();
}

#[tokio::test]
async fn one_of_two_sweepers_leads() {
    let shop = Shop::without_captchas().await;
    let other = App::new(Config::load(None, [], []).unwrap(), shop.app.ports.clone()).unwrap();
    assert!(shop.sweep().await.leader);
    assert!(!other.sweep().await.unwrap().leader);
    shop.clock.advance_ms(4_999);
    assert!(shop.sweep().await.leader, "renewed");
    shop.clock.advance_ms(5_000);
    assert!(other.sweep().await.unwrap().leader, "the lease of the first has expired");
    assert!(!shop.sweep().await.leader);
    other.stop_sweeping().await.unwrap();
    assert!(shop.sweep().await.leader);
}
