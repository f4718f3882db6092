//! The gateway against malicious clients, proxies and other sites.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use axum::body::Body;
use hyper::{Request, header};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    client::{Answer, Client},
    emulator::{Emulator, Place},
    lambda::base64,
};

/// `GET` with headers, in bytes.
async fn get_with(client: &Client, path: &str, headers: &[(&str, &[u8])]) -> Answer {
    let mut request = Request::get(format!("{}{path}", client.base));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.raw(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_forwards_is_read_from_the_right() {
    let place = Place::embedded()
        .set("TRUSTED_PROXIES", "127.0.0.0/8")
        .set("LIMITS__ADDRESS__LIMIT", "1")
        .set("LIMITS__ADDRESS__BURST", "1");
    let place = place.set("LIMITS__ADDRESS__WINDOW_MS", "600000");
    let emulator = place.start(&["--no-demo"]);
    // Each request asks for another length, because a cached list is not counted against the limit.
    let mut length = 0;
    let mut sales = async |forwarded: &[u8]| {
        length += 1;
        get_with(
            &emulator.client,
            &format!("/api/sales?limit={length}"),
            &[("x-forwarded-for", forwarded)],
        )
        .await
    };
    sales(b"203.0.113.1").await.expect(200);
    for evasion in [
        &b"\xff, 203.0.113.1"[..],
        "\u{e9}, 203.0.113.1:7".as_bytes(),
        b"198.51.100.1, 203.0.113.1",
        b"[::ffff:203.0.113.1]:7",
    ] {
        sales(evasion).await.expect_problem(429, "rate-limited");
    }
    for unreadable in [&b"\xff"[..], b"203.0.113.1, \xff", b"unknown"] {
        let answer = sales(unreadable).await.expect_problem(400, "bad-header");
        assert!(answer.text("detail").starts_with("X-Forwarded-For: "), "{answer:?}");
    }
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_trusted_is_named_in_the_log_once_a_minute() {
    let place = Place::embedded().with_log("warn");
    let emulator = place.start(&["--no-demo"]);
    for _ in 0..5 {
        get_with(&emulator.client, "/api/sales", &[("x-forwarded-for", b"203.0.113.1")])
            .await
            .expect(200);
    }
    emulator.stop();
    let log = place.log();
    assert_eq!(log.matches("trusted_proxies").count(), 1, "{log}");
    let line = log.lines().find(|line| line.contains("trusted_proxies")).unwrap();
    assert!(line.contains("WARN") && line.contains("127.0.0.1"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_user_can_read_the_data_directory() {
    let key = format!("a:{}", base64(&[7; 32]));
    let place = Place::embedded()
        .with_captchas()
        .with_log("warn")
        .set("SESSION_KEYS", &key)
        .set("TICKET_KEYS", &key);
    let data = place.path().join("data");
    let mode = || std::fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    place.start(&["--no-demo"]).stop();
    assert_eq!(mode(), 0o700);
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = place.run(&["audit", "--profile", "production"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2)
            && said.contains("(mode 0755)")
            && said.contains("chmod 700"),
        "{said}"
    );
    place.start(&["--no-demo"]).stop();
    assert_eq!(mode(), 0o700);
    assert!(place.log().contains("other users could read it (mode 0755)"), "{}", place.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_another_site_changes_anything() {
    let place = Place::embedded();
    let token = place.seed(1).remove(0);
    let emulator = place.start(&["--no-demo"]);
    let own = emulator.client.base.clone();
    let account = json!({ "phone": "+1 201-555-0124", "password": "correct horse" });
    let send = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{own}{path}"))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        emulator.client.raw(request.body(Body::from(account.to_string())).unwrap()).await.unwrap()
    };
    // Another site's page may not even sign a visitor in to the site owner's account, where the
    // owner could read what the visitor does.
    let evil = [
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("origin", "https://evil.example")],
        [("origin", "null")],
    ];
    for header in evil {
        for path in ["/api/users", "/api/sessions"] {
            send("POST", path, &header).await.expect_problem(403, "forbidden");
        }
        let bearer = format!("Bearer {token}");
        send("DELETE", "/api/sessions/current", &[header[0], ("authorization", &bearer)])
            .await
            .expect_problem(403, "forbidden");
        send("GET", "/api/sales", &header).await.expect(200);
    }
    send("POST", "/api/users", &[]).await.expect(201);
    send("POST", "/api/sessions", &[("origin", &own)]).await.expect(201);
    send(
        "POST",
        "/api/sessions",
        &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
    )
    .await
    .expect(201);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secure_session_cookie_belongs_to_the_host_alone() {
    let place = Place::embedded().set("COOKIE_SECURE", "always");
    let emulator = place.start(&["--no-demo"]);
    let client = &emulator.client;
    let account = json!({ "phone": "+1 201-555-0124", "password": "correct horse" });
    client.post("/api/users", None, account.clone()).await.expect(201);
    let signed = client.post("/api/sessions", None, account).await.expect(201);
    let token = signed.text("token");
    let cookies: Vec<_> = signed
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .map(|cookie| cookie.to_str().unwrap())
        .collect();
    assert!(
        cookies.len() == 1 && cookies[0].starts_with(&format!("__Host-session={token}; Path=/; ")),
        "{cookies:?}"
    );
    assert!(cookies[0].ends_with("; Secure") && !cookies[0].contains("Domain"), "{cookies:?}");
    let with = async |cookie: String| {
        get_with(client, "/api/sessions/current", &[("cookie", cookie.as_bytes())]).await
    };
    with(format!("session={token}")).await.expect_problem(401, "unauthenticated");
    with(format!("session=other; __Host-session={token}")).await.expect(200);
    let ended =
        client.call("DELETE", "/api/sessions/current", Some(&token), json!(null)).await.expect(204);
    let cleared: Vec<_> = ended
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .map(|cookie| cookie.to_str().unwrap())
        .collect();
    assert_eq!(cleared.len(), 2, "{cleared:?}");
    for name in ["__Host-session=;", "session=;"] {
        assert!(
            cleared.iter().any(|cookie| cookie.starts_with(name) && cookie.contains("Max-Age=0")),
            "{cleared:?}"
        );
    }
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_on_the_command_line_is_warned_of() {
    let place = Place::embedded().set("LOG", "warn").unaudited();
    let said =
        |arguments: &[&str]| String::from_utf8_lossy(&place.run(arguments).stderr).into_owned();
    let warned = said(&["config", "--redis-url", "redis://:geheim@127.0.0.1:1"]);
    assert!(warned.contains("FLASHSALE_REDIS_URL") && !warned.contains("geheim"), "{warned}");
    assert_eq!(said(&["config", "--redis-url", "redis://127.0.0.1:1"]), "");
}

fn address(emulator: &Emulator) -> std::net::SocketAddr {
    emulator.client.base.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Waits until the peer has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 16 * 1024];
    let ended = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    timeout(Duration::from_secs(20), ended).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_idle_connections_than_descriptors_keep_nobody_out() {
    // The soft limit is raised to the hard one.
    let place = Place::embedded().with_descriptors(128, 300);
    let emulator = place.start(&["--no-demo"]);
    assert_eq!(emulator.descriptors(), (300, 300));
    let mut kept = Vec::new();
    for number in 0..700 {
        let mut stream = TcpStream::connect(address(&emulator)).await.unwrap();
        match number % 3 {
            0 => {}
            // An incomplete request, and an answered one.
            1 => stream.write_all(b"GET /api/sa").await.unwrap(),
            _ => {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            }
        }
        kept.push(stream);
        if number % 100 == 99 {
            let fresh = Client::new(&emulator.client.base);
            fresh.get("/api/sales", None).await.expect(200);
        }
    }
    for _ in 0..20 {
        let fresh = Client::new(&emulator.client.base);
        fresh.get("/api/sales", None).await.expect(200);
    }
    assert!(emulator.sockets() < 300);
    assert!(is_closed(&mut kept[0]).await, "the oldest made room");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_bodies_never_come_keep_nobody_out() {
    let place = Place::embedded().with_descriptors(128, 300);
    let emulator = place.start(&["--no-demo"]);
    let mut kept = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(address(&emulator)).await.unwrap();
        let head = b"POST /api/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
        stream.write_all(head).await.unwrap();
        kept.push(stream);
    }
    let fresh = Client::new(&emulator.client.base);
    // The timeout for a body is twice as long.
    let answer = tokio::time::timeout(Duration::from_secs(5), fresh.get("/api/sales", None)).await;
    answer.expect("a connection that waits for a body makes room").expect(200);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_closed() {
    let place = Place::embedded().set("GATEWAY__WRITE_TIMEOUT_MS", "5000");
    let emulator = place.start(&["--no-demo"]);
    emulator.client.get("/api/sales", None).await.expect(200);
    let before = emulator.sockets();
    let mut unread = Vec::new();
    for _ in 0..30 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(address(&emulator)).await.unwrap();
        // More than all buffers in between can hold.
        stream
            .write_all(
                "GET /explorer/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n"
                    .repeat(20)
                    .as_bytes(),
            )
            .await
            .unwrap();
        unread.push(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while emulator.sockets() < before + 30 {
        assert!(Instant::now() < deadline, "all have been accepted");
        sleep(Duration::from_millis(10)).await;
    }
    while emulator.sockets() > before + 2 {
        assert!(Instant::now() < deadline, "{} sockets, {before} before", emulator.sockets());
        sleep(Duration::from_millis(50)).await;
    }
    // A slow reader is not cut off: it takes longer than the timeout and receives everything.
    let whole = include_bytes!("../../src/openapi/viewer/swagger-ui-bundle.js.gz").len();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(address(&emulator)).await.unwrap();
    slow.write_all(
        b"GET /explorer/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await
    .unwrap();
    let (mut read, mut buffer, started) = (0, [0; 2048], Instant::now());
    loop {
        match slow.read(&mut buffer).await.unwrap() {
            0 => break,
            more => {
                read += more;
                sleep(Duration::from_secs(6).mul_f64(more as f64 / whole as f64)).await;
            }
        }
    }
    assert!(read > whole, "{read} of {whole} bytes and a head");
    assert!(started.elapsed() > Duration::from_secs(5), "{:?}", started.elapsed());
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_a_live_stream_is_not() {
    let place = Place::embedded()
        .set("GATEWAY__IDLE_TIMEOUT_MS", "2000")
        .set("GATEWAY__WRITE_TIMEOUT_MS", "2000");
    let emulator = place.start(&["--demo"]);
    let password = emulator
        .said
        .iter()
        .find(|line| line.starts_with("demo admin"))
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap();
    let account = json!({ "phone": "+12015550199", "password": password });
    let admin =
        emulator.client.post("/api/sessions", None, account).await.expect(201).text("token");
    let mut live = emulator.client.events("/console/live", &admin).await;
    let mut silent = TcpStream::connect(address(&emulator)).await.unwrap();
    let mut answered = TcpStream::connect(address(&emulator)).await.unwrap();
    answered.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut silent).await && is_closed(&mut answered).await);
    for _ in 0..3 {
        live.next().await.expect("a second of the stream");
    }
    drop(live);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_holds_only_so_many_connections() {
    let place = Place::embedded().set("GATEWAY__CONNECTIONS_PER_ADDRESS_MAX", "5").with_log("warn");
    let emulator = place.start(&["--no-demo", "--admin-listen", "127.0.0.1:0"]);
    let admin = emulator
        .said
        .iter()
        .find_map(|line| line.strip_prefix("metrics and health on "))
        .unwrap()
        .to_owned();
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(TcpStream::connect(address(&emulator)).await.unwrap());
    }
    let mut more = TcpStream::connect(address(&emulator)).await.unwrap();
    assert!(is_closed(&mut more).await);
    assert!(Client::new(&emulator.client.base).send("GET", "/healthz", None, None).await.is_err());
    Client::new(&admin).get("/healthz", None).await.expect(200);
    drop(kept);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Client::new(&emulator.client.base).send("GET", "/healthz", None, None).await.is_err() {
        assert!(Instant::now() < deadline, "there is room again");
        sleep(Duration::from_millis(20)).await;
    }
    emulator.stop();
    assert!(place.log().contains("holds 5 connections"), "{}", place.log());
    // Connections from a proxy have no limit per address.
    let place = Place::embedded()
        .set("GATEWAY__CONNECTIONS_PER_ADDRESS_MAX", "5")
        .set("TRUSTED_PROXIES", "127.0.0.1");
    let emulator = place.start(&["--no-demo"]);
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(TcpStream::connect(address(&emulator)).await.unwrap());
    }
    Client::new(&emulator.client.base).get("/healthz", None).await.expect(200);
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_makes_no_order_at_a_price_that_the_sale_never_had() {
    let place = Place::embedded();
    let sale = place.sale(5);
    let id = || flashsale::testing::order_id().to_string();
    let ids = [id(), id()];
    let order = |id: &str, price: i64| {
        json!({ "order_id": id, "sale_id": sale, "user_id": flashsale::testing::user_id().to_string(), "price": price, "currency": "USD",
            "admitted_at": "2026-11-11T20:00:00.000Z" })
    };
    let message =
        json!({ "v": 1, "orders": [order(&ids[0], 0), order(&ids[1], 1999)] }).to_string();
    let event = json!({ "eventSource": "aws:rmq", "eventSourceArn": "a", "rmqMessagesByQueue": { "flashsale.orders::/": [{
        "basicProperties": { "bodySize": message.len(), "deliveryMode": 2, "priority": 0 }, "data": base64(message.as_bytes()), "redelivered": false,
    }] } });
    let file = place.path().join("event.json");
    std::fs::write(&file, event.to_string()).unwrap();
    let output = place.run(&["invoke", "order-worker", "--event", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.audit().contains("1 messages are parked"), "the one at a price of its own");
    let emulator = place.start(&["--no-demo"]);
    let page = emulator.client.get(&format!("/api/sales/{sale}"), None).await.expect(200).json();
    assert_eq!(
        (&page["stock"], &page["available"]),
        (&json!(5), &json!(4)),
        "one order holds a unit"
    );
    emulator.stop();
}
