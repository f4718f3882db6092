//! Sessions, bans and sign-ins when one node of the fast store does not answer, the ledger fails
//! midway, or the client disconnects; and the sweep when a page of sales can't be read.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use flashsale::{
    adapters::memory::MemoryAdmission,
    api::NewBan,
    app::Credentials,
    domain::{
        ActionKind, AdmissionState, Ban, KeptSession, Opening, Phone, Role, Session, SessionId,
        Subject, Timestamp, UserId,
    },
    ports::{
        Admission as _, BanLedger as _, Blacklist, Failures, SessionLedger, Sessions, StoreError,
        Stored,
    },
    testing,
};
use tokio::sync::Semaphore;

use crate::{
    app::{Shop, refused},
    flood::Lines,
    spies::SpiedSales,
};

fn fault() -> StoreError {
    StoreError::Unavailable { store: "Redis", cause: "a test's fault".to_owned() }
}

/// A fast store in which the node with some users and subjects does not answer.
struct Nodes {
    sessions: Arc<dyn Sessions>,
    blacklist: Arc<dyn Blacklist>,
    down: Mutex<HashSet<Subject>>,
    open: Mutex<HashSet<SessionId>>,
}

impl Nodes {
    fn answers(&self, subject: &Subject) -> Stored<()> {
        if self.down.lock().unwrap().contains(subject) { Err(fault()) } else { Ok(()) }
    }

    fn fail(&self, subject: Subject) {
        self.down.lock().unwrap().insert(subject);
    }

    fn mend(&self) {
        self.down.lock().unwrap().clear();
    }

    fn is_open(&self, session_id: SessionId) -> bool {
        self.open.lock().unwrap().contains(&session_id)
    }
}

#[async_trait]
impl Sessions for Nodes {
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()> {
        for session in sessions {
            self.answers(&Subject::User(session.user_id))?;
            self.open.lock().unwrap().insert(session.session_id);
        }
        self.sessions.open(sessions, now).await
    }

    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()> {
        self.answers(&Subject::User(user_id))?;
        self.open.lock().unwrap().remove(&session_id);
        self.sessions.end(user_id, session_id).await
    }

    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()> {
        self.answers(&Subject::User(user_id))?;
        self.sessions.end_all(user_id, keep).await
    }
}

#[async_trait]
impl Blacklist for Nodes {
    async fn ban(&self, ban: &Ban) -> Stored<()> {
        self.answers(&ban.subject)?;
        self.blacklist.ban(ban).await
    }

    async fn lift(&self, subject: &Subject) -> Stored<bool> {
        self.answers(subject)?;
        self.blacklist.lift(subject).await
    }

    async fn lift_older(&self, subject: &Subject, put_until: Timestamp) -> Stored<bool> {
        self.answers(subject)?;
        self.blacklist.lift_older(subject, put_until).await
    }

    async fn list(&self, now: Timestamp, offset: u32, limit: u32) -> Stored<Vec<Ban>> {
        self.blacklist.list(now, offset, limit).await
    }

    async fn restore(&self, bans: &[Ban]) -> Stored<()> {
        for ban in bans {
            self.answers(&ban.subject)?;
        }
        self.blacklist.restore(bans).await
    }

    async fn begin_loading(&self, token: u128) -> Stored<bool> {
        self.blacklist.begin_loading(token).await
    }

    async fn finish_loading(&self, token: u128) -> Stored<()> {
        self.blacklist.finish_loading(token).await
    }
}

async fn with_nodes(settings: &[(&str, &str)]) -> (Shop, Arc<Nodes>) {
    let mut nodes = None;
    let shop = Shop::open_with(&[&[("CAPTCHA", "off")], settings].concat(), |ports| {
        let of = Arc::new(Nodes {
            sessions: ports.sessions.clone(),
            blacklist: ports.blacklist.clone(),
            down: Mutex::default(),
            open: Mutex::default(),
        });
        ports.sessions = of.clone();
        ports.blacklist = of.clone();
        nodes = Some(of);
    })
    .await;
    (shop, nodes.unwrap())
}

#[tokio::test]
async fn a_node_that_does_not_answer_holds_up_no_ends_of_others() {
    let (shop, nodes) = with_nodes(&[("SWEEPER__BATCH_MAX", "2")]).await;
    let shoppers = shop.shoppers(7).await;
    // The ends on the failing node are due first, and are more than one tick copies.
    for (nth, who) in shoppers.iter().enumerate() {
        if nth < 5 {
            nodes.fail(Subject::User(who.session.user_id));
        }
        shop.clock.advance_ms(1);
        shop.app
            .ports
            .session_ledger
            .end(who.session.user_id, who.session.session_id, shop.app.now())
            .await
            .unwrap();
    }
    for _ in 0..4 {
        assert!(shop.app.sweep().await.unwrap().leader);
        shop.clock.advance_ms(1_000);
    }
    assert!(
        shoppers[5..].iter().all(|who| !nodes.is_open(who.session.session_id)),
        "the others' ends were copied"
    );
    assert!(shoppers[..5].iter().all(|who| nodes.is_open(who.session.session_id)));
    nodes.mend();
    for _ in 0..10 {
        shop.clock.advance_ms(1_000);
        assert_eq!(shop.sweep().await.failed, 0);
    }
    assert!(
        shoppers.iter().all(|who| !nodes.is_open(who.session.session_id)),
        "these were copied once their node answered"
    );
}

fn address(n: u32) -> Subject {
    Subject::address(std::net::Ipv4Addr::from_bits(0xCB00_7100 + n).into())
}

fn ban(subject: &Subject, created_at: Timestamp) -> Ban {
    Ban { subject: subject.clone(), reason: "resale".to_owned(), created_at, expires_at: None }
}

async fn banned(shop: &Shop) -> HashSet<Subject> {
    let bans = shop.app.ports.blacklist.list(shop.app.now(), 0, 1_000).await.unwrap();
    bans.into_iter().map(|ban| ban.subject).collect()
}

#[tokio::test]
async fn a_node_that_does_not_answer_holds_up_no_bans_of_others() {
    let (shop, nodes) = with_nodes(&[("SWEEPER__BATCH_MAX", "2")]).await;
    // The fast store has noted that no bans need loading.
    shop.sweep().await;
    for n in 0..7 {
        if n < 5 {
            nodes.fail(address(n));
        }
        shop.clock.advance_ms(1);
        shop.store
            .put(&ban(&address(n), shop.app.now()), &testing::action(ActionKind::BanPut))
            .await
            .unwrap();
    }
    // Restoring the bans page by page would store them too. Because the restore fails here, the
    // test shows that each ban is copied.
    for _ in 0..4 {
        shop.app.sweep().await.unwrap();
        shop.clock.advance_ms(1_000);
    }
    assert_eq!(banned(&shop).await, HashSet::from([address(5), address(6)]));
    let due = shop.store.shares_due(shop.app.now().plus_ms(30_000), 100).await.unwrap();
    assert_eq!(due.len(), 5, "the two were copied and noted: {due:?}");
    nodes.mend();
    for _ in 0..10 {
        shop.clock.advance_ms(1_000);
        assert_eq!(shop.sweep().await.failed, 0);
    }
    assert_eq!(banned(&shop).await.len(), 7);
}

#[tokio::test]
async fn bans_of_a_node_that_does_not_answer_hold_up_no_page_of_others() {
    let (shop, nodes) = with_nodes(&[]).await;
    for n in 0..130 {
        shop.store
            .put(&ban(&address(n), shop.app.now()), &testing::action(ActionKind::BanPut))
            .await
            .unwrap();
        let kept = shop.app.ports.ban_ledger.of(&[address(n)]).await.unwrap();
        shop.store.note_shared(&address(n), kept[0].version, None).await.unwrap();
    }
    nodes.fail(address(3));
    assert!(shop.app.sweep().await.unwrap().failed > 0);
    assert_eq!(banned(&shop).await.len(), 129, "all except one are restored after the loss");
    nodes.mend();
    assert_eq!(shop.sweep().await.failed, 0);
    assert_eq!(banned(&shop).await.len(), 130, "loading was not noted as finished");
    // One ban on each of two pages is lost by its node, and the first can't be restored.
    for n in [0, 129] {
        shop.app.ports.blacklist.lift(&address(n)).await.unwrap();
    }
    for n in 0..100 {
        nodes.fail(address(n));
    }
    for _ in 0..3 {
        shop.app.sweep().await.unwrap();
    }
    assert!(banned(&shop).await.contains(&address(129)), "the second page was restored");
}

#[tokio::test]
async fn old_bans_are_looked_for_once_a_minute_and_then_page_by_page() {
    const KEPT_MS: u64 = 30 * 86_400_000;
    let (shop, _) = with_nodes(&[("SWEEPER__BATCH_MAX", "2")]).await;
    let kept =
        async || shop.store.of(&(0..6).map(address).collect::<Vec<_>>()).await.unwrap().len();
    for n in 0..6 {
        // The last ban is created a second later.
        let created_at = if n == 5 { shop.app.now().plus_ms(1_000) } else { shop.app.now() };
        let ban = Ban { expires_at: Some(created_at.plus_ms(1)), ..ban(&address(n), created_at) };
        shop.store.put(&ban, &testing::action(ActionKind::BanPut)).await.unwrap();
        shop.store.note_shared(&address(n), 1, None).await.unwrap();
    }
    shop.clock.advance_ms(KEPT_MS + 1);
    let mut left = Vec::new();
    for _ in 0..3 {
        shop.sweep().await;
        left.push(kept().await);
    }
    assert_eq!(left, [4, 2, 1], "one page per tick");
    shop.clock.advance_ms(59_999);
    shop.sweep().await;
    assert_eq!(kept().await, 1, "the last search was less than a minute ago");
    shop.clock.advance_ms(1);
    shop.sweep().await;
    assert_eq!(kept().await, 0);
}

#[tokio::test]
async fn what_an_administrator_has_done_is_logged_also_when_the_fast_store_fails_afterwards() {
    let (lines, _log) = Lines::keep();
    let (shop, nodes) = with_nodes(&[]).await;
    let admin = shop.admin().await;
    nodes.fail(address(1));
    let new = NewBan {
        kind: "address".to_owned(),
        value: address(1).value(),
        reason: "resale".to_owned(),
        expires_at: None,
    };
    refused(shop.app.put_ban(&admin, new.clone()).await, "unavailable");
    assert_eq!(lines.of("ban-put").len(), 1);
    refused(shop.app.lift_ban(&admin, "address", &new.value).await, "unavailable");
    assert_eq!(lines.of("ban-lifted").len(), 1);
    // The ledger has the change already, and the fast store does not: the change happened once.
    nodes.mend();
    refused(shop.app.lift_ban(&admin, "address", &new.value).await, "not-found");
    assert_eq!(lines.of("ban-lifted").len(), 1);
    // An automatic ban, which is only in the fast store.
    nodes.ban(&ban(&address(2), shop.app.now())).await.unwrap();
    shop.app.lift_ban(&admin, "address", &address(2).value()).await.unwrap();
    assert_eq!(lines.of("ban-lifted").len(), 2);
}

#[tokio::test]
async fn a_lifting_that_is_told_again_leaves_a_ban_that_was_put_since() {
    let (shop, _) = with_nodes(&[]).await;
    shop.sweep().await;
    let operators = ban(&address(1), shop.app.now());
    shop.store.put(&operators, &testing::action(ActionKind::BanPut)).await.unwrap();
    shop.sweep().await;
    shop.clock.advance_ms(1_000);
    assert!(
        shop.store
            .lift(&address(1), shop.app.now(), &testing::action(ActionKind::BanLifted))
            .await
            .unwrap()
    );
    // Before the sweeper copies the lift, and again before it copies it a second time.
    for wait_ms in [1_000, 61_000] {
        shop.clock.advance_ms(1);
        let automatic = Ban {
            reason: "too many refused requests".to_owned(),
            ..ban(&address(1), shop.app.now())
        };
        shop.app.ports.blacklist.ban(&automatic).await.unwrap();
        shop.clock.advance_ms(wait_ms);
        assert!(shop.sweep().await.shared > 0, "the lift was copied");
        assert_eq!(banned(&shop).await, HashSet::from([address(1)]));
    }
    // A process that read the ban before the lift restores it late: this copy is removed.
    shop.store.put(&operators, &testing::action(ActionKind::BanPut)).await.unwrap();
    shop.clock.advance_ms(1);
    assert!(
        shop.store
            .lift(&address(1), shop.app.now(), &testing::action(ActionKind::BanLifted))
            .await
            .unwrap()
    );
    shop.app.ports.blacklist.ban(&operators).await.unwrap();
    shop.sweep().await;
    assert_eq!(banned(&shop).await, HashSet::new());
}

#[tokio::test]
async fn a_node_that_does_not_answer_fails_no_look_ups_of_others() {
    let (shop, nodes) = with_nodes(&[]).await;
    let shoppers = shop.shoppers(20).await;
    for (nth, who) in shoppers.iter().enumerate() {
        nodes.sessions.end(who.session.user_id, who.session.session_id).await.unwrap();
        if nth % 2 == 0 {
            nodes.fail(Subject::User(who.session.user_id));
        }
    }
    let answers =
        futures_util::future::join_all(shoppers.iter().map(|who| shop.app.current_session(who)))
            .await;
    for (nth, answer) in answers.into_iter().enumerate() {
        if nth % 2 == 0 {
            refused(answer, "unavailable");
        } else {
            answer.unwrap();
        }
    }
    nodes.mend();
    for who in &shoppers {
        shop.app.current_session(who).await.unwrap();
    }
}

/// The ledger's sessions, with one failing read.
struct FailingReads {
    inner: Arc<dyn SessionLedger>,
    /// The number of reads until the failing one; 0: none fails.
    until: AtomicU32,
}

#[async_trait]
impl SessionLedger for FailingReads {
    async fn open(&self, openings: &[Opening], now: Timestamp) -> Stored<Vec<SessionId>> {
        self.inner.open(openings, now).await
    }

    async fn get_many(&self, session_ids: &[SessionId]) -> Stored<Vec<KeptSession>> {
        let until = self.until.load(Ordering::SeqCst);
        self.until.store(until.saturating_sub(1), Ordering::SeqCst);
        if until == 1 { Err(fault()) } else { self.inner.get_many(session_ids).await }
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

#[tokio::test]
async fn a_session_whose_second_look_up_fails_is_not_left_open() {
    let (shop, nodes) = with_nodes(&[]).await;
    let ledger = Arc::new(FailingReads {
        inner: shop.app.ports.session_ledger.clone(),
        until: AtomicU32::new(0),
    });
    let mut ports = shop.app.ports.clone();
    ports.session_ledger = ledger.clone();
    let app = flashsale::app::App::new(shop.app.config.clone(), ports).unwrap();
    let who = shop.shoppers(1).await.remove(0);
    nodes.end(who.session.user_id, who.session.session_id).await.unwrap();
    ledger.until.store(2, Ordering::SeqCst);
    refused(app.current_session(&who).await, "unavailable");
    assert_eq!(ledger.until.load(Ordering::SeqCst), 0, "it was the second read that failed");
    assert!(!nodes.is_open(who.session.session_id), "it may have ended meanwhile");
    app.current_session(&who).await.unwrap();
}

/// Failure counts whose increment waits for the test.
struct PausedFailures {
    inner: Arc<dyn Failures>,
    reached: Semaphore,
    go: Semaphore,
}

#[async_trait]
impl Failures for PausedFailures {
    async fn count(&self, subject: &Subject, now: Timestamp) -> Stored<u32> {
        self.inner.count(subject, now).await
    }

    async fn add(&self, subject: &Subject, window_ms: u64, now: Timestamp) -> Stored<u32> {
        self.reached.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        self.inner.add(subject, window_ms, now).await
    }

    async fn clear(&self, subject: &Subject) -> Stored<()> {
        self.inner.clear(subject).await
    }
}

#[tokio::test]
async fn a_failed_sign_in_is_counted_when_its_client_goes_away() {
    let mut failures = None;
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        let of = Arc::new(PausedFailures {
            inner: ports.failures.clone(),
            reached: Semaphore::new(0),
            go: Semaphore::new(0),
        });
        ports.failures = of.clone();
        failures = Some(of);
    })
    .await;
    let failures = failures.unwrap();
    let phone = Phone::from_e164("+12015550123").unwrap();
    shop.app.add_user(phone.clone(), "correct horse".to_owned(), Role::Shopper).await.unwrap();
    let request = tokio::spawn({
        let (app, client) = (shop.app.clone(), shop.client.clone());
        let given = Credentials {
            phone: phone.as_str().to_owned(),
            country: None,
            password: "wrong horse".to_owned(),
            captcha: None,
        };
        async move { app.sign_in(&client, given).await.map(drop) }
    });
    tokio::time::timeout(Duration::from_secs(20), failures.reached.acquire())
        .await
        .expect("the use case is about to count")
        .unwrap()
        .forget();
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    failures.go.add_permits(2);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    for subject in [Subject::Phone(phone), Subject::address(shop.client.address)] {
        while failures.count(&subject, shop.app.now()).await.unwrap() == 0 {
            assert!(tokio::time::Instant::now() < deadline, "{subject:?} guessed uncounted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_page_of_sales_that_can_not_be_read_starts_no_wait_anew() {
    let memory = Arc::new(MemoryAdmission::default());
    let mut sales = None;
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        let of = Arc::new(SpiedSales::new(ports.sales.clone()));
        ports.admission = memory.clone();
        ports.sales = of.clone();
        sales = Some(of);
    })
    .await;
    let sale = shop.sale(1).await;
    memory.lose_everything();
    shop.sweep().await;
    shop.clock.advance_ms(4_000);
    sales.unwrap().fail_next_page();
    assert_eq!(shop.app.sweep().await.unwrap().failed, 1);
    shop.clock.advance_ms(5_000);
    shop.sweep().await;
    assert!(
        matches!(memory.state(sale).await.unwrap(), AdmissionState::Open { .. }),
        "nine seconds have passed since it began"
    );
}
