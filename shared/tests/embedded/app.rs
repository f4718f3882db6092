//! The use cases on the embedded stores, with a clock set by hand and captchas whose answer is known: what no test from
//! the outside can do without a back door.

use std::sync::Arc;

use flashsale::{
    adapters::{
        memory::{MemoryAdmission, MemoryCache, MemoryConsumerReports, MemoryGate, MemoryLocks},
        sqlite::Sqlite,
        system::SystemRandom,
    },
    api::NewSale,
    app::{Admin, App, CaptchaAnswer, Client, Credentials, SessionClaims, Swept},
    config::Config,
    domain::{
        AdmittedOrder, CaptchaPurpose, OrderId, OrderStatus, Phone, QueueDepth, QueueMessage, Role,
        SaleId,
    },
    ports::{
        Admission as _, CaptchaArtist, Clock, LedgerClock, OrderLedger, OrderQueue as _,
        OrderSource as _, Ports, Random, StoreError, Stored,
    },
    problem::Problem,
    testing::{self, ManualClock, START},
};

use crate::{
    ledger::raw,
    spies::{SharedQueue, SpiedAdmission},
    support::{self, TempDir},
};

/// Draws every captcha with the same answer.
struct KnownAnswer;

impl CaptchaArtist for KnownAnswer {
    fn answer(&self, _: &dyn Random) -> String {
        "kpt4x".to_owned()
    }

    fn draw(&self, _: &str) -> Stored<Vec<u8>> {
        Ok(b"picture".to_vec())
    }

    fn speak(&self, _: &str) -> Stored<Vec<u8>> {
        Ok(b"sound".to_vec())
    }
}

pub struct Shop {
    pub app: App,
    pub clock: Arc<ManualClock>,
    pub store: Sqlite,
    pub admission: Arc<SpiedAdmission>,
    /// What `admission` spies on.
    pub memory: Arc<MemoryAdmission>,
    pub client: Client,
    settings: Vec<(String, String)>,
    pub dir: TempDir,
}

impl Shop {
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        Self::open_with(settings, |_| {}).await
    }

    /// A shop some of whose ports are others.
    pub async fn open_with(settings: &[(&str, &str)], change: impl FnOnce(&mut Ports)) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        Self::open_in(TempDir::new(), clock, settings, |ports| {
            // As with servers: other processes may be at work, and the admission store may be lost while this one lives.
            ports.queue = Arc::new(SharedQueue(Arc::clone(&ports.queue)));
            change(ports);
        })
        .await
    }

    /// A shop in a directory that an earlier one may have left, in the only process that uses it.
    pub async fn open_in(
        dir: TempDir,
        clock: Arc<ManualClock>,
        settings: &[(&str, &str)],
        change: impl FnOnce(&mut Ports),
    ) -> Self {
        let store = dir.sqlite().await;
        let gate = Arc::new(MemoryGate::new());
        let shared = Arc::new(store.clone());
        let memory = Arc::new(MemoryAdmission::default());
        let admission = Arc::new(SpiedAdmission::new(memory.clone()));
        let mut ports = Ports {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ledger_clock: Arc::clone(&clock) as Arc<dyn LedgerClock>,
            random: Arc::new(SystemRandom),
            users: shared.clone(),
            session_ledger: shared.clone(),
            ban_ledger: shared.clone(),
            sales: shared.clone(),
            orders: shared.clone(),
            signing_keys: shared.clone(),
            gate: gate.clone(),
            sessions: gate.clone(),
            blacklist: gate.clone(),
            failures: gate.clone(),
            captchas: gate,
            admission: admission.clone(),
            queue: shared.clone(),
            source: shared.clone(),
            consumer_reports: Arc::new(MemoryConsumerReports::new()),
            dead_letters: shared,
            locks: Arc::new(MemoryLocks::new()),
            cache: Arc::new(MemoryCache::new()),
            artist: Arc::new(KnownAnswer),
            health: Vec::new(),
            background: None,
        };
        change(&mut ports);
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned()))
            .collect();
        let config = Config::load(None, settings.clone(), []).unwrap();
        let app = App::new(config, ports).unwrap();
        let client = Client { address: "192.0.2.7".parse().unwrap() };
        Self { app, clock, store, admission, memory, client, settings, dir }
    }

    /// Ends the process: what was in memory is gone.
    pub fn end(self) -> (TempDir, Arc<ManualClock>) {
        (self.dir, self.clock)
    }

    /// Another process on the same stores, or this one after a restart.
    pub async fn another(&self) -> App {
        let config = Config::load(None, self.settings.clone(), []).unwrap();
        App::new(config, self.app.ports.clone()).unwrap()
    }

    pub async fn without_captchas() -> Self {
        Self::open(&[("CAPTCHA", "off")]).await
    }

    pub async fn admin(&self) -> Admin {
        support::admin(&self.app, &self.client).await
    }

    pub async fn shoppers(&self, count: u32) -> Vec<SessionClaims> {
        let seeded = self.app.seed_users(count).await.unwrap();
        let mut sessions = Vec::with_capacity(seeded.len());
        for (_, token) in &seeded {
            sessions.push(self.app.read_session(token).await.unwrap());
        }
        sessions
    }

    pub async fn sale(&self, stock: u32) -> SaleId {
        let new = NewSale {
            title: "Phone".to_owned(),
            description: String::new(),
            image_url: String::new(),
            price: 100,
            original_price: None,
            currency: None,
            stock,
            per_user_limit: None,
            starts_at: START,
            ends_at: START.plus_ms(86_400_000),
        };
        self.app.create_sale(new).await.unwrap().sale_id
    }

    pub async fn ticket(&self, who: &SessionClaims, sale: SaleId) -> Result<String, Problem> {
        self.app.issue_ticket(who, &self.client, sale, None).await.map(|ticket| ticket.ticket)
    }

    pub async fn order(
        &self,
        who: &SessionClaims,
        sale: SaleId,
        ticket: &str,
    ) -> Result<OrderId, Problem> {
        self.app
            .place_order(who, &self.client, sale, ticket, None)
            .await
            .map(|accepted| accepted.order_id)
    }

    pub async fn buy(&self, who: &SessionClaims, sale: SaleId) -> OrderId {
        let ticket = self.ticket(who, sale).await.unwrap();
        self.order(who, sale, &ticket).await.unwrap()
    }

    pub async fn status(&self, who: &SessionClaims, order: OrderId) -> OrderStatus {
        self.app.order(who, &self.client, order).await.unwrap().status
    }

    /// Lets the worker work off the queue once.
    pub async fn work(&self) -> usize {
        let batch = self.store.receive(100, 10).await.unwrap();
        let bodies: Vec<Vec<u8>> = batch.iter().map(|delivery| delivery.body.clone()).collect();
        self.app.record_messages(&bodies).await.unwrap();
        self.store
            .ack(&batch.iter().map(|delivery| delivery.tag).collect::<Vec<_>>())
            .await
            .unwrap();
        batch.len()
    }

    pub async fn sweep(&self) -> Swept {
        let swept = self.app.sweep().await.unwrap();
        assert_eq!(swept.failed, 0);
        swept
    }

    pub async fn books_balance(&self) {
        let books = self.app.audit().await.unwrap();
        let findings: Vec<_> = books.iter().flat_map(|sale| &sale.findings).collect();
        assert!(findings.is_empty(), "{findings:?}");
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
    // Long after the ticket's own life.
    shop.clock.advance_ms(600_000);
    assert_eq!(shop.order(who, sale, &ticket).await.unwrap(), order);
    shop.app.cancel_order(who, &shop.client, order).await.unwrap();
    assert_eq!(shop.order(who, sale, &ticket).await.unwrap(), order, "also when it is cancelled");
    assert_eq!(shop.work().await, 0, "and no new order is made of it");
    assert_eq!(shop.status(who, order).await, OrderStatus::Cancelled);
    shop.books_balance().await;
}

#[tokio::test]
async fn a_ticket_ends_unused() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let ticket = shop.ticket(who, sale).await.unwrap();
    shop.clock.advance_ms(60_000);
    refused(shop.order(who, sale, &ticket).await, "ticket-expired");
    let ticket = shop.ticket(who, sale).await.unwrap();
    shop.clock.advance_ms(59_999);
    shop.order(who, sale, &ticket).await.unwrap();
}

#[tokio::test]
async fn sold_out_is_answered_from_memory_and_seen_to_end() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(3).await, shop.sale(1).await);
    let order = shop.buy(&shoppers[0], sale).await;
    refused(shop.ticket(&shoppers[1], sale).await, "sold-out");
    // Only who was seen to hold no order is answered from memory, here without a look at the session.
    let ended =
        SessionClaims { session_id: flashsale::testing::session_id(), ..shoppers[2].clone() };
    refused(shop.ticket(&ended, sale).await, "unauthenticated");
    refused(shop.ticket(&shoppers[2], sale).await, "sold-out");
    refused(shop.ticket(&ended, sale).await, "sold-out");
    shop.work().await;
    shop.app.cancel_order(&shoppers[0], &shop.client, order).await.unwrap();
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
    shop.app.pay_order(&shoppers[1], &shop.client, paid).await.unwrap();
    shop.clock.advance_ms(899_999);
    assert_eq!(shop.sweep().await.expired, 0);
    shop.clock.advance_ms(1);
    refused(shop.app.pay_order(&shoppers[0], &shop.client, unpaid).await, "order-final");
    let swept = shop.sweep().await;
    assert_eq!((swept.expired, swept.returned), (1, 1));
    assert_eq!(shop.status(&shoppers[0], unpaid).await, OrderStatus::Expired);
    assert_eq!(shop.status(&shoppers[1], paid).await, OrderStatus::Paid);
    refused(shop.app.pay_order(&shoppers[0], &shop.client, unpaid).await, "order-final");
    assert_eq!(shop.app.sale_page(&shop.client, sale).await.unwrap().available, 1);
    shop.buy(&shoppers[0], sale).await;
    shop.books_balance().await;
}

#[tokio::test]
async fn an_order_that_was_never_published_is_published_by_the_sweeper() {
    let shop = Shop::without_captchas().await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(1).await);
    let order = shop.buy(who, sale).await;
    // As if the process had died between reserving and publishing.
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
    // As if the worker had died right after the ledger's commit.
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
    refused(shop.app.pay_order(who, &shop.client, order).await, "order-queued");
    assert_eq!(
        shop.app.cancel_order(who, &shop.client, order).await.unwrap().status,
        OrderStatus::Cancelled
    );
    assert_eq!(shop.work().await, 1, "the message still comes");
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
    // As a newer release might have published it, which was then replaced by this one.
    let published = shop.store.receive(10, 10).await.unwrap();
    let newer = String::from_utf8(published[0].body.clone()).unwrap().replace("\"v\":1", "\"v\":2");
    assert!(newer.contains("\"v\":2"), "{newer}");
    shop.app.record_messages(&[newer.into_bytes()]).await.unwrap();
    shop.store.ack(&[published[0].tag]).await.unwrap();
    let parked = shop.app.parked(10).await.unwrap();
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

/// What an order would be that no code of ours admits: its price is below zero.
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
    // What the operator puts back is not parked any more, and so is parked anew instead of being lost.
    let id = &parked.iter().find(|parked| parked.body == poison).unwrap().id;
    shop.app.retry_parked(shop.admin().await, id).await.unwrap();
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
    // More than the field can hold.
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
    // Refused by the ledger, because the unit is taken: to be released.
    let late = AdmittedOrder {
        sale_id: failing,
        price: 100,
        ..testing::request(&testing::sale(1), who[2].user_id)
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
async fn captchas_are_good_for_one_answer_and_one_purpose() {
    let shop = Shop::open(&[]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(5).await);
    let answer = async |purpose, text: &str| {
        let drawn = shop.app.draw_captcha(&shop.client, purpose).await.unwrap();
        CaptchaAnswer { captcha_id: drawn.captcha_id, answer: text.to_owned() }
    };
    let ask =
        async |captcha| shop.app.issue_ticket(who, &shop.client, sale, captcha).await.map(drop);
    refused(ask(None).await, "captcha-required");
    let wrong = answer(CaptchaPurpose::Purchase, "wrong").await;
    refused(ask(Some(wrong.clone())).await, "captcha-wrong");
    refused(ask(Some(CaptchaAnswer { answer: "kpt4x".to_owned(), ..wrong })).await, "captcha-gone");
    refused(ask(Some(answer(CaptchaPurpose::Login, "kpt4x").await)).await, "captcha-gone");
    let late = answer(CaptchaPurpose::Purchase, "kpt4x").await;
    shop.clock.advance_ms(120_000);
    refused(ask(Some(late)).await, "captcha-gone");
    let right = answer(CaptchaPurpose::Purchase, " KPT 4x ").await;
    ask(Some(right.clone())).await.unwrap();
    refused(ask(Some(right)).await, "captcha-gone");
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
        let drawn = shop.app.draw_captcha(client, CaptchaPurpose::Login).await.unwrap();
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
    // The owner, elsewhere, needs one captcha and is in; after that none.
    refused(sign_in(&shop.client, "correct horse", None).await, "captcha-required");
    sign_in(&shop.client, "correct horse", captcha(&shop.client).await).await.unwrap();
    sign_in(&shop.client, "correct horse", None).await.unwrap();
}

#[tokio::test]
async fn repeated_abuse_is_banned_for_a_while() {
    let shop = Shop::open(&[("CAPTCHA", "off"), ("ABUSE__REFUSALS_MAX", "5")]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(100).await);
    for _ in 0..10 {
        shop.ticket(who, sale).await.unwrap();
    }
    for _ in 0..6 {
        refused(shop.ticket(who, sale).await, "rate-limited");
    }
    refused(shop.ticket(who, sale).await, "banned");
    shop.clock.advance_ms(300_000);
    shop.ticket(who, sale).await.unwrap();
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
    assert!(other.sweep().await.unwrap().leader, "the lease of the first is over");
    assert!(!shop.sweep().await.leader);
    other.stop_sweeping().await.unwrap();
    assert!(shop.sweep().await.leader);
}

#[tokio::test]
async fn a_session_ends_by_the_clock() {
    let shop = Shop::without_captchas().await;
    let seeded = shop.app.seed_users(1).await.unwrap();
    shop.clock.advance_ms(43_199_000);
    let claims = shop.app.read_session(&seeded[0].1).await.unwrap();
    shop.app.current_session(&claims, &shop.client).await.unwrap();
    shop.clock.advance_ms(1_000);
    refused(shop.app.read_session(&seeded[0].1).await, "unauthenticated");
}
