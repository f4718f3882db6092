//! The command line and the embedded stores: what survives a restart, and that only one process can
//! open them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    books::{add_admin, balanced_books},
    emulator::Place,
    shop::{Bought, buy, follow},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_signs_nobody_out_and_keeps_orders() {
    let place = Place::embedded();
    let (tokens, sale) = (place.seed(1), place.sale(5));
    let token = &tokens[0];
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    let Bought::Order(order) = buy(&clients, &sale, token, false, 0).await else {
        panic!("not bought")
    };
    // Stopped at once: the order is kept whether or not the worker has recorded it.
    emulator.stop();
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    assert_eq!(follow(&clients, &order, token).await, "confirmed");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_process() {
    let place = Place::embedded();
    let emulator = place.start(&["--no-demo"]);
    let second = place.run(&["audit"]);
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
    emulator.stop();
    place.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_users_are_seeded_in_seconds() {
    let place = Place::embedded();
    let started = Instant::now();
    let tokens = place.seed(10_000);
    // It takes about one second, and longer while other tests run in parallel. Inserting users one
    // by one would take minutes.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let emulator = place.start(&["--no-demo"]);
    for token in [&tokens[0], &tokens[9_999]] {
        emulator.client.get("/api/orders", Some(token)).await.expect(200);
    }
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_create_prints_one_object() {
    let place = Place::embedded();
    let output = place.run(&[
        "sales",
        "create",
        "--title",
        "T",
        "--stock",
        "7",
        "--price",
        "1",
        "--starts-in",
        "0s",
        "--ends-in",
        "1h",
    ]);
    let sale: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(sale["sale_id"].is_string());
    assert_eq!(sale["stock"], 7);
    let refused = place.run(&["sales", "create", "--title", "T", "--stock", "0", "--price", "1"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stock: 1 to 10000000"));
    let refused = place.run(&[
        "sales",
        "create",
        "--title",
        "T",
        "--stock",
        "1",
        "--price",
        "1",
        "--ends-in",
        "soon",
    ]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--ends-in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_is_shown_and_checked() {
    let place = Place::embedded();
    let shown = place.run(&["config"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("captcha = \"off\"") && text.contains("pay_within_seconds = 900"),
        "{text}"
    );
    let place = Place::embedded().set("ORDERS__PAY_WITHIN_SECONDS", "soon").unaudited();
    let refused = place.run(&["config"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr)
            .contains("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS: expected a whole number")
    );
    let place = Place::embedded().set("PROFILE", "production").unaudited();
    assert!(String::from_utf8_lossy(&place.run(&[]).stderr).contains("session_keys"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_brought_up_to_date() {
    let place = Place::embedded();
    let said = |arguments: &[&str]| {
        let output = place.run(arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    for _ in 0..2 {
        let (code, text) = said(&["migrate", "--check"]);
        assert!(
            code == Some(1)
                && text.contains("pending: 0001 ledger\n")
                && text.contains("migrations are pending"),
            "{text}"
        );
        assert!(!place.path().join("data").exists(), "it only looks");
    }
    let (code, text) = said(&["migrate"]);
    assert!(code == Some(0) && text.contains("done: 0001 ledger, in "), "{text}");
    let (code, text) = said(&["migrate"]);
    assert!(code == Some(0) && text.starts_with("nothing to do\n"), "{text}");
    let emulator = place.start(&[]);
    let (code, text) = said(&["migrate", "--check"]);
    assert!(code == Some(0) && text.contains("the schema is up to date for release"), "{text}");
    let (code, text) = said(&["migrate"]);
    assert!(code == Some(2) && text.contains("in use by another process"), "{text}");
    drop(emulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_invoked_with_lambda_events() {
    let place = Place::embedded();
    let sale = place.sale(3);
    let event = json!({
        "version": "2.0", "routeKey": "GET /api/sales/{sale_id}", "rawPath": format!("/api/sales/{sale}"), "rawQueryString": "",
        "headers": { "host": "localhost" }, "isBase64Encoded": false,
        "requestContext": {
            "accountId": "1", "apiId": "a", "domainName": "localhost", "domainPrefix": "x", "requestId": "r", "routeKey": "x",
            "stage": "$default", "time": "x", "timeEpoch": 1,
            "http": { "method": "GET", "path": format!("/api/sales/{sale}"), "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "t" },
        },
    });
    let file = place.path().join("event.json");
    std::fs::write(&file, event.to_string()).unwrap();
    let output = place.run(&["invoke", "sales", "--event", file.to_str().unwrap()]);
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(answer["statusCode"], 200);
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["stock"], 3);
    let poison = json!({
        "eventSource": "aws:rmq", "eventSourceArn": "a",
        "rmqMessagesByQueue": { "flashsale.orders::/": [{
            "basicProperties": { "bodySize": 2, "deliveryMode": 2, "priority": 0 }, "data": "aGk=", "redelivered": false,
        }] },
    });
    std::fs::write(&file, poison.to_string()).unwrap();
    let output = place.run(&["invoke", "order-worker", "--event", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.audit().contains("1 messages are parked"), "what can't be used is put aside");
}

/// A command finds the admission store as an emulator would, even if orders of a killed emulator
/// are still in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_placed_by_invoking_functions() {
    let place = Place::embedded();
    let (tokens, sale) = (place.seed(2), place.sale(1));
    let file = place.path().join("event.json");
    let invoke = |function: &str, method: &str, path: &str, token: &str, body: Value| {
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
            "headers": { "host": "localhost", "content-type": "application/json", "authorization": format!("Bearer {token}") },
            "isBase64Encoded": false, "body": body.to_string(),
            "requestContext": {
                "accountId": "1", "apiId": "a", "domainName": "localhost", "domainPrefix": "x", "requestId": "r",
                "routeKey": "$default", "stage": "$default", "time": "x", "timeEpoch": 1,
                "http": { "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "t" },
            },
        });
        std::fs::write(&file, event.to_string()).unwrap();
        let output = place.run(&["invoke", function, "--event", file.to_str().unwrap()]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        (answer["statusCode"].as_u64().unwrap(), body)
    };
    let (tickets, orders) =
        (format!("/api/sales/{sale}/tickets"), format!("/api/sales/{sale}/orders"));
    let (status, issued) = invoke("seckill", "POST", &tickets, &tokens[0], json!({}));
    assert_eq!(status, 201, "{issued}");
    let wanted = json!({ "ticket": issued["ticket"] });
    for _ in 0..2 {
        let (status, accepted) = invoke("seckill", "POST", &orders, &tokens[0], wanted.clone());
        assert_eq!((status, &accepted["order_id"]), (202, &issued["order_id"]), "{accepted}");
    }
    let (status, refused) = invoke("seckill", "POST", &tickets, &tokens[1], json!({}));
    assert_eq!((status, &refused["type"]), (409, &json!("/problems/sold-out")));
    let emulator = place.start(&["--no-demo"]);
    let order = issued["order_id"].as_str().unwrap();
    assert_eq!(
        follow(std::slice::from_ref(&emulator.client), order, &tokens[0]).await,
        "confirmed"
    );
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn unpaid_orders_expire_and_their_units_are_sold_again() {
    let place = Place::embedded().set("ORDERS__PAY_WITHIN_SECONDS", "1");
    let (tokens, sale) = (place.seed(2), place.sale(1));
    add_admin(&place);
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    let Bought::Order(order) = buy(&clients, &sale, &tokens[0], false, 0).await else {
        panic!("not bought")
    };
    follow(&clients, &order, &tokens[0]).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let again = loop {
        match buy(&clients, &sale, &tokens[1], false, 0).await {
            Bought::Order(order) => break order,
            Bought::SoldOut if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await
            }
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(order, again);
    let first =
        emulator.client.get(&format!("/api/orders/{order}"), Some(&tokens[0])).await.expect(200);
    assert_eq!(first.text("status"), "expired");
    let path = format!("/api/orders/{order}/payment");
    emulator
        .client
        .post(&path, Some(&tokens[0]), json!({}))
        .await
        .expect_problem(409, "order-final");
    balanced_books(&emulator.client, &sale).await;
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_the_admin_port_only() {
    let place = Place::embedded();
    let emulator = place.start(&["--no-demo", "--admin-listen", "127.0.0.1:0"]);
    emulator.client.get("/api/sales", None).await.expect(200);
    let line = emulator.said.iter().find(|line| line.starts_with("metrics")).unwrap();
    let base = line.rsplit(' ').next().unwrap();
    let admin = crate::client::Client::new(base);
    let text =
        String::from_utf8(admin.get("/metrics", None).await.expect(200).bytes.to_vec()).unwrap();
    assert!(
        text.contains("flashsale_http_requests_total{function=\"sales\",method=\"GET\",route=\"/api/sales\",status=\"200\"} 1"),
        "{text}"
    );
    assert!(text.contains("flashsale_queue_waiting_messages 0"), "{text}");
    admin.get("/healthz", None).await.expect(200);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_for_its_window() {
    let place = Place::embedded().set("WORKER__BATCH_WINDOW_MS", "1500");
    let (tokens, sale) = (place.seed(2), place.sale(2));
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    let begun = Instant::now();
    let mut orders = Vec::new();
    for token in &tokens {
        let Bought::Order(order) = buy(&clients, &sale, token, false, 0).await else {
            panic!("not bought")
        };
        orders.push(order);
    }
    for (order, token) in orders.iter().zip(&tokens) {
        assert_eq!(follow(&clients, order, token).await, "confirmed");
    }
    let took = begun.elapsed().as_millis();
    assert!((1_400..2_900).contains(&took), "one window for both: {took} ms");
    emulator.stop();
}
