//! Sessions, bans and roles survive the loss of Redis' data; commands end them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{Answer, Client},
    crash::flush,
    emulator::{Emulator, Place},
};

const ADMIN: &str = "+12015550199";
const SHOPPER: &str = "+12015550123";
const PASSWORD: &str = "correct horse";
/// The time within which shoppers' sessions must work again after a loss.
const BACK_WITHIN: Duration = Duration::from_secs(5);

async fn try_sign_in(client: &Client, phone: &str, password: &str) -> Answer {
    client.post("/api/sessions", None, json!({ "phone": phone, "password": password })).await
}

async fn sign_in(client: &Client, phone: &str, password: &str) -> String {
    try_sign_in(client, phone, password).await.expect(201).text("token")
}

async fn current(client: &Client, token: &str) -> Answer {
    client.get("/api/sessions/current", Some(token)).await
}

fn add_admin(place: &Place) {
    let weak = place.run_with_input(&["users", "add-admin", "--phone", ADMIN], "12345678\n");
    assert_eq!(weak.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&weak.stderr).contains("weak-password"), "{weak:?}");
    let added =
        place.run_with_input(&["users", "add-admin", "--phone", ADMIN], &format!("{PASSWORD}\n"));
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
}

fn empty_redis(place: &Place) {
    flush(&place.servers.as_ref().unwrap().redis_url().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn sessions_bans_and_roles_outlive_an_emptied_redis_on_servers() {
    sessions_bans_and_roles_outlive_an_emptied_redis(Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn sessions_bans_and_roles_outlive_an_emptied_redis_in_processes() {
    sessions_bans_and_roles_outlive_an_emptied_redis(Place::processes()).await;
}

async fn sessions_bans_and_roles_outlive_an_emptied_redis(place: Place) {
    add_admin(&place);
    let tokens = place.seed(30);
    let emulator = place.start(&["--no-demo"]);
    let client = &emulator.client;
    client
        .post("/api/users", None, json!({ "phone": SHOPPER, "password": PASSWORD }))
        .await
        .expect(201);
    let admin = sign_in(client, ADMIN, PASSWORD).await;
    let (banned, ended, going) = (&tokens[0], &tokens[1], &tokens[2..]);
    let user = current(client, banned).await.expect(200).json()["user"]["user_id"].clone();
    let list = "/api/admin/blacklist";
    for ban in [
        json!({ "kind": "user", "value": user, "reason": "resale" }),
        json!({ "kind": "phone", "value": SHOPPER, "reason": "x" }),
    ] {
        client.post(list, Some(&admin), ban).await.expect(201);
    }
    client.call("DELETE", "/api/sessions/current", Some(ended), Value::Null).await.expect(204);
    current(client, banned).await.expect_problem(403, "banned");

    for _ in 0..2 {
        empty_redis(&place);
        let emptied = Instant::now();
        for token in going {
            current(client, token).await.expect(200);
        }
        current(client, ended).await.expect_problem(401, "unauthenticated");
        current(client, banned).await.expect_problem(403, "banned");
        try_sign_in(client, SHOPPER, PASSWORD).await.expect_problem(403, "banned");
        // The list comes from the fast store, and is complete again after a tick of the sweeper.
        loop {
            let bans = client.get(list, Some(&admin)).await.expect(200).json();
            if bans["bans"].as_array().unwrap().len() == 2 {
                break;
            }
            assert!(emptied.elapsed() < BACK_WITHIN, "{bans}");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(emptied.elapsed() < BACK_WITHIN, "{:?}", emptied.elapsed());
        current(client, ended).await.expect_problem(401, "unauthenticated");
        current(client, banned).await.expect_problem(403, "banned");
    }

    // Another process demotes the administrator: at once, and after another loss too.
    let weak = place.run_with_input(&["users", "set-password", "--phone", ADMIN], "12345678\n");
    assert!(String::from_utf8_lossy(&weak.stderr).contains("weak-password"), "{weak:?}");
    assert!(place.run(&["users", "demote", "--phone", ADMIN]).status.success());
    client.get(list, Some(&admin)).await.expect_problem(401, "unauthenticated");
    empty_redis(&place);
    client.get(list, Some(&admin)).await.expect_problem(401, "unauthenticated");
    emulator.stop();
}

/// Ten thousand shoppers whose sessions are missing send requests at once; prints the time it
/// takes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn ten_thousand_missed_sessions_come_back_on_servers() {
    const SHOPPERS: usize = 10_000;
    const CONNECTIONS: usize = 200;
    /// The default of `sessions.lookups_at_once`.
    const LOOKUPS_AT_ONCE: f64 = 2.0;
    // On a small machine this many requests delay each other, so no duration is asserted, only that
    // each is answered.
    let place = Place::servers();
    let tokens = place.seed(SHOPPERS);
    let emulator = place.start(&["--no-demo", "--admin-listen", "127.0.0.1:0"]);
    empty_redis(&place);
    let took = poll_all(&emulator.client, &tokens, CONNECTIONS).await;
    let (lookups, sessions) = (
        figure(&emulator, "flashsale_session_lookups_total").await,
        figure(&emulator, "flashsale_sessions_looked_up_total").await,
    );
    let at_once = figure(&emulator, "flashsale_session_lookups_at_once_max").await;
    assert!(sessions >= SHOPPERS as f64, "{sessions}");
    assert!((1.0..=LOOKUPS_AT_ONCE).contains(&at_once), "{at_once}");
    // Now the sessions are back and need no look-up: the same requests again are the baseline for
    // the misses.
    let baseline = poll_all(&emulator.client, &tokens, CONNECTIONS).await;
    assert_eq!(figure(&emulator, "flashsale_sessions_looked_up_total").await, sessions);
    println!(
        "{SHOPPERS} missed sessions: all answered within {took:?}, the same requests without a miss within {baseline:?}; \
         {sessions} looked up in {lookups} look-ups, at most {at_once} at once"
    );
    emulator.stop();
}

/// Sends one request with every token, asserts that each is authorized, and returns the time it
/// took.
async fn poll_all(client: &Client, tokens: &[String], connections: usize) -> Duration {
    let started = Instant::now();
    let shoppers: Vec<_> = tokens
        .chunks(tokens.len().div_ceil(connections))
        .map(|tokens| {
            let (client, tokens) = (client.clone(), tokens.to_vec());
            tokio::spawn(async move {
                for token in tokens {
                    current(&client, &token).await.expect(200);
                }
            })
        })
        .collect();
    for shopper in shoppers {
        shopper.await.unwrap();
    }
    started.elapsed()
}

/// A value from `/metrics`.
async fn figure(emulator: &Emulator, name: &str) -> f64 {
    let admin =
        emulator.said.iter().find_map(|line| line.strip_prefix("metrics and health on ")).unwrap();
    let text = Client::new(admin).get("/metrics", None).await.expect(200).bytes;
    let text = String::from_utf8(text.to_vec()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sets_passwords_and_demotes() {
    let place = Place::embedded();
    add_admin(&place);
    let emulator = place.start(&["--no-demo"]);
    let token = sign_in(&emulator.client, ADMIN, PASSWORD).await;
    emulator.client.get("/api/admin/blacklist", Some(&token)).await.expect(200);
    emulator.stop();

    let set =
        place.run_with_input(&["users", "set-password", "--phone", ADMIN], "battery staple\n");
    assert!(
        set.status.success() && String::from_utf8_lossy(&set.stdout).contains("user_id"),
        "{set:?}"
    );
    let nobody =
        place.run_with_input(&["users", "set-password", "--phone", SHOPPER], "battery staple\n");
    assert!(
        String::from_utf8_lossy(&nobody.stderr).contains("--phone: no user has this number"),
        "{nobody:?}"
    );
    let empty = place.run_with_input(&["users", "set-password", "--phone", ADMIN], "");
    assert!(String::from_utf8_lossy(&empty.stderr).contains("standard input"), "{empty:?}");
    let emulator = place.start(&["--no-demo"]);
    current(&emulator.client, &token).await.expect_problem(401, "unauthenticated");
    try_sign_in(&emulator.client, ADMIN, PASSWORD).await.expect_problem(401, "bad-credentials");
    let token = sign_in(&emulator.client, ADMIN, "battery staple").await;
    emulator.stop();

    assert!(place.run(&["users", "demote", "--phone", ADMIN]).status.success());
    let again = place.run(&["users", "demote", "--phone", ADMIN]);
    assert!(
        String::from_utf8_lossy(&again.stderr)
            .contains("--phone: no administrator has this number"),
        "{again:?}"
    );
    let emulator = place.start(&["--no-demo"]);
    current(&emulator.client, &token).await.expect_problem(401, "unauthenticated");
    let token = sign_in(&emulator.client, ADMIN, "battery staple").await;
    emulator
        .client
        .get("/api/admin/blacklist", Some(&token))
        .await
        .expect_problem(403, "forbidden");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_answers_only_in_its_networks() {
    let place = Place::embedded()
        .set("ADMIN_NETWORKS", "192.0.2.0/24")
        .set("TRUSTED_PROXIES", "127.0.0.1/32");
    add_admin(&place);
    let emulator = place.start(&["--no-demo"]);
    let token = sign_in(&emulator.client, ADMIN, PASSWORD).await;
    for path in ["/api/admin/blacklist", "/console/live"] {
        emulator.client.get(path, Some(&token)).await.expect_problem(403, "forbidden");
    }
    let request = hyper::Request::get(format!("{}/api/admin/blacklist", emulator.client.base))
        .header("authorization", format!("Bearer {token}"))
        .header("x-forwarded-for", "192.0.2.77");
    emulator
        .client
        .raw(request.body(axum::body::Body::empty()).unwrap())
        .await
        .unwrap()
        .expect(200);
    emulator.stop();
}
