//! The HTTP interface as section 3 of the design has it: methods, fields, statuses, problems.

use axum::body::Body;
use hyper::Request;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    emulator::{Emulator, Place},
    shop::follow,
};

const SHOPPER: &str = "+12015550123";
pub const ADMIN: &str = "+12015550199";

/// An emulator with the demo users.
pub struct Shop {
    emulator: Emulator,
    _place: Place,
}

impl Shop {
    pub fn open(place: Place) -> Self {
        let emulator = place.start(&["--demo", "--invoke-listen", "127.0.0.1:0"]);
        Self { emulator, _place: place }
    }

    pub fn client(&self) -> &Client {
        &self.emulator.client
    }

    fn password(&self, who: &str) -> String {
        let line = self
            .emulator
            .said
            .iter()
            .find(|line| line.contains(who))
            .expect("demo users are printed");
        line.rsplit(' ').next().unwrap().to_owned()
    }

    fn sale(&self) -> String {
        let line = self
            .emulator
            .said
            .iter()
            .find(|line| line.starts_with("demo sale"))
            .expect("the demo sale is printed");
        line.rsplit(' ').next().unwrap().to_owned()
    }

    pub async fn sign_in(&self, phone: &str) -> String {
        let body = json!({ "phone": phone, "password": self.password(phone) });
        self.client().post("/api/sessions", None, body).await.expect(201).text("token")
    }

    async fn ticket(&self, token: &str) -> Answer {
        self.client()
            .post(&format!("/api/sales/{}/tickets", self.sale()), Some(token), json!({}))
            .await
    }

    async fn order(&self, token: &str, ticket: &str) -> Answer {
        self.client()
            .post(
                &format!("/api/sales/{}/orders", self.sale()),
                Some(token),
                json!({ "ticket": ticket }),
            )
            .await
    }
}

async fn life_of_an_order(place: Place) {
    let shop = Shop::open(place);
    let (client, sale) = (shop.client(), shop.sale());
    let token = shop.sign_in(SHOPPER).await;
    let page = client.get(&format!("/api/sales/{sale}"), None).await.expect(200).json();
    for field in [
        "sale_id",
        "title",
        "description",
        "image_url",
        "price",
        "original_price",
        "currency",
        "stock",
        "available",
        "per_user_limit",
        "starts_at",
        "ends_at",
        "state",
        "server_time",
    ] {
        assert!(!page[field].is_null(), "{field} is missing in {page}");
    }
    assert_eq!(
        (&page["state"], &page["stock"], &page["available"]),
        (&json!("open"), &json!(100), &json!(100))
    );
    let list = client.get("/api/sales?limit=1", None).await.expect(200).json();
    assert_eq!(list["sales"][0]["sale_id"], json!(sale));
    assert_eq!(list["sales"][0].get("description"), None, "the list has no descriptions");

    let ticket = shop.ticket(&token).await.expect(201);
    let (ticket, order_id) = (ticket.text("ticket"), ticket.text("order_id"));
    let admin = shop.sign_in(ADMIN).await;
    let change = format!("/api/admin/sales/{sale}");
    client.call("PATCH", &change, Some(&admin), json!({ "per_user_limit": 2 })).await.expect(200);
    client.call("PATCH", &change, Some(&admin), json!({ "per_user_limit": 1 })).await.expect(200);
    let first = shop.order(&token, &ticket).await.expect(202);
    assert_eq!(first.json(), json!({ "order_id": order_id, "status": "queued" }));
    assert_eq!(first.headers["location"], format!("/api/orders/{order_id}"));
    assert_eq!(
        shop.order(&token, &ticket).await.expect(202).text("order_id"),
        order_id,
        "the same ticket, the same order"
    );
    assert_eq!(follow(std::slice::from_ref(client), &order_id, &token).await, "confirmed");
    let bought = shop.ticket(&token).await.expect_problem(409, "already-bought");
    assert_eq!(bought.json()["order_id"], json!(order_id));

    client.call("PATCH", &change, Some(&admin), json!({ "per_user_limit": 2 })).await.expect(200);
    let lower = client
        .call("PATCH", &change, Some(&admin), json!({ "per_user_limit": 1 }))
        .await
        .expect_problem(422, "invalid");
    assert_eq!(lower.json()["field"], "per_user_limit");

    let path = format!("/api/orders/{order_id}");
    let order = client.get(&path, Some(&token)).await.expect(200).json();
    assert_eq!(
        (&order["sale_id"], &order["price"], &order["currency"]),
        (&json!(sale), &json!(1_999), &json!("USD"))
    );
    assert!(order["pay_by"].is_string() && order["created_at"].is_string());
    assert!(
        order.get("version").is_none() && order.get("user_id").is_none(),
        "internal fields are not exposed: {order}"
    );
    let paid = client.post(&format!("{path}/payment"), Some(&token), json!({})).await.expect(200);
    assert_eq!(paid.text("status"), "paid");
    client.post(&format!("{path}/payment"), Some(&token), json!({})).await.expect(200);
    let refused = client
        .post(&format!("{path}/cancellation"), Some(&token), json!({}))
        .await
        .expect_problem(409, "order-final");
    assert_eq!(refused.json()["order_status"], "paid");
    assert_eq!(client.get(&path, Some(&token)).await.expect(200).text("status"), "paid");

    // Another shopper can't see the order.
    let other = shop.sign_in(ADMIN).await;
    client.get(&path, Some(&other)).await.expect_problem(404, "not-found");
    client
        .post(&format!("{path}/payment"), Some(&other), json!({}))
        .await
        .expect_problem(404, "not-found");
    client
        .post(&format!("{path}/cancellation"), Some(&other), json!({}))
        .await
        .expect_problem(404, "not-found");

    // A cancelled order returns its unit, and its ticket still yields the order.
    let second = shop.ticket(&other).await.expect(201);
    let (ticket, order_id) = (second.text("ticket"), second.text("order_id"));
    shop.order(&other, &ticket).await.expect(202);
    follow(std::slice::from_ref(client), &order_id, &other).await;
    let path = format!("/api/orders/{order_id}");
    assert_eq!(
        client
            .post(&format!("{path}/cancellation"), Some(&other), json!({}))
            .await
            .expect(200)
            .text("status"),
        "cancelled"
    );
    client
        .post(&format!("{path}/payment"), Some(&other), json!({}))
        .await
        .expect_problem(409, "order-final");
    assert_eq!(shop.order(&other, &ticket).await.expect(202).text("order_id"), order_id);
    assert_eq!(client.get(&path, Some(&other)).await.expect(200).text("status"), "cancelled");
    shop.ticket(&other).await.expect(201);
    let listed = client.get("/api/orders", Some(&other)).await.expect(200).json();
    assert_eq!(listed["orders"][0]["order_id"], json!(order_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn life_of_an_order_embedded() {
    life_of_an_order(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn life_of_an_order_on_servers() {
    life_of_an_order(Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn life_of_an_order_in_processes() {
    life_of_an_order(Place::processes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captchas_are_asked_for() {
    let shop = Shop::open(Place::embedded().with_captchas());
    let client = shop.client();
    let token = shop.sign_in(SHOPPER).await;
    let purchase = json!({ "purpose": "purchase", "sale_id": shop.sale() });
    client
        .post("/api/captchas", None, purchase.clone())
        .await
        .expect_problem(401, "unauthenticated");
    let drawn = client.post("/api/captchas", Some(&token), purchase).await.expect(201);
    assert_eq!(drawn.text("kind"), "image");
    assert!(drawn.text("image").starts_with("data:image/png;base64,"));
    let captcha_id = drawn.text("captcha_id");
    let sound = client.get(&format!("/api/captchas/{captcha_id}/audio"), None).await.expect(200);
    assert_eq!(sound.headers["content-type"], "audio/wav");
    assert!(sound.bytes.starts_with(b"RIFF"));
    client
        .post("/api/captchas", None, json!({ "purpose": "else" }))
        .await
        .expect_problem(422, "invalid");
    shop.ticket(&token).await.expect_problem(403, "captcha-required");
    let answer = json!({ "captcha_id": captcha_id, "captcha_answer": "00000" });
    let path = format!("/api/sales/{}/tickets", shop.sale());
    client.post(&path, Some(&token), answer.clone()).await.expect_problem(422, "captcha-wrong");
    client.post(&path, Some(&token), answer).await.expect_problem(410, "captcha-gone");
    client
        .get(&format!("/api/captchas/{captcha_id}/audio"), None)
        .await
        .expect_problem(410, "captcha-gone");
    let new = json!({ "phone": "+1 212-555-0147", "password": "correct horse" });
    client.post("/api/users", None, new).await.expect_problem(403, "captcha-required");
    for _ in 0..3 {
        let wrong = json!({ "phone": SHOPPER, "password": "wrong horse" });
        client.post("/api/sessions", None, wrong).await.expect_problem(401, "bad-credentials");
    }
    let right = json!({ "phone": SHOPPER, "password": shop.password(SHOPPER) });
    client.post("/api/sessions", None, right).await.expect_problem(403, "captcha-required");
}

#[tokio::test(flavor = "multi_thread")]
async fn administration() {
    let shop = Shop::open(Place::embedded());
    let client = shop.client();
    let (admin, shopper) = (shop.sign_in(ADMIN).await, shop.sign_in(SHOPPER).await);
    let new = json!({
        "title": "Watch", "price": 500, "original_price": 900, "currency": "CNY", "stock": 3, "per_user_limit": 2,
        "starts_at": "2090-01-01T00:00:00Z", "ends_at": "2091-01-01T00:00:00+08:00",
    });
    client
        .post("/api/admin/sales", Some(&shopper), new.clone())
        .await
        .expect_problem(403, "forbidden");
    client.post("/api/admin/sales", None, new.clone()).await.expect_problem(401, "unauthenticated");
    let created = client.post("/api/admin/sales", Some(&admin), new.clone()).await.expect(201);
    let sale = created.text("sale_id");
    assert_eq!(created.headers["location"], format!("/api/sales/{sale}"));
    let mut wrong = new.clone();
    wrong["stock"] = json!(0);
    assert_eq!(
        client
            .post("/api/admin/sales", Some(&admin), wrong)
            .await
            .expect_problem(422, "invalid")
            .json()["field"],
        "stock"
    );
    let mut unknown = new;
    unknown["colour"] = json!("red");
    assert_eq!(
        client
            .post("/api/admin/sales", Some(&admin), unknown)
            .await
            .expect_problem(422, "invalid")
            .json()["field"],
        "colour"
    );

    let path = format!("/api/sales/{sale}");
    assert_eq!(client.get(&path, None).await.expect(200).text("state"), "upcoming");
    let tickets = format!("{path}/tickets");
    let closed =
        client.post(&tickets, Some(&shopper), json!({})).await.expect_problem(409, "sale-not-open");
    assert_eq!(closed.text("starts_at"), "2090-01-01T00:00:00.000Z");
    let change = format!("/api/admin/sales/{sale}");
    let opened = client
        .call(
            "PATCH",
            &change,
            Some(&admin),
            json!({ "starts_at": "2020-01-01T00:00:00Z", "stock": 5 }),
        )
        .await
        .expect(200);
    assert_eq!(opened.json()["stock"], 5);
    assert_eq!(
        client.get(&path, None).await.expect(200).text("state"),
        "open",
        "the change is visible at once on this instance"
    );
    client.post(&tickets, Some(&shopper), json!({})).await.expect(201);
    client
        .call("PATCH", &change, Some(&admin), json!({ "ends_at": "2019-01-01T00:00:00Z" }))
        .await
        .expect_problem(422, "invalid");
    client
        .call("PATCH", &change, Some(&admin), json!({ "ends_at": "2020-01-02T00:00:00Z" }))
        .await
        .expect(200);
    assert_eq!(client.get(&path, None).await.expect(200).text("state"), "ended");
    client.post(&tickets, Some(&shopper), json!({})).await.expect_problem(410, "sale-ended");
    let stats = client.get(&format!("{change}/stats"), Some(&admin)).await.expect(200).json();
    assert_eq!((&stats["admission"], &stats["available"]), (&json!("open"), &json!(5)));
    let nowhere = "/api/admin/sales/01a2040f-af63-7b90-8c66-c252c4968101";
    client.call("PATCH", nowhere, Some(&admin), json!({})).await.expect_problem(404, "not-found");

    let me = client.get("/api/sessions/current", Some(&shopper)).await.expect(200).json();
    let user_id = me["user"]["user_id"].as_str().unwrap().to_owned();
    let list = "/api/admin/blacklist";
    let ban = json!({ "kind": "user", "value": user_id, "reason": "resells" });
    client.post(list, Some(&shopper), ban.clone()).await.expect_problem(403, "forbidden");
    client.post(list, Some(&admin), ban).await.expect(201);
    client
        .post(list, Some(&admin), json!({ "kind": "user", "value": "x", "reason": "y" }))
        .await
        .expect_problem(422, "invalid");
    client.get("/api/orders", Some(&shopper)).await.expect_problem(403, "banned");
    let right = json!({ "phone": SHOPPER, "password": shop.password(SHOPPER) });
    client.post("/api/sessions", None, right).await.expect_problem(403, "banned");
    let bans = client.get(list, Some(&admin)).await.expect(200).json();
    assert_eq!(bans["bans"][0]["reason"], "resells");
    let lift = format!("{list}?kind=user&value={user_id}");
    client.call("DELETE", &lift, Some(&admin), Value::Null).await.expect(204);
    client.call("DELETE", &lift, Some(&admin), Value::Null).await.expect_problem(404, "not-found");
    client.call("DELETE", list, Some(&admin), Value::Null).await.expect_problem(422, "invalid");
    client.get("/api/orders", Some(&shopper)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_requests_get_clear_answers() {
    let shop = Shop::open(Place::embedded());
    let client = shop.client();
    client.get("/api/nothing", None).await.expect_problem(404, "not-found");
    client.get("/api/sales/not-an-id", None).await.expect_problem(404, "not-found");
    client
        .get("/api/sales/01A2040F-AF63-7B90-8C66-C252C4968101", None)
        .await
        .expect_problem(404, "not-found");
    client.get("/api/sales?limit=0", None).await.expect_problem(422, "invalid");
    client.get("/api/sales?limit=101", None).await.expect_problem(422, "invalid");
    client.get("/api/sales?page=2", None).await.expect_problem(422, "invalid");
    let wrong_method = client
        .call("DELETE", "/api/sales", None, Value::Null)
        .await
        .expect_problem(405, "method-not-allowed");
    assert!(wrong_method.headers["allow"].to_str().unwrap().contains("GET"));
    client
        .post("/api/sessions", None, json!({ "phone": "+12015550123" }))
        .await
        .expect_problem(422, "invalid");
    client
        .post("/api/users", None, json!({ "phone": "x".repeat(20_000) }))
        .await
        .expect_problem(413, "body-too-large");
    let text = Request::builder()
        .method("POST")
        .uri(format!("{}/api/sessions", client.base))
        .header("content-type", "text/plain");
    client
        .raw(text.body(Body::from("{}")).unwrap())
        .await
        .unwrap()
        .expect_problem(415, "unsupported-media-type");

    let answer = client.get("/healthz", None).await.expect(200);
    assert!(answer.headers.contains_key("x-request-id"));
    for (name, value) in [("x-content-type-options", "nosniff"), ("cache-control", "no-store")] {
        assert_eq!(answer.headers[name], value);
    }
    let named =
        Request::builder().uri(format!("{}/healthz", client.base)).header("x-request-id", "abc-1");
    assert_eq!(
        client.raw(named.body(Body::empty()).unwrap()).await.unwrap().headers["x-request-id"],
        "abc-1"
    );
    client.get("/readyz", None).await.expect(200);
    client.get("/metrics", None).await.expect_problem(404, "not-found");
    client.get("/problems/sold-out", None).await.expect(200);
    client.get("/problems/nothing", None).await.expect_problem(404, "not-found");
}

async fn operators_console(place: Place) {
    let shop = Shop::open(place);
    let client = shop.client();
    let (admin, shopper) = (shop.sign_in(ADMIN).await, shop.sign_in(SHOPPER).await);
    let sale = shop.sale();
    for path in ["/console/live", "/api/admin/parked", &format!("/api/admin/sales/{sale}/books")] {
        client.get(path, None).await.expect_problem(401, "unauthenticated");
        client.get(path, Some(&shopper)).await.expect_problem(403, "forbidden");
    }

    // Live: a second in which one unit is sold.
    let mut live = client.events("/console/live", &admin).await;
    let before = live.next().await.unwrap();
    let units = |second: &Value| {
        second["sales"]
            .as_array()
            .unwrap()
            .iter()
            .find(|units| units["sale_id"] == json!(sale))
            .unwrap()
            .clone()
    };
    assert_eq!(
        (&units(&before)["stock"], &units(&before)["available"]),
        (&json!(100), &json!(100))
    );
    let ticket = shop.ticket(&shopper).await.expect(201);
    shop.order(&shopper, &ticket.text("ticket")).await.expect(202);
    shop.ticket(&shopper).await.expect_problem(409, "already-bought");
    let (mut tickets, mut late, mut orders) = (0, 0, 0);
    let sold = loop {
        let second = live.next().await.unwrap();
        tickets += second["requests"]["tickets"]["accepted"].as_u64().unwrap();
        late += second["requests"]["tickets"]["too_late"].as_u64().unwrap();
        orders += second["requests"]["orders"]["accepted"].as_u64().unwrap();
        assert_eq!(second["p99_ms"].is_null(), second["p50_ms"].is_null());
        let units = units(&second);
        let sum: u64 = ["available", "reserved", "sold"]
            .iter()
            .map(|name| units[name].as_u64().unwrap())
            .sum();
        assert_eq!(sum, 100, "{units}");
        if units["sold"] == 1 {
            break second;
        }
    };
    assert_eq!((tickets, late, orders), (1, 1, 1));
    assert_eq!((&sold["queue_waiting"], &sold["queue_parked"]), (&json!(0), &json!(0)));
    assert_eq!(sold["refusals"]["reasons"], json!({ "already-bought": 1 }));
    assert_eq!(sold["refusals"]["networks"], json!([{ "network": "127.0.0.0/24", "refused": 1 }]));

    // The books of a sale.
    let books = client
        .get(&format!("/api/admin/sales/{sale}/books"), Some(&admin))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&books["stock"], &books["sold"], &books["findings"]),
        (&json!(100), &json!(1), &json!([]))
    );
    let nowhere = "/api/admin/sales/01a2040f-af63-7b90-8c66-c252c4968101/books";
    client.get(nowhere, Some(&admin)).await.expect_problem(404, "not-found");

    // Unusable messages.
    let poison = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../functions/order-worker/events/order-worker-poison.json"
    ))
    .unwrap();
    let request = Request::post(format!(
        "{}/2015-03-31/functions/order-worker/invocations",
        shop.emulator.invoker().base
    ))
    .body(Body::from(poison))
    .unwrap();
    client.raw(request).await.unwrap().expect(200);
    let parked =
        client.get("/api/admin/parked", Some(&admin)).await.expect(200).json()["parked"].clone();
    assert_eq!(parked.as_array().unwrap().len(), 1, "{parked}");
    assert!(
        parked[0]["reason"].is_string()
            && parked[0]["body"].is_string()
            && parked[0]["bytes"].as_u64().unwrap() > 0
    );
    let message = format!("/api/admin/parked/{}", parked[0]["parked_id"].as_str().unwrap());
    client
        .call("POST", &format!("{message}/retry"), Some(&shopper), Value::Null)
        .await
        .expect_problem(403, "forbidden");
    client.call("POST", &format!("{message}/retry"), Some(&admin), Value::Null).await.expect(204);
    // The message fails again and is parked again.
    let again = loop {
        let parked =
            client.get("/api/admin/parked", Some(&admin)).await.expect(200).json()["parked"]
                .clone();
        if let Some(message) = parked.as_array().unwrap().first() {
            break format!("/api/admin/parked/{}", message["parked_id"].as_str().unwrap());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    client.call("DELETE", &again, Some(&admin), Value::Null).await.expect(204);
    client.call("DELETE", &again, Some(&admin), Value::Null).await.expect_problem(404, "not-found");
    client
        .call("POST", "/api/admin/parked/1/retry", Some(&admin), Value::Null)
        .await
        .expect_problem(404, "not-found");

    // A stream ends when the emulator stops, and does not delay the stop.
    let Shop { emulator, _place } = shop;
    emulator.stop();
    while live.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_console_embedded() {
    operators_console(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn operators_console_on_servers() {
    operators_console(Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn operators_console_in_processes() {
    operators_console(Place::processes()).await;
}
