//! The cost of a flood of requests: refusals from memory, and the security log.

use std::{
    io,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use flashsale::{
    adapters::{memory::MemoryGate, system::Artist},
    api::NewBan,
    app::{App, Caller, Client, Credentials},
    domain::{Ban, GateDecision, GateRequest, Phone, Role, Subject},
    ports::{Blacklist as _, Gate, Stored},
    problem::Problem,
    testing::{self, PASSWORD, START, client_at},
};
use tracing::{Dispatch, subscriber::DefaultGuard};
use tracing_subscriber::fmt::MakeWriter;

const PHONE: &str = "+12015550123";

/// Counts the calls of the gate.
struct CountingGate {
    gate: Arc<MemoryGate>,
    asked: AtomicUsize,
}

#[async_trait]
impl Gate for CountingGate {
    async fn enter(&self, entry: &GateRequest) -> Stored<GateDecision> {
        self.asked.fetch_add(1, SeqCst);
        self.gate.enter(entry).await
    }
}

/// A shop with a counting gate.
struct Shop {
    shop: testing::Shop,
    gate: Arc<CountingGate>,
}

impl Shop {
    async fn open(settings: &[(&str, &str)]) -> Self {
        let memory = Arc::new(MemoryGate::new());
        let gate = Arc::new(CountingGate { gate: memory.clone(), asked: AtomicUsize::new(0) });
        let settings = [&[("CAPTCHA", "off")], settings].concat();
        let shop = testing::Shop::open_with(&settings, |ports| {
            ports.gate = gate.clone();
            ports.sessions = memory.clone();
            ports.blacklist = memory.clone();
            ports.failures = memory.clone();
            ports.captchas = memory;
            ports.artist = Arc::new(Artist);
        })
        .await;
        Self { shop, gate }
    }

    fn asked(&self) -> usize {
        self.gate.asked.load(SeqCst)
    }

    async fn sign_in(&self, client: &Client, phone: &str, password: &str) -> Result<(), Problem> {
        let given = Credentials {
            phone: phone.to_owned(),
            country: None,
            password: password.to_owned(),
            captcha: None,
        };
        self.app.sign_in(client, given).await.map(drop)
    }
}

impl Deref for Shop {
    type Target = testing::Shop;

    fn deref(&self) -> &testing::Shop {
        &self.shop
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T, Problem>, slug: &str) -> Problem {
    let problem = outcome.err().expect("refused");
    assert_eq!(problem.slug(), slug, "{problem:?}");
    problem
}

#[tokio::test]
async fn a_request_refused_by_a_limit_asks_the_gate_again_only_when_its_time_has_come() {
    let shop = Shop::open(&[]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(100).await);
    for _ in 0..10 {
        shop.ticket(who, sale).await.unwrap();
    }
    refused(shop.ticket(who, sale).await, "rate-limited");
    let asked = shop.asked();
    for _ in 0..100 {
        let problem = refused(shop.ticket(who, sale).await, "rate-limited");
        assert!(
            matches!(problem, Problem::RateLimited { name: "ticket", retry_after_ms: 1_000, .. }),
            "{problem:?}"
        );
    }
    assert_eq!(shop.asked(), asked, "from memory");
    shop.clock.advance_ms(999);
    // Setting the wall clock changes nothing.
    shop.clock.set_by_ms(3_600_000);
    refused(shop.ticket(who, sale).await, "rate-limited");
    shop.clock.set_by_ms(-3_600_000);
    assert_eq!(shop.asked(), asked);
    shop.clock.advance_ms(1);
    shop.ticket(who, sale).await.unwrap();
    assert_eq!(shop.asked(), asked + 1);
}

#[tokio::test]
async fn refusals_from_memory_ban_as_those_of_the_gate_do() {
    let shop = Shop::open(&[("ABUSE__REFUSALS_MAX", "50")]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(100).await);
    for _ in 0..10 {
        shop.ticket(who, sale).await.unwrap();
    }
    let asked = shop.asked();
    for _ in 0..51 {
        refused(shop.ticket(who, sale).await, "rate-limited");
    }
    refused(shop.ticket(who, sale).await, "banned");
    // The first refusal, the one that causes the ban, the first refused by the ban, and the check
    // whether the address is banned.
    assert_eq!(shop.asked(), asked + 4);
    for _ in 0..100 {
        refused(shop.ticket(who, sale).await, "banned");
    }
    assert_eq!(shop.asked(), asked + 4);
    shop.clock.advance_ms(300_000);
    shop.ticket(who, sale).await.unwrap();
}

#[tokio::test]
async fn refusals_are_reported_with_the_next_refusal_after_a_request_was_let_in() {
    let shop = Shop::open(&[("ABUSE__REFUSALS_MAX", "50")]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(100).await);
    for _ in 0..10 {
        shop.ticket(who, sale).await.unwrap();
    }
    for _ in 0..30 {
        refused(shop.ticket(who, sale).await, "rate-limited");
    }
    // Another process has refused as many.
    let other = App::new(shop.app.config.clone(), shop.app.ports.clone()).unwrap();
    for _ in 0..30 {
        refused(other.issue_ticket(who, sale, None).await, "rate-limited");
    }
    shop.clock.advance_ms(1_000);
    shop.ticket(who, sale).await.unwrap();
    refused(shop.ticket(who, sale).await, "rate-limited");
    shop.clock.advance_ms(1_000);
    other.issue_ticket(who, sale, None).await.unwrap();
    refused(other.issue_ticket(who, sale, None).await, "rate-limited");
    shop.clock.advance_ms(1_000);
    refused(other.issue_ticket(who, sale, None).await, "banned");
}

#[tokio::test]
async fn a_ban_is_remembered_for_a_second() {
    let shop = Shop::open(&[]).await;
    let (who, sale) = (&shop.shoppers(1).await[0], shop.sale(100).await);
    // Another process created the ban; this one only encounters it.
    let ban = Ban {
        subject: Subject::User(who.session.user_id),
        reason: "resells".to_owned(),
        created_at: START,
        expires_at: None,
    };
    shop.gate.gate.ban(&ban).await.unwrap();
    refused(shop.ticket(who, sale).await, "banned");
    let asked = shop.asked();
    for _ in 0..100 {
        refused(shop.ticket(who, sale).await, "banned");
    }
    assert_eq!(shop.asked(), asked);
    assert!(shop.gate.gate.lift(&ban.subject).await.unwrap());
    shop.clock.advance_ms(999);
    refused(shop.ticket(who, sale).await, "banned");
    shop.clock.advance_ms(1);
    shop.ticket(who, sale).await.unwrap();
}

#[tokio::test]
async fn a_ban_lifted_here_is_seen_at_once() {
    let shop = Shop::open(&[]).await;
    let (shoppers, sale) = (shop.shoppers(1).await, shop.sale(100).await);
    let value = shoppers[0].session.user_id.to_string();
    let ban = NewBan {
        kind: "user".to_owned(),
        value: value.clone(),
        reason: "resells".to_owned(),
        expires_at: None,
    };
    shop.app.put_ban(&shop.admin().await, ban).await.unwrap();
    refused(shop.ticket(&shoppers[0], sale).await, "banned");
    shop.app.lift_ban(&shop.admin().await, "user", &value).await.unwrap();
    shop.ticket(&shoppers[0], sale).await.unwrap();
}

#[tokio::test]
async fn a_banned_address_is_refused_from_memory_whichever_phone_it_tries() {
    let shop = Shop::open(&[]).await;
    let subject = Subject::address(shop.client.address);
    let ban = Ban { subject, reason: "guesses".to_owned(), created_at: START, expires_at: None };
    shop.gate.gate.ban(&ban).await.unwrap();
    for number in 0..50 {
        refused(
            shop.sign_in(&shop.client, &format!("+120155501{number:02}"), PASSWORD).await,
            "banned",
        );
    }
    assert_eq!(shop.asked(), 2);
    // A ban of a phone does not affect its address.
    let banned = Subject::Phone(Phone::from_e164(PHONE).unwrap());
    shop.gate.gate.ban(&Ban { subject: banned, ..ban }).await.unwrap();
    let other = client_at("198.51.100.1");
    refused(shop.sign_in(&other, PHONE, PASSWORD).await, "banned");
    refused(shop.sign_in(&other, "+12015550124", PASSWORD).await, "bad-credentials");
}

#[tokio::test]
async fn a_limit_of_one_phone_does_not_close_its_address() {
    let shop = Shop::open(&[]).await;
    let banned_phone = |number: u8| format!("+120155501{number:02}");
    for _ in 0..10 {
        refused(shop.sign_in(&shop.client, &banned_phone(1), PASSWORD).await, "bad-credentials");
    }
    let problem =
        refused(shop.sign_in(&shop.client, &banned_phone(1), PASSWORD).await, "rate-limited");
    assert!(matches!(problem, Problem::RateLimited { name: "login-phone", .. }), "{problem:?}");
    refused(shop.sign_in(&shop.client, &banned_phone(2), PASSWORD).await, "bad-credentials");
}

#[tokio::test]
async fn polling_a_sold_out_sale_is_limited_in_the_process() {
    let shop = Shop::open(&[]).await;
    let (shoppers, sale) = (shop.shoppers(3).await, shop.sale(1).await);
    let ticket = shop.ticket(&shoppers[0], sale).await.unwrap();
    shop.app.place_order(&shoppers[0], sale, &ticket, None).await.unwrap();
    // After one request has reached the store, the others are answered from memory.
    refused(shop.ticket(&shoppers[2], sale).await, "sold-out");
    let poller = &shoppers[1];
    let (mut sold_out, mut limited, asked) = (0, 0, shop.asked());
    for _ in 0..1_000 {
        match shop.ticket(poller, sale).await {
            Err(Problem::SoldOut) => sold_out += 1,
            Err(Problem::RateLimited { name: "ticket", .. }) => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((10..=11).contains(&sold_out), "{sold_out}");
    assert_eq!(sold_out + limited, 1_000);
    assert!(shop.asked() - asked <= 1, "the gate is not asked");
    refused(shop.ticket(&shoppers[2], sale).await, "sold-out");
}

#[tokio::test]
async fn the_list_of_sales_is_limited_when_it_is_in_memory_too() {
    let shop =
        Shop::open(&[("LIMITS__ADDRESS__LIMIT", "5"), ("LIMITS__ADDRESS__BURST", "5")]).await;
    shop.sale(1).await;
    let mut listed = 0;
    let problem = loop {
        match shop.app.sale_list(&shop.client, None, 20).await {
            Ok(_) => listed += 1,
            Err(problem) => break problem,
        }
        assert!(listed < 100, "no limit");
    };
    assert!(matches!(problem, Problem::RateLimited { name: "address", .. }), "{problem:?}");
    shop.app.sale_list(&client_at("198.51.100.1"), None, 20).await.unwrap();
}

#[tokio::test]
async fn many_failures_from_one_address_ask_for_a_captcha_whichever_phones_it_tries() {
    let shop =
        Shop::open(&[("CAPTCHA", "image"), ("LOGIN__ADDRESS_FAILURES_BEFORE_CAPTCHA", "5")]).await;
    for number in 0..5 {
        refused(
            shop.sign_in(&shop.client, &format!("+120155501{number:02}"), PASSWORD).await,
            "bad-credentials",
        );
    }
    refused(shop.sign_in(&shop.client, "+12015550177", PASSWORD).await, "captcha-required");
    refused(
        shop.sign_in(&client_at("198.51.100.1"), "+12015550177", PASSWORD).await,
        "bad-credentials",
    );
}

/// Captured log lines of this thread.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Captures them until the returned guard is dropped.
    pub fn keep() -> (Self, (DefaultGuard, Dispatch)) {
        let lines = Self::default();
        // With only one dispatcher, a log call that another test's thread reaches first would be
        // disabled for all threads.
        let other = Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish());
        let log = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(lines.clone());
        (lines, (tracing::subscriber::set_default(log.finish()), other))
    }

    /// All of them.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Lines with the event, which must belong to the security log.
    pub fn of(&self, event: &str) -> Vec<String> {
        let wanted = format!("\"event\":\"{event}\"");
        let lines: Vec<String> =
            self.text().lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect();
        assert!(
            lines.iter().all(|line| line.contains("\"target\":\"flashsale::security\"")),
            "{lines:?}"
        );
        lines
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_security_log_tells_who_did_what_and_no_secret() {
    let (lines, _log) = Lines::keep();
    let shop = Shop::open(&[("ABUSE__REFUSALS_MAX", "5")]).await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(100).await);
    let user = shop
        .app
        .add_user(Phone::from_e164(PHONE).unwrap(), PASSWORD.to_owned(), Role::Shopper)
        .await
        .unwrap();

    refused(shop.sign_in(&shop.client, PHONE, "wrong horse").await, "bad-credentials");
    refused(shop.sign_in(&shop.client, "+12015550177", "wrong horse").await, "bad-credentials");
    let failed = lines.of("sign-in-failed");
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|line| line.contains("\"address\":\"192.0.2.0/24\"")), "{failed:?}");
    assert!(
        failed[0].contains(&user.user_id.to_string()) && !failed[1].contains("user_id"),
        "{failed:?}"
    );

    let who = &shoppers[0];
    for _ in 0..10 {
        shop.ticket(who, sale).await.unwrap();
    }
    for _ in 0..6 {
        refused(shop.ticket(who, sale).await, "rate-limited");
    }
    for _ in 0..3 {
        refused(shop.ticket(who, sale).await, "banned");
    }
    for (event, needed) in [
        ("limit-reached", vec!["\"limit\":\"ticket\"", "192.0.2.0/24", "\"left_out\":"]),
        ("banned-automatically", vec!["192.0.2.0/24"]),
        ("banned", vec!["192.0.2.0/24", "\"left_out\":"]),
    ] {
        let found = lines.of(event);
        // One line per second; a slow machine may have taken longer and logged more.
        assert!(!found.is_empty(), "{event}");
        assert!(needed.iter().all(|part| found[0].contains(part)), "{found:?}");
        assert!(found[0].contains(&who.session.user_id.to_string()), "{found:?}");
    }

    let admin_phone = Phone::from_e164("+12015550142").unwrap();
    shop.app.add_user(admin_phone, PASSWORD.to_owned(), Role::Admin).await.unwrap();
    let token = shop.shop.sign_in("+12015550142", PASSWORD).await.unwrap().token;
    let caller = shop.caller(&token).await;
    let admin = shop.app.enter_admin(&caller).await.unwrap();
    let ban = NewBan {
        kind: "phone".to_owned(),
        value: PHONE.to_owned(),
        reason: "resale".to_owned(),
        expires_at: None,
    };
    shop.app.put_ban(&admin, ban).await.unwrap();
    shop.app.lift_ban(&admin, "phone", PHONE).await.unwrap();
    for (event, object) in [("ban-put", "phone"), ("ban-lifted", "phone")] {
        let found = lines.of(event);
        assert_eq!(found.len(), 1, "{event}");
        assert!(
            found[0].contains(&caller.session.user_id.to_string())
                && found[0].contains(&format!("\"object\":\"{object}\"")),
            "{found:?}"
        );
    }

    let text = lines.text();
    for secret in [
        &PHONE[1..],
        "2015550123",
        "2015550177",
        "2015550142",
        PASSWORD,
        "wrong horse",
        "192.0.2.7",
        token.as_str(),
    ] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}

/// The limits let one request through for each address and two for each network around it.
#[tokio::test]
async fn the_addresses_of_a_network_share_its_limits() {
    let ones = ["ADDRESS", "CAPTCHA"].into_iter().flat_map(|name| {
        ["LIMIT", "BURST"].map(|key| (format!("LIMITS__{name}__{key}"), "1".to_owned()))
    });
    let mut settings: Vec<(String, String)> = ones.collect();
    settings.push(("LIMITS__NETWORK_TIMES".to_owned(), "2".to_owned()));
    settings.push(("CAPTCHA".to_owned(), "off".to_owned()));
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    // The last address of each row is outside the network of the first three.
    let rows = [
        ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.101.1"],
        ["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:2::1"],
        // Three /56 of one /48.
        ["2001:db8:3::1", "2001:db8:3:100::1", "2001:db8:3:200::1", "2001:db8:4::1"],
    ];
    for request in ["captcha", "entry"] {
        let shop = Shop::open(&settings).await;
        let who = shop.shoppers(1).await.remove(0);
        let draw = shop.draw(9, |_| {}).await;
        // In memory, so that no address is charged for reading it.
        shop.app.sale_page(&client_at("203.0.113.9"), draw).await.unwrap();
        shop.clock.advance_ms(2_000);
        for row in rows {
            let mut outcomes = Vec::new();
            for address in row {
                let caller = Caller { client: client_at(address), ..who.clone() };
                outcomes.push(match request {
                    "captcha" => shop.app.draw_login_captcha(&caller.client).await.map(drop),
                    _ => shop.app.enter_draw(&caller, draw, None).await.map(drop),
                });
            }
            let refused_by = |outcome: &Result<(), Problem>| match outcome {
                Ok(()) => None,
                Err(Problem::RateLimited { name, .. }) => Some(*name),
                Err(problem) => panic!("{request}: {problem:?}"),
            };
            let limit = if request == "captcha" { "captcha-network" } else { "address-network" };
            let refusals: Vec<_> = outcomes.iter().map(refused_by).collect();
            assert_eq!(refusals, [None, None, Some(limit), None], "{request} {row:?}");
        }
    }
}
