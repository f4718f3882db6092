//! Runs each function as Lambda does, while all servers that it does not need are down; see the
//! table of `flashsale::wire::Program`.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{
    adapters::mysql::MySql,
    api::NewSale,
    app::{App, Client},
    config::Config,
    domain::{OrderId, OrderStatus, Phone, QueueMessage, Role, SaleId},
    ports::OrderLedger as _,
    testing::{self, runtime_api::invoke_with},
    wire::{self, Program},
};
use flashsale_servers::{Builder, ServerKind, Servers};
use serde_json::{Value, json};

use crate::emulator::Place;

const PASSWORD: &str = "correct horse";
const ADMIN: &str = "+12015550199";

/// Some servers, and a configuration in which all others are down.
struct Stage {
    dir: PathBuf,
    servers: Servers,
    variables: Vec<(String, String)>,
}

impl Stage {
    async fn open(chosen: impl FnOnce(Builder) -> Builder + Send + 'static) -> Self {
        let dir = std::env::temp_dir().join(format!("fs-needs-{}", testing::order_id()));
        let place = dir.clone();
        let servers = tokio::task::spawn_blocking(move || chosen(Servers::builder(place)).start())
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("{error}"));
        // Port 1 refuses connections.
        let down = |url: Option<String>, down: &str| url.unwrap_or_else(|| down.to_owned());
        let key = format!("key:{}", BASE64.encode([7; 32]));
        let variables = [
            ("SERVERS", "external".to_owned()),
            ("CAPTCHA", "off".to_owned()),
            ("REDIS_URL", down(servers.redis_url(), "redis://127.0.0.1:1")),
            ("DATABASE_URL", down(servers.mysql_url(), "mysql://u:p@127.0.0.1:1/d")),
            ("AMQP_URL", down(servers.amqp_url(), "amqp://u:p@127.0.0.1:1/%2f")),
            ("SESSION_KEYS", key.clone()),
            ("TICKET_KEYS", key),
            // Cached values are kept for the whole test.
            ("CACHE__SALE_SHARED_MS", "60000".to_owned()),
        ];
        let variables =
            variables.map(|(name, value)| (format!("FLASHSALE_{name}"), value)).to_vec();
        Self { dir, servers, variables }
    }

    /// The same configuration in this process, on a database that is up to date.
    async fn app(&self) -> App {
        let config = Config::load(None, self.variables.clone(), []).unwrap();
        wire::migrate(&config).await.unwrap();
        App::new(config.clone(), wire::connect(&config).await.unwrap()).unwrap()
    }

    async fn ends(&self, server: ServerKind) {
        self.servers.stop_hard(server).unwrap();
    }

    /// Starts the function, and gives it the event.
    async fn invoke(&self, function: &str, event: &Value) -> Result<Value, Value> {
        invoke_with(&Place::binaries().join(function), &self.variables, event).await
    }

    /// Starts the function, and sends it a request.
    async fn http(
        &self,
        function: &str,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (i64, Value) {
        let mut headers = json!({ "host": "shop.example", "content-type": "application/json" });
        if let Some(token) = token {
            headers["authorization"] = format!("Bearer {token}").into();
        }
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
            "headers": headers, "isBase64Encoded": false, "body": body.map(|body| body.to_string()),
            "requestContext": {
                "accountId": "0", "apiId": "a", "domainName": "shop.example", "domainPrefix": "shop", "requestId": "r",
                "routeKey": "$default", "stage": "$default", "time": "22/Nov/2026:00:00:00 +0000", "timeEpoch": 1_795_305_600_000_u64,
                "http": { "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test" },
            },
        });
        let answer = self.invoke(function, &event).await.expect("an answer");
        let body = answer["body"].as_str().and_then(|body| serde_json::from_str(body).ok());
        (answer["statusCode"].as_i64().unwrap(), body.unwrap_or_default())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn client() -> Client {
    Client { address: "192.0.2.9".parse().unwrap() }
}

async fn sale(app: &App) -> SaleId {
    let now = app.now();
    let new = NewSale::new("Kettle", 1_999, 5, now..now.plus_ms(3_600_000));
    app.create_sale(new).await.unwrap().sale_id
}

async fn shopper(app: &App) -> String {
    app.seed_users(1).await.unwrap().remove(0).1
}

fn batch(message: &QueueMessage) -> Value {
    let body = serde_json::to_vec(message).unwrap();
    json!({
        "eventSource": "aws:rmq", "eventSourceArn": "a",
        "rmqMessagesByQueue": { "flashsale.orders::/": [{
            "basicProperties": { "bodySize": body.len(), "deliveryMode": 2, "priority": 0 },
            "data": BASE64.encode(&body), "redelivered": false,
        }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn captcha_needs_redis() {
    let stage = Stage::open(Builder::redis).await;
    let purpose = json!({ "purpose": "login" });
    let (status, drawn) = stage.http("captcha", "POST", "/api/captchas", None, Some(purpose)).await;
    assert_eq!(status, 201, "{drawn}");
    let audio = format!("/api/captchas/{}/audio", drawn["captcha_id"].as_str().unwrap());
    assert_eq!(stage.http("captcha", "GET", &audio, None, None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn login_needs_redis_and_the_database() {
    let stage = Stage::open(|servers| servers.redis().mysql()).await;
    drop(stage.app().await);
    let account = json!({ "phone": "+12015550101", "password": PASSWORD });
    let (status, made) =
        stage.http("login", "POST", "/api/users", None, Some(account.clone())).await;
    assert_eq!(status, 201, "{made}");
    let (status, session) = stage.http("login", "POST", "/api/sessions", None, Some(account)).await;
    assert_eq!(status, 201, "{session}");
    let token = session["token"].as_str();
    let current = async || stage.http("login", "GET", "/api/sessions/current", token, None).await;
    assert_eq!(current().await.0, 200);
    // The answer holds the user's phone, which only the database has.
    stage.ends(ServerKind::MySql).await;
    let (status, problem) = current().await;
    assert_eq!((status, &problem["type"]), (503, &json!("/problems/unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn sales_needs_redis_and_for_what_is_not_in_its_cache_the_database() {
    let stage = Stage::open(|servers| servers.redis().mysql()).await;
    let app = stage.app().await;
    let (cached, other) = (sale(&app).await, sale(&app).await);
    let page = |sale: SaleId| format!("/api/sales/{sale}");
    let (status, shown) = stage.http("sales", "GET", &page(cached), None, None).await;
    assert_eq!((status, &shown["available"]), (200, &json!(5)), "{shown}");
    stage.ends(ServerKind::MySql).await;
    let (status, shown) = stage.http("sales", "GET", &page(cached), None, None).await;
    assert_eq!((status, &shown["available"]), (200, &json!(5)), "{shown}");
    let (status, problem) = stage.http("sales", "GET", &page(other), None, None).await;
    assert_eq!((status, &problem["type"]), (503, &json!("/problems/unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn seckill_needs_redis_and_the_queue() {
    let stage = Stage::open(Builder::all).await;
    let app = stage.app().await;
    let (sale, token) = (sale(&app).await, shopper(&app).await);
    app.sale_page(&client(), sale).await.unwrap();
    stage.ends(ServerKind::MySql).await;
    let (tickets, orders) =
        (format!("/api/sales/{sale}/tickets"), format!("/api/sales/{sale}/orders"));
    let token = Some(token.as_str());
    let (status, issued) = stage.http("seckill", "POST", &tickets, token, Some(json!({}))).await;
    assert_eq!(status, 201, "{issued}");
    let wanted = json!({ "ticket": issued["ticket"] });
    let (status, accepted) =
        stage.http("seckill", "POST", &orders, token, Some(wanted.clone())).await;
    assert_eq!((status, &accepted["order_id"]), (202, &issued["order_id"]), "{accepted}");
    // Only the publishing of an order needs the queue; a ticket does not.
    stage.ends(ServerKind::RabbitMq).await;
    let (status, refused) = stage.http("seckill", "POST", &tickets, token, Some(json!({}))).await;
    assert_eq!((status, &refused["type"]), (409, &json!("/problems/already-bought")));
    let (status, refused) = stage.http("seckill", "POST", &orders, token, Some(wanted)).await;
    assert_eq!((status, &refused["type"]), (503, &json!("/problems/not-durable-yet")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn order_status_needs_redis_and_the_database() {
    let stage = Stage::open(|servers| servers.redis().mysql()).await;
    let app = stage.app().await;
    let (sale, token) = (sale(&app).await, shopper(&app).await);
    let who = app.read_session(&token).await.unwrap();
    let sale = app.ports.sales.get(sale).await.unwrap().unwrap();
    let request = testing::request(&sale, who.user_id);
    let recorded =
        app.ports.orders.record(std::slice::from_ref(&request), app.now(), 900_000).await;
    recorded.unwrap()[0].as_ref().unwrap();
    let token = Some(token.as_str());
    let (status, listed) = stage.http("order-status", "GET", "/api/orders", token, None).await;
    assert_eq!((status, listed["orders"].as_array().map(Vec::len)), (200, Some(1)), "{listed}");
    let path = format!("/api/orders/{}", request.order_id);
    let (status, order) = stage.http("order-status", "GET", &path, token, None).await;
    assert_eq!((status, &order["status"]), (200, &json!("confirmed")), "{order}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn admin_needs_redis_and_the_database_and_for_figures_the_queue() {
    let stage = Stage::open(|servers| servers.redis().mysql()).await;
    let app = stage.app().await;
    let sale = sale(&app).await;
    let phone = Phone::from_e164(ADMIN).unwrap();
    app.add_user(phone, PASSWORD.to_owned(), Role::Admin).await.unwrap();
    let account = json!({ "phone": ADMIN, "password": PASSWORD });
    let (_, session) = stage.http("login", "POST", "/api/sessions", None, Some(account)).await;
    let token = session["token"].as_str();
    let path = format!("/api/admin/sales/{sale}");
    let change = Some(json!({ "stock": 7 }));
    let (status, changed) = stage.http("admin", "PATCH", &path, token, change).await;
    assert_eq!((status, &changed["stock"]), (200, &json!(7)), "{changed}");
    let (status, _) = stage.http("admin", "GET", "/api/admin/blacklist", token, None).await;
    assert_eq!(status, 200);
    let (status, _) = stage.http("admin", "GET", &format!("{path}/stats"), token, None).await;
    assert_eq!(status, 503);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn order_worker_needs_the_database() {
    let stage = Stage::open(Builder::mysql).await;
    let app = stage.app().await;
    let sale = testing::sale(5);
    app.ports.sales.create(&sale).await.unwrap();
    let request = testing::request(&sale, testing::user_id());
    let order_id: OrderId = request.order_id;
    let event = batch(&QueueMessage { v: QueueMessage::VERSION, orders: vec![request] });
    assert_eq!(stage.invoke("order-worker", &event).await, Ok(Value::Null));
    let ledger = MySql::new(&stage.servers.mysql_url().unwrap()).unwrap();
    let order = ledger.get(order_id).await.unwrap().expect("it is recorded");
    assert_eq!(order.status, OrderStatus::Confirmed);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn sweeper_needs_redis_and_the_database() {
    let stage = Stage::open(|servers| servers.redis().mysql()).await;
    let app = stage.app().await;
    sale(&app).await;
    let event = json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "0",
        "time": "2026-11-22T00:00:00Z", "region": "us-east-1", "resources": [], "detail": {},
    });
    let swept = stage.invoke("sweeper", &event).await.unwrap();
    // The queue can't be read.
    assert_eq!((&swept["leader"], &swept["failed"]), (&json!(true), &json!(1)), "{swept}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_function_leaves_the_schema_alone_and_says_that_it_is_missing() {
    let stage = Stage::open(|servers| servers.redis().mysql()).await;
    let account = json!({ "phone": "+12015550101", "password": PASSWORD });
    let sign_up = || stage.http("login", "POST", "/api/users", None, Some(account.clone()));
    let (status, problem) = sign_up().await;
    assert_eq!((status, &problem["type"]), (503, &json!("/problems/unavailable")), "{problem}");
    let config = Config::load(None, stage.variables.clone(), []).unwrap();
    let schema = wire::schema(&config).await.unwrap();
    assert_eq!(schema.last, None);
    let ports = wire::connect_for(&config, Program::Login).await.unwrap();
    let refused = ports.users.by_id(testing::user_id()).await.unwrap_err().to_string();
    assert!(refused.contains("run `local-emulator migrate`"), "{refused}");
    wire::migrate(&config).await.unwrap();
    assert_eq!(ports.users.by_id(testing::user_id()).await.unwrap(), None, "without a restart");
    assert_eq!(sign_up().await.0, 201);
}
