//! Sessions, passwords, bans and roles when the ledger and the fast store diverge at the worst
//! moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use flashsale::{
    adapters::memory::{MemoryGate, MemoryLocks},
    api::{NewBan, SignedIn},
    app::{App, Caller, Client, Credentials, SessionClaims},
    config::Config,
    domain::{
        ActionKind, KeptSession, Opening, Phone, Role, Session, SessionId, Subject, Timestamp,
        UserChange, UserId,
    },
    ports::{BanLedger as _, Ports, SessionLedger, Sessions, StoreError, Stored, Users as _},
    problem::Problem,
    testing::{self, PASSWORD, client_at},
};
use tokio::sync::Semaphore;

use crate::app::{Shop, refused};

const PHONE: &str = "+12015550123";
const NEW_PASSWORD: &str = "battery staple";
/// Longest wait for a background task.
const PATIENCE: Duration = Duration::from_secs(20);

/// A call in the middle of a use case that waits once for the test.
#[derive(Default)]
struct Pause {
    armed: AtomicBool,
    reached: Reached,
    go: Reached,
}

struct Reached(Semaphore);

impl Default for Reached {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Reached {
    async fn wait(&self) {
        tokio::time::timeout(PATIENCE, self.0.acquire())
            .await
            .expect("the use case makes the call")
            .unwrap()
            .forget();
    }
}

impl Pause {
    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    async fn here(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.reached.0.add_permits(1);
            self.go.wait().await;
        }
    }

    fn release(&self) {
        self.go.0.add_permits(1);
    }
}

/// The ledger's sessions, with a pause before a session is opened.
struct PausedLedger {
    inner: Arc<dyn SessionLedger>,
    opening: Pause,
}

#[async_trait]
impl SessionLedger for PausedLedger {
    async fn open(&self, openings: &[Opening], now: Timestamp) -> Stored<Vec<SessionId>> {
        self.opening.here().await;
        self.inner.open(openings, now).await
    }

    async fn get_many(&self, session_ids: &[SessionId]) -> Stored<Vec<KeptSession>> {
        self.inner.get_many(session_ids).await
    }

    async fn end(&self, user_id: UserId, session_id: SessionId, now: Timestamp) -> Stored<()> {
        self.inner.end(user_id, session_id, now).await
    }

    async fn ends_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptSession>> {
        self.inner.ends_due(now, limit).await
    }

    async fn note_ends(
        &self,
        session_ids: &[SessionId],
        again_at: Option<Timestamp>,
    ) -> Stored<()> {
        self.inner.note_ends(session_ids, again_at).await
    }

    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32> {
        self.inner.delete_over(before, limit).await
    }
}

/// The fast store's sessions, with pauses and with failing ends.
struct PausedSessions {
    inner: Arc<dyn Sessions>,
    opening: Pause,
    ending_all: Pause,
    ends_fail: AtomicBool,
}

impl PausedSessions {
    fn answers(&self) -> Stored<()> {
        if self.ends_fail.load(Ordering::SeqCst) {
            return Err(StoreError::Unknown { store: "Redis", cause: "a test's fault".to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl Sessions for PausedSessions {
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()> {
        self.opening.here().await;
        self.inner.open(sessions, now).await
    }

    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()> {
        self.answers()?;
        self.inner.end(user_id, session_id).await
    }

    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()> {
        self.ending_all.here().await;
        self.answers()?;
        self.inner.end_all(user_id, keep).await
    }
}

/// A shop whose sessions can be paused, with one registered user.
struct Paused {
    shop: Shop,
    app: App,
    ledger: Arc<PausedLedger>,
    sessions: Arc<PausedSessions>,
}

impl Paused {
    async fn open() -> Self {
        let shop = Shop::without_captchas().await;
        let ledger = Arc::new(PausedLedger {
            inner: shop.app.ports.session_ledger.clone(),
            opening: Pause::default(),
        });
        let sessions = Arc::new(PausedSessions {
            inner: shop.app.ports.sessions.clone(),
            opening: Pause::default(),
            ending_all: Pause::default(),
            ends_fail: AtomicBool::new(false),
        });
        let ports = Ports {
            session_ledger: ledger.clone(),
            sessions: sessions.clone(),
            ..shop.app.ports.clone()
        };
        let app = App::new(settings(&[]), ports).unwrap();
        app.add_user(Phone::from_e164(PHONE).unwrap(), PASSWORD.to_owned(), Role::Shopper)
            .await
            .unwrap();
        Self { shop, app, ledger, sessions }
    }

    async fn sign_in(&self) -> Caller {
        let signed = sign_in(&self.app, &self.shop.client, PHONE, PASSWORD).await.unwrap();
        self.shop.caller(&signed.token).await
    }

    async fn is_alive(&self, who: &Caller) -> bool {
        alive(&self.app, who).await
    }

    fn ban_phone(&self) -> impl Future<Output = Result<(), Problem>> {
        let (app, unpaused, client, new) = (
            self.app.clone(),
            self.shop.app.clone(),
            self.shop.client.clone(),
            ban("phone", PHONE),
        );
        async move { app.put_ban(&testing::admin(&unpaused, &client).await, new).await.map(drop) }
    }
}

fn settings(more: &[(&str, &str)]) -> Config {
    let given = [("CAPTCHA", "off")].iter().chain(more);
    Config::load(
        None,
        given.map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned())),
        [],
    )
    .unwrap()
}

async fn sign_in(
    app: &App,
    client: &Client,
    phone: &str,
    password: &str,
) -> Result<SignedIn, Problem> {
    let given = Credentials {
        phone: phone.to_owned(),
        country: None,
        password: password.to_owned(),
        captcha: None,
    };
    app.sign_in(client, given).await
}

/// Whether the gate admits the session.
async fn alive(app: &App, who: &Caller) -> bool {
    match app.current_session(who).await {
        Ok(_) => true,
        Err(Problem::Unauthenticated) => false,
        Err(other) => panic!("{other:?}"),
    }
}

fn ban(kind: &str, value: &str) -> NewBan {
    NewBan {
        kind: kind.to_owned(),
        value: value.to_owned(),
        reason: "resale".to_owned(),
        expires_at: None,
    }
}

/// The same shop on a fast store that was emptied.
async fn emptied(shop: &Shop, more: &[(&str, &str)]) -> App {
    let gate = Arc::new(MemoryGate::new());
    let ports = Ports {
        gate: gate.clone(),
        sessions: gate.clone(),
        blacklist: gate.clone(),
        failures: gate.clone(),
        captchas: gate,
        locks: Arc::new(MemoryLocks::new()),
        ..shop.app.ports.clone()
    };
    App::new(settings(more), ports).unwrap()
}

#[tokio::test]
async fn a_password_change_is_finished_when_its_client_goes_away() {
    let paused = Paused::open().await;
    let (changing, other) = (paused.sign_in().await, paused.sign_in().await);
    paused.sessions.ending_all.arm();
    let request = tokio::spawn({
        let (app, changing) = (paused.app.clone(), changing.clone());
        async move { app.change_password(&changing, PASSWORD.to_owned(), NEW_PASSWORD.to_owned()).await }
    });
    paused.sessions.ending_all.reached.wait().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert!(paused.is_alive(&other).await, "the end was not copied to the fast store yet");
    paused.sessions.ending_all.release();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while paused.is_alive(&other).await {
        assert!(tokio::time::Instant::now() < deadline, "the other session is still alive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(paused.is_alive(&changing).await);
    refused(sign_in(&paused.app, &paused.shop.client, PHONE, PASSWORD).await, "bad-credentials");
    sign_in(&paused.app, &paused.shop.client, PHONE, NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn the_sweeper_ends_what_a_failing_fast_store_did_not() {
    let paused = Paused::open().await;
    let (changing, other, banned) =
        (paused.sign_in().await, paused.sign_in().await, paused.shop.shoppers(1).await.remove(0));
    paused.sessions.ends_fail.store(true, Ordering::SeqCst);
    let changed =
        paused.app.change_password(&changing, PASSWORD.to_owned(), NEW_PASSWORD.to_owned()).await;
    changed.expect("the password is changed even if the fast store fails");
    assert!(paused.is_alive(&other).await);
    refused(paused.app.sign_out(&banned, false).await, "unavailable");
    assert!(paused.is_alive(&banned).await);
    assert_eq!(paused.app.sweep().await.unwrap().failed, 1);
    paused.sessions.ends_fail.store(false, Ordering::SeqCst);
    // A failed copy is postponed behind all others.
    paused.shop.clock.advance_ms(5_000);
    assert_eq!(paused.app.sweep().await.unwrap().failed, 0);
    assert!(!paused.is_alive(&other).await && !paused.is_alive(&banned).await);
    assert!(paused.is_alive(&changing).await);

    // The end is copied once more after a minute, because a copy of an older state of the ledger
    // may have arrived late; then never again.
    let session = Session {
        session_id: other.session.session_id,
        user_id: other.session.user_id,
        role: Role::Shopper,
        expires_at: Timestamp::MAX,
    };
    for told in [true, false] {
        paused.sessions.open(std::slice::from_ref(&session), paused.app.now()).await.unwrap();
        assert!(paused.is_alive(&other).await);
        paused.shop.clock.advance_ms(60_000);
        assert_eq!(paused.app.sweep().await.unwrap().failed, 0);
        assert_eq!(paused.is_alive(&other).await, !told);
    }
}

#[tokio::test]
async fn a_sign_in_that_verified_the_old_password_opens_no_session() {
    let paused = Paused::open().await;
    let who = paused.sign_in().await;
    paused.ledger.opening.arm();
    let late = tokio::spawn({
        let (app, client) = (paused.app.clone(), paused.shop.client.clone());
        async move { sign_in(&app, &client, PHONE, PASSWORD).await.map(drop) }
    });
    paused.ledger.opening.reached.wait().await;
    paused.app.change_password(&who, PASSWORD.to_owned(), NEW_PASSWORD.to_owned()).await.unwrap();
    paused.ledger.opening.release();
    refused(late.await.unwrap(), "bad-credentials");

    // Signing out everywhere raises the generation too, but the password is unchanged, so the
    // sign-in succeeds.
    paused.ledger.opening.arm();
    let late = tokio::spawn({
        let (app, client) = (paused.app.clone(), paused.shop.client.clone());
        async move { sign_in(&app, &client, PHONE, NEW_PASSWORD).await }
    });
    paused.ledger.opening.reached.wait().await;
    paused.app.sign_out(&who, true).await.unwrap();
    paused.ledger.opening.release();
    let signed = late.await.unwrap().unwrap();
    assert!(paused.is_alive(&paused.shop.caller(&signed.token).await).await);
    assert!(!paused.is_alive(&who).await);
}

#[tokio::test]
async fn a_sign_in_that_passed_the_ban_check_opens_no_session_after_the_ban() {
    // The ban comes before or after the session is opened.
    for before in [true, false] {
        let paused = Paused::open().await;
        let pause = if before { &paused.ledger.opening } else { &paused.sessions.opening };
        pause.arm();
        let late = tokio::spawn({
            let (app, client) = (paused.app.clone(), paused.shop.client.clone());
            async move { sign_in(&app, &client, PHONE, PASSWORD).await }
        });
        pause.reached.wait().await;
        paused.ban_phone().await.unwrap();
        pause.release();
        refused(late.await.unwrap(), "banned");
        let user = paused
            .app
            .ports
            .users
            .by_phone(&Phone::from_e164(PHONE).unwrap())
            .await
            .unwrap()
            .unwrap();
        assert!(user.generation >= 1, "the ban ends sessions");
    }
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_put_back_stays_ended() {
    let paused = Paused::open().await;
    let who = paused.sign_in().await;
    // As if the fast store had lost it.
    paused.sessions.inner.end(who.session.user_id, who.session.session_id).await.unwrap();
    paused.sessions.opening.arm();
    let request = tokio::spawn({
        let (app, who) = (paused.app.clone(), who.clone());
        async move { app.current_session(&who).await.map(drop) }
    });
    paused.sessions.opening.reached.wait().await;
    // The ledger was read, and nothing restored yet: now the session ends in both stores.
    paused.ledger.end(who.session.user_id, who.session.session_id, paused.app.now()).await.unwrap();
    paused.sessions.end(who.session.user_id, who.session.session_id).await.unwrap();
    paused.sessions.opening.release();
    refused(request.await.unwrap(), "unauthenticated");
    assert!(!paused.is_alive(&who).await);
}

#[tokio::test]
async fn an_emptied_fast_store_signs_nobody_out_and_forgets_no_ban() {
    let shop = Shop::without_captchas().await;
    let admin = Phone::from_e164("+12015550199").unwrap();
    shop.app.add_user(admin.clone(), PASSWORD.to_owned(), Role::Admin).await.unwrap();
    let signed = sign_in(&shop.app, &shop.client, admin.as_str(), PASSWORD).await.unwrap();
    let admin = shop.caller(&signed.token).await;
    let shoppers = shop.shoppers(5).await;
    let [going, ended, banned, ..] = &shoppers[..] else { panic!("five were asked for") };
    shop.app.sign_out(ended, false).await.unwrap();
    shop.app
        .put_ban(&shop.admin().await, ban("user", &banned.session.user_id.to_string()))
        .await
        .unwrap();
    let attacker = client_at("198.51.100.1");
    shop.app.put_ban(&shop.admin().await, ban("address", "198.51.100.1")).await.unwrap();
    shop.app.put_ban(&shop.admin().await, ban("phone", PHONE)).await.unwrap();
    shop.app
        .put_ban(&shop.admin().await, ban("user", &shoppers[3].session.user_id.to_string()))
        .await
        .unwrap();
    shop.app
        .lift_ban(&shop.admin().await, "user", &shoppers[3].session.user_id.to_string())
        .await
        .unwrap();

    // At once, before any other recovery, and with one look-up each, however many requests wait for
    // it.
    let app = emptied(&shop, &[]).await;
    let requests = (0..20).map(|_| app.current_session(going));
    for request in futures_util::future::join_all(requests).await {
        request.unwrap();
    }
    assert_eq!(app.session_lookups().sessions, 1);
    assert!(alive(&app, &shoppers[3]).await, "the ban was lifted");
    app.enter_admin(&admin).await.unwrap();
    refused(app.current_session(banned).await, "banned");
    refused(
        app.current_session(&Caller { client: attacker.clone(), ..shoppers[4].clone() }).await,
        "banned",
    );
    assert!(!alive(&app, ended).await);
    let asked = app.session_lookups().sessions;
    for _ in 0..10 {
        assert!(!alive(&app, ended).await);
    }
    assert_eq!(app.session_lookups().sessions, asked, "the ended session is remembered");

    // Bans of subjects that send no session are restored after one tick, also after the next loss.
    for _ in 0..2 {
        let app = emptied(&shop, &[]).await;
        let operator = testing::admin(&app, &shop.client).await;
        assert!(app.bans(&operator, 0, 10).await.unwrap().is_empty());
        assert_eq!(app.sweep().await.unwrap().failed, 0);
        assert_eq!(app.bans(&operator, 0, 10).await.unwrap().len(), 3);
        refused(sign_in(&app, &attacker, "+12015550177", "any password").await, "banned");
        refused(sign_in(&app, &shop.client, PHONE, PASSWORD).await, "banned");
    }
}

#[tokio::test]
async fn bans_come_back_page_by_page() {
    let shop = Shop::without_captchas().await;
    let mut subjects = Vec::new();
    for n in 0..230 {
        let address = format!("203.0.{}.{}", n / 200, n % 200);
        shop.app.put_ban(&shop.admin().await, ban("address", &address)).await.unwrap();
        subjects.push(address);
    }
    let listed = async |app: &App| {
        let mut count = 0;
        loop {
            let page =
                app.bans(&testing::admin(app, &shop.client).await, count, 100).await.unwrap().len();
            count += u32::try_from(page).unwrap();
            if page < 100 {
                return count;
            }
        }
    };
    let app = emptied(&shop, &[]).await;
    assert_eq!(app.sweep().await.unwrap().failed, 0);
    assert_eq!(listed(&app).await, 230, "all are restored after a loss");
    // If one node of a cluster loses some bans, the loss is not noticed, but they are restored
    // within a few ticks.
    for lost in [&subjects[3], &subjects[229]] {
        assert!(app.ports.blacklist.lift(&Subject::address(lost.parse().unwrap())).await.unwrap());
    }
    assert_eq!(listed(&app).await, 228);
    for _ in 0..3 {
        assert_eq!(app.sweep().await.unwrap().failed, 0);
    }
    assert_eq!(listed(&app).await, 230);
}

#[tokio::test]
async fn the_sweeper_finishes_a_ban_whose_process_died() {
    let paused = Paused::open().await;
    let who = paused.sign_in().await;
    let phone = Subject::Phone(Phone::from_e164(PHONE).unwrap());
    let now = paused.app.now();
    let put = flashsale::domain::Ban {
        subject: phone.clone(),
        reason: "resale".to_owned(),
        created_at: now,
        expires_at: None,
    };
    paused.shop.store.put(&put, &testing::action(ActionKind::BanPut)).await.unwrap();
    assert!(paused.is_alive(&who).await);
    assert_eq!(paused.app.sweep().await.unwrap().failed, 0);
    assert!(!paused.is_alive(&who).await);
    refused(sign_in(&paused.app, &paused.shop.client, PHONE, PASSWORD).await, "banned");
    // A lift likewise.
    assert!(
        paused
            .shop
            .store
            .lift(&phone, paused.app.now(), &testing::action(ActionKind::BanLifted))
            .await
            .unwrap()
    );
    refused(sign_in(&paused.app, &paused.shop.client, PHONE, PASSWORD).await, "banned");
    assert_eq!(paused.app.sweep().await.unwrap().failed, 0);
    // A process that has seen the ban caches it for a second.
    paused.shop.clock.advance_ms(1_000);
    sign_in(&paused.app, &paused.shop.client, PHONE, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn sessions_that_are_over_are_deleted_little_by_little() {
    let shop = Shop::open(&[("CAPTCHA", "off"), ("SWEEPER__BATCH_MAX", "10")]).await;
    let who = shop.shoppers(25).await;
    let ids: Vec<SessionId> = who.iter().map(|who| who.session.session_id).collect();
    shop.clock.advance_ms(43_200_000 + 60_000);
    for left in [15, 5, 0] {
        shop.sweep().await;
        assert_eq!(shop.store.get_many_sessions(&ids).await, left);
    }
}

/// Two ports of the store have a `get_many`.
trait GetManySessions {
    async fn get_many_sessions(&self, ids: &[SessionId]) -> usize;
}

impl GetManySessions for flashsale::adapters::sqlite::Sqlite {
    async fn get_many_sessions(&self, ids: &[SessionId]) -> usize {
        SessionLedger::get_many(self, ids).await.unwrap().len()
    }
}

#[tokio::test]
async fn an_administrator_is_who_the_ledger_says() {
    let shop = Shop::without_captchas().await;
    let phone = Phone::from_e164(PHONE).unwrap();
    refused(
        shop.app.add_user(phone.clone(), "12345678".to_owned(), Role::Admin).await,
        "weak-password",
    );
    shop.app.add_user(phone.clone(), PASSWORD.to_owned(), Role::Admin).await.unwrap();
    let signed = sign_in(&shop.app, &shop.client, PHONE, PASSWORD).await.unwrap();
    assert_eq!(signed.expires_at, shop.app.now().plus_ms(3_600_000), "an hour");
    let admin = shop.caller(&signed.token).await;
    shop.app.enter_admin(&admin).await.unwrap();

    // A token whose role exceeds that of the session's record.
    let shopper = shop.shoppers(1).await.remove(0);
    let session = SessionClaims { role: Role::Admin, ..shopper.session.clone() };
    let pretender = Caller { session, ..shopper };
    refused(shop.app.enter_admin(&pretender).await, "forbidden");

    // A demotion is effective at once, also for the earlier token, and after a loss of the fast
    // store.
    shop.app.demote(&phone).await.unwrap();
    refused(shop.app.enter_admin(&admin).await, "unauthenticated");
    refused(emptied(&shop, &[]).await.enter_admin(&admin).await, "unauthenticated");
    refused(shop.app.demote(&phone).await, "not-found");
    let signed = sign_in(&shop.app, &shop.client, PHONE, PASSWORD).await.unwrap();
    assert_eq!(
        (signed.user.role, signed.expires_at),
        (Role::Shopper, shop.app.now().plus_ms(43_200_000))
    );
    let who = shop.caller(&signed.token).await;
    refused(shop.app.enter_admin(&who).await, "forbidden");

    // A password set by an operator ends the sessions too.
    refused(shop.app.set_password(&phone, "12345678".to_owned()).await, "weak-password");
    assert!(alive(&shop.app, &who).await);
    shop.app.set_password(&phone, NEW_PASSWORD.to_owned()).await.unwrap();
    assert!(!alive(&shop.app, &who).await);
    refused(sign_in(&shop.app, &shop.client, PHONE, PASSWORD).await, "bad-credentials");
    sign_in(&shop.app, &shop.client, PHONE, NEW_PASSWORD).await.unwrap();
    refused(
        shop.app
            .set_password(&Phone::from_e164("+12015550177").unwrap(), NEW_PASSWORD.to_owned())
            .await,
        "not-found",
    );
}

#[tokio::test]
async fn the_admin_api_answers_in_its_networks() {
    let shop =
        Shop::open(&[("CAPTCHA", "off"), ("ADMIN_NETWORKS", "10.0.0.0/8,2001:db8::/32")]).await;
    let phone = Phone::from_e164(PHONE).unwrap();
    shop.app.add_user(phone, PASSWORD.to_owned(), Role::Admin).await.unwrap();
    let signed = sign_in(&shop.app, &shop.client, PHONE, PASSWORD).await.unwrap();
    let admin = shop.caller(&signed.token).await;
    refused(shop.app.enter_admin(&admin).await, "forbidden");
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::1"] {
        let there = Caller { client: client_at(address), ..admin.clone() };
        shop.app.enter_admin(&there).await.unwrap();
    }
    assert!(alive(&shop.app, &admin).await, "the other endpoints answer everywhere");
}

#[tokio::test]
async fn a_change_that_comes_second_is_told() {
    let shop = Shop::without_captchas().await;
    let user = shop
        .app
        .add_user(Phone::from_e164(PHONE).unwrap(), PASSWORD.to_owned(), Role::Shopper)
        .await
        .unwrap();
    let signed = sign_in(&shop.app, &shop.client, PHONE, PASSWORD).await.unwrap();
    let who = shop.caller(&signed.token).await;
    let change = |new: &str| shop.app.change_password(&who, PASSWORD.to_owned(), new.to_owned());
    let (one, other) = tokio::join!(change(NEW_PASSWORD), change("another horse"));
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
    refused(one.and(other), "bad-credentials");
    assert_eq!(shop.store.by_id(user.user_id).await.unwrap().unwrap().generation, 1);
    assert!(shop.store.change(user.user_id, &UserChange::default(), shop.app.now()).await.unwrap());
}
