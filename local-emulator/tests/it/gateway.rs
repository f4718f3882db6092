//! The gateway against clients, proxies and neighbours that mean no good.

use std::os::unix::fs::PermissionsExt as _;

use axum::body::Body;
use hyper::{Request, header};
use serde_json::json;

use crate::{
    client::{Answer, Client},
    emulator::Place,
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
    let place =
        Place::embedded().set("TRUSTED_PROXIES", "127.0.0.0/8").set("LIMITS__ADDRESS__LIMIT", "1").set("LIMITS__ADDRESS__BURST", "1");
    let place = place.set("LIMITS__ADDRESS__WINDOW_MS", "600000");
    let emulator = place.start(&["--no-demo"]);
    // Lists of different lengths: one that is in memory costs nobody's limit.
    let mut length = 0;
    let mut sales = async |forwarded: &[u8]| {
        length += 1;
        get_with(&emulator.client, &format!("/api/sales?limit={length}"), &[("x-forwarded-for", forwarded)]).await
    };
    sales(b"203.0.113.1").await.expect(200);
    for evasion in [&b"\xff, 203.0.113.1"[..], "\u{e9}, 203.0.113.1:7".as_bytes(), b"198.51.100.1, 203.0.113.1", b"[::ffff:203.0.113.1]:7"]
    {
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
        get_with(&emulator.client, "/api/sales", &[("x-forwarded-for", b"203.0.113.1")]).await.expect(200);
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
    let place = Place::embedded().with_captchas().with_log("warn").set("SESSION_KEYS", &key).set("TICKET_KEYS", &key);
    let data = place.path().join("data");
    let mode = || std::fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    place.start(&["--no-demo"]).stop();
    assert_eq!(mode(), 0o700);
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = place.run(&["audit", "--profile", "production"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("(mode 0755)") && said.contains("chmod 700"), "{said}");
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
        let mut request = Request::builder().method(method).uri(format!("{own}{path}")).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        emulator.client.raw(request.body(Body::from(account.to_string())).unwrap()).await.unwrap()
    };
    // Not even into an account of its own: what the visitor does then, the page's owner reads.
    let evil =
        [[("sec-fetch-site", "cross-site")], [("sec-fetch-site", "same-site")], [("origin", "https://evil.example")], [("origin", "null")]];
    for header in evil {
        for path in ["/api/users", "/api/sessions"] {
            send("POST", path, &header).await.expect_problem(403, "forbidden");
        }
        let bearer = format!("Bearer {token}");
        send("DELETE", "/api/sessions/current", &[header[0], ("authorization", &bearer)]).await.expect_problem(403, "forbidden");
        send("GET", "/api/sales", &header).await.expect(200);
    }
    send("POST", "/api/users", &[]).await.expect(201);
    send("POST", "/api/sessions", &[("origin", &own)]).await.expect(201);
    send("POST", "/api/sessions", &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")]).await.expect(201);
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
    let cookies: Vec<_> = signed.headers.get_all(header::SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert!(cookies.len() == 1 && cookies[0].starts_with(&format!("__Host-session={token}; Path=/; ")), "{cookies:?}");
    assert!(cookies[0].ends_with("; Secure") && !cookies[0].contains("Domain"), "{cookies:?}");
    let with = async |cookie: String| get_with(client, "/api/sessions/current", &[("cookie", cookie.as_bytes())]).await;
    with(format!("session={token}")).await.expect_problem(401, "unauthenticated");
    with(format!("session=other; __Host-session={token}")).await.expect(200);
    let ended = client.call("DELETE", "/api/sessions/current", Some(&token), json!(null)).await.expect(204);
    let cleared: Vec<_> = ended.headers.get_all(header::SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert_eq!(cleared.len(), 2, "{cleared:?}");
    for name in ["__Host-session=;", "session=;"] {
        assert!(cleared.iter().any(|cookie| cookie.starts_with(name) && cookie.contains("Max-Age=0")), "{cleared:?}");
    }
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_on_the_command_line_is_warned_of() {
    let place = Place::embedded().set("LOG", "warn").unaudited();
    let said = |arguments: &[&str]| String::from_utf8_lossy(&place.run(arguments).stderr).into_owned();
    let warned = said(&["config", "--redis-url", "redis://:geheim@127.0.0.1:1"]);
    assert!(warned.contains("FLASHSALE_REDIS_URL") && !warned.contains("geheim"), "{warned}");
    assert_eq!(said(&["config", "--redis-url", "redis://127.0.0.1:1"]), "");
}
