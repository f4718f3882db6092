//! A shop of in-memory ports with a manual clock and known captcha answers, which a test over HTTP
//! could have only through a back door. The ledger and the queue are an SQLite file in a temporary
//! directory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request},
    http::{HeaderMap, StatusCode, header},
};
use serde_json::Value;

use super::{ManualClock, START, SmsBox, captcha_id, order_id, session_id, user_id};
use crate::{
    adapters::{
        memory::{
            MemoryAdmission, MemoryCache, MemoryConsumerReports, MemoryGate, MemoryLocks,
            MemoryPhoneCodes,
        },
        sqlite::Sqlite,
        system::SystemRandom,
    },
    api::{NewBan, NewSale, SignedIn},
    app::{Admin, App, Caller, CaptchaAnswer, Client, Credentials, SessionClaims, Swept},
    config::Config,
    domain::{
        Allocation, Captcha, CaptchaKind, CaptchaPurpose, OrderId, OrderStatus, Phone, Role,
        SaleId, Session, Timestamp,
    },
    http::{Routes, TraceSource, answer, endpoints::Endpoints},
    ports::{CaptchaArtist, OrderSource as _, Ports, Random, Stored},
    private_files::Loose,
    problem::Problem,
};

/// A password that the rules accept.
pub const PASSWORD: &str = "correct horse";
/// The default client address of a shop's requests.
const ADDRESS: &str = "192.0.2.7";
const ADMIN_PHONE: &str = "+12015550199";

/// A temporary directory that is removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    #[must_use]
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("flashsale-test-{}", order_id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens an SQLite store in it.
    pub async fn sqlite(&self) -> Sqlite {
        Sqlite::open(self.path(), Loose::Tighten).await.unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Draws every captcha with the same answer.
pub struct KnownAnswer;

impl KnownAnswer {
    /// The answer.
    pub const TEXT: &str = "kpt4x";
}

impl CaptchaArtist for KnownAnswer {
    fn answer(&self, _: &dyn Random) -> String {
        Self::TEXT.to_owned()
    }

    fn draw(&self, _: &str) -> Stored<Vec<u8>> {
        Ok(b"picture".to_vec())
    }

    fn speak(&self, _: &str) -> Stored<Vec<u8>> {
        Ok(b"sound".to_vec())
    }
}

/// A client at an address.
#[must_use]
pub fn client_at(address: &str) -> Client {
    Client { address: address.parse().unwrap() }
}

/// A new administrator, already admitted.
pub async fn admin(app: &App, client: &Client) -> Admin {
    let (user_id, session_id, role) = (user_id(), session_id(), Role::Admin);
    let now = app.now();
    let expires_at = now.plus_ms(60_000);
    let opened = Session { session_id, user_id, role, expires_at };
    app.ports.sessions.open(&[opened], now).await.unwrap();
    let iat = now.epoch_ms() / 1_000;
    let session = SessionClaims { user_id, session_id, role, iat, exp: iat + 60 };
    app.enter_admin(&Caller { session, client: client.clone() }).await.unwrap()
}

/// One process of a shop and its ports.
pub struct Shop {
    /// The process.
    pub app: App,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Its ledger and its queue.
    pub store: Sqlite,
    /// The messages that were sent, unless the test replaced the sender.
    pub sms: Arc<SmsBox>,
    /// The default client of requests.
    pub client: Client,
    settings: Vec<(String, String)>,
    /// The directory of the store.
    pub dir: TempDir,
}

impl Shop {
    /// A shop with settings, named like the environment variables without their prefix.
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        Self::open_with(settings, |_| {}).await
    }

    /// A shop without captchas.
    pub async fn without_captchas() -> Self {
        Self::open(&[("CAPTCHA", "off")]).await
    }

    /// A shop without captchas that verifies phone numbers.
    pub async fn verifying() -> Self {
        Self::open(&[("CAPTCHA", "off"), ("PHONE_VERIFICATION", "log")]).await
    }

    /// A shop with some ports replaced.
    pub async fn open_with(settings: &[(&str, &str)], change: impl FnOnce(&mut Ports)) -> Self {
        Self::open_in(TempDir::new(), Arc::new(ManualClock::at(START)), settings, change).await
    }

    /// A shop in a directory that an earlier shop may have used.
    pub async fn open_in(
        dir: TempDir,
        clock: Arc<ManualClock>,
        settings: &[(&str, &str)],
        change: impl FnOnce(&mut Ports),
    ) -> Self {
        let store = dir.sqlite().await;
        let gate = Arc::new(MemoryGate::new());
        let sms = Arc::new(SmsBox::default());
        let shared = Arc::new(store.clone());
        let admission = Arc::new(MemoryAdmission::default());
        let mut ports = Ports {
            clock: clock.clone(),
            ledger_clock: clock.clone(),
            random: Arc::new(SystemRandom),
            users: shared.clone(),
            session_ledger: shared.clone(),
            ban_ledger: shared.clone(),
            sales: shared.clone(),
            orders: shared.clone(),
            draws: shared.clone(),
            admin_ledger: shared.clone(),
            signing_keys: shared.clone(),
            challenge_levels: shared.clone(),
            gate: gate.clone(),
            sessions: gate.clone(),
            blacklist: gate.clone(),
            failures: gate.clone(),
            captchas: gate,
            phone_codes: Arc::new(MemoryPhoneCodes::new()),
            sms: sms.clone(),
            admission: admission.clone(),
            line: admission,
            checkout: None,
            queue: shared.clone(),
            source: shared.clone(),
            consumer_reports: Arc::new(MemoryConsumerReports::new()),
            dead_letters: shared,
            locks: Arc::new(MemoryLocks::new()),
            cache: Arc::new(MemoryCache::new()),
            artist: Arc::new(KnownAnswer),
            captcha_provider: None,
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
        Self { app, clock, store, sms, client: client_at(ADDRESS), settings, dir }
    }

    /// Ends the process and loses its memory.
    #[must_use]
    pub fn end(self) -> (TempDir, Arc<ManualClock>) {
        (self.dir, self.clock)
    }

    /// Another process on the same stores.
    #[must_use]
    pub fn another(&self) -> App {
        let config = Config::load(None, self.settings.clone(), []).unwrap();
        App::new(config, self.app.ports.clone()).unwrap()
    }

    /// Another process on the same stores that does not verify phone numbers, like all of them
    /// before verification was turned on.
    #[must_use]
    pub fn unverifying(&self) -> App {
        let off = ("FLASHSALE_PHONE_VERIFICATION".to_owned(), "off".to_owned());
        let config = Config::load(None, [self.settings.clone(), vec![off]].concat(), []).unwrap();
        App::new(config, self.app.ports.clone()).unwrap()
    }

    /// A new administrator, already admitted.
    pub async fn admin(&self) -> Admin {
        admin(&self.app, &self.client).await
    }

    /// The session token of an administrator who has signed in. Call it once per shop.
    pub async fn admin_token(&self) -> String {
        let phone = Phone::from_e164(ADMIN_PHONE).unwrap();
        self.app.add_user(phone, PASSWORD.to_owned(), Role::Admin).await.unwrap();
        self.sign_in(ADMIN_PHONE, PASSWORD).await.unwrap().token
    }

    /// Signs in, without a captcha.
    ///
    /// # Errors
    /// Those of [`App::sign_in`].
    pub async fn sign_in(&self, phone: &str, password: &str) -> Result<SignedIn, Problem> {
        let given = Credentials {
            phone: phone.to_owned(),
            country: None,
            password: password.to_owned(),
            captcha: None,
        };
        self.app.sign_in(&self.client, given).await
    }

    /// The session tokens of new shoppers.
    pub async fn tokens(&self, count: u32) -> Vec<String> {
        let seeded = self.app.seed_users(count).await.unwrap();
        seeded.into_iter().map(|(_, token)| token).collect()
    }

    /// The session token of a new shopper.
    pub async fn token(&self) -> String {
        self.tokens(1).await.remove(0)
    }

    /// The shopper whose token it is, at the shop's default address.
    pub async fn caller(&self, token: &str) -> Caller {
        let session = self.app.read_session(token).await.unwrap();
        Caller { session, client: self.client.clone() }
    }

    /// New signed-in shoppers.
    pub async fn shoppers(&self, count: u32) -> Vec<Caller> {
        let mut shoppers = Vec::new();
        for token in self.tokens(count).await {
            shoppers.push(self.caller(&token).await);
        }
        shoppers
    }

    /// A captcha for registration and sign-in, and its answer.
    pub async fn login_captcha(&self) -> CaptchaAnswer {
        let drawn = self.app.draw_login_captcha(&self.client).await.unwrap();
        CaptchaAnswer { captcha_id: drawn.captcha_id, answer: KnownAnswer::TEXT.to_owned() }
    }

    /// A captcha for the caller's ticket of a sale, and its answer.
    pub async fn purchase_captcha(&self, who: &Caller, sale: SaleId) -> CaptchaAnswer {
        let drawn = self.app.draw_purchase_captcha(who, sale).await.unwrap();
        CaptchaAnswer { captcha_id: drawn.captcha_id, answer: KnownAnswer::TEXT.to_owned() }
    }

    /// A captcha for any purpose, stored without being drawn, and its answer.
    pub async fn captcha_for(&self, purpose: CaptchaPurpose) -> CaptchaAnswer {
        let now = self.app.now();
        let captcha = Captcha {
            captcha_id: captcha_id(),
            kind: CaptchaKind::Image,
            purpose,
            secret: KnownAnswer::TEXT.to_owned(),
            expires_at: now.plus_ms(60_000),
        };
        self.app.ports.captchas.put(&captcha, now).await.unwrap();
        CaptchaAnswer { captcha_id: captcha.captcha_id, answer: captcha.secret }
    }

    /// Bans a user, an address or a phone for an hour.
    pub async fn ban(&self, kind: &str, value: &str) {
        let new = NewBan {
            kind: kind.to_owned(),
            value: value.to_owned(),
            reason: "resale".to_owned(),
            expires_at: Some(self.app.now().plus_ms(3_600_000)),
        };
        self.app.put_ban(&self.admin().await, new).await.unwrap();
    }

    /// A sale that is open for a day.
    pub async fn sale(&self, stock: u32) -> SaleId {
        self.sale_between(stock, START, START.plus_ms(86_400_000)).await
    }

    /// A sale that is open from one time to another.
    pub async fn sale_between(
        &self,
        stock: u32,
        starts_at: Timestamp,
        ends_at: Timestamp,
    ) -> SaleId {
        let new = NewSale {
            description: "A long text.".to_owned(),
            ..NewSale::new("Phone", 100, stock, starts_at..ends_at)
        };
        self.app.create_sale(new).await.unwrap().sale_id
    }

    /// A sale by draw that begins in an hour and lasts a day; entries are open.
    pub async fn draw(&self, stock: u32, change: impl FnOnce(&mut NewSale)) -> SaleId {
        let now = self.app.now();
        let mut new = NewSale {
            allocation: Some(Allocation::Draw),
            entries_open_at: Some(now),
            ..NewSale::new("Phone", 100, stock, now.plus_ms(3_600_000)..now.plus_ms(90_000_000))
        };
        change(&mut new);
        self.app.create_sale(new).await.unwrap().sale_id
    }

    /// Asks for a ticket, without a captcha.
    ///
    /// # Errors
    /// Those of [`App::issue_ticket`].
    pub async fn ticket(&self, who: &Caller, sale: SaleId) -> Result<String, Problem> {
        self.app.issue_ticket(who, sale, None).await.map(|ticket| ticket.ticket)
    }

    /// Uses a ticket.
    ///
    /// # Errors
    /// Those of [`App::place_order`].
    pub async fn order(
        &self,
        who: &Caller,
        sale: SaleId,
        ticket: &str,
    ) -> Result<OrderId, Problem> {
        let accepted = self.app.place_order(who, sale, ticket, None).await;
        accepted.map(|accepted| accepted.order_id)
    }

    /// Buys a unit; the order is queued afterwards.
    pub async fn buy(&self, who: &Caller, sale: SaleId) -> OrderId {
        let ticket = self.ticket(who, sale).await.unwrap();
        self.order(who, sale, &ticket).await.unwrap()
    }

    /// The status of the caller's order.
    pub async fn status(&self, who: &Caller, order: OrderId) -> OrderStatus {
        self.app.order(who, order).await.unwrap().status
    }

    /// Runs the worker once on the queue.
    pub async fn work(&self) -> usize {
        let batch = self.store.receive(100, 10).await.unwrap();
        let bodies: Vec<Vec<u8>> = batch.iter().map(|delivery| delivery.body.clone()).collect();
        self.app.record_messages(&bodies).await.unwrap();
        let tags: Vec<_> = batch.iter().map(|delivery| delivery.tag).collect();
        self.store.ack(&tags).await.unwrap();
        batch.len()
    }

    /// Runs one sweep and asserts that nothing failed.
    pub async fn sweep(&self) -> Swept {
        let swept = self.app.sweep().await.unwrap();
        assert_eq!(swept.failed, 0);
        swept
    }

    /// Asserts that the books of a sale balance.
    pub async fn books_balance(&self) {
        let books = self.app.audit().await.unwrap();
        let findings: Vec<_> = books.iter().flat_map(|sale| &sale.findings).collect();
        assert!(findings.is_empty(), "{findings:?}");
    }

    /// A function of the shop, called by its HTTP interface.
    pub fn serve(&self, endpoints: Endpoints) -> Site {
        self.serve_app(&self.app, endpoints)
    }

    /// The same of another process.
    pub fn serve_app(&self, app: &App, endpoints: Endpoints) -> Site {
        Site { routes: Arc::new(endpoints.routes(app)), client: self.client.clone() }
    }
}

/// A function that accepts test requests.
#[derive(Clone)]
pub struct Site {
    routes: Arc<Routes>,
    client: Client,
}

impl Site {
    /// The same function, called from another address.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self { client: client_at(address), ..self.clone() }
    }

    /// Sends a request.
    pub async fn send(&self, mut request: Request) -> Reply {
        let peer = SocketAddr::new(self.client.address, 1);
        request.extensions_mut().insert(ConnectInfo(peer));
        let next = |request| self.routes.answer(request);
        let response = answer(&TraceSource::Gateway, request, next).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// Sends a request with a session token and a JSON body; `null` means no body.
    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Value) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Value::Null => Body::empty(),
            json => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
        };
        self.send(request.body(body).unwrap()).await
    }

    /// GET.
    pub async fn get(&self, path: &str, token: Option<&str>) -> Reply {
        self.call("GET", path, token, Value::Null).await
    }

    /// POST.
    pub async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Reply {
        self.call("POST", path, token, body).await
    }
}

/// A function's answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; `null` when it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Asserts that the answer is this problem.
    #[track_caller]
    pub fn refused(self, status: u16, slug: &str) -> Self {
        let reply = self.expect(status);
        let json = reply.json();
        assert_eq!(json["type"], format!("/problems/{slug}"));
        assert_eq!(json["status"], status);
        assert!(json["title"].is_string() && json["detail"].is_string(), "{json}");
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
        reply
    }

    /// Asserts that a limit refused the request and that the answer has the limit's name, its
    /// policy and the time to retry.
    #[track_caller]
    pub fn limited(self, name: &str, policy: &str) -> Self {
        let reply = self.refused(429, "rate-limited");
        let seconds = reply.header("retry-after");
        assert!(seconds.parse::<u32>().unwrap() > 0);
        assert_eq!(reply.header("ratelimit"), format!("\"{name}\";r=0;t={seconds}"));
        assert_eq!(reply.header("ratelimit-policy"), format!("\"{name}\";{policy}"));
        reply
    }
}
