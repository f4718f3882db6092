//! Crashes in the middle of a sale: of an emulator, of the session and admission store, of the
//! queue.

use std::time::Duration;

use flashsale::{adapters::mysql::MySql, domain::OrderStatus, ports::OrderLedger as _};
use flashsale_servers::ServerKind;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    books::{add_admin, balanced_books},
    client::Client,
    emulator::Place,
    shop::{Bought, follow},
    storm::{Accepted, follow_all, rush, rush_noting},
};

/// The functions whose processes are killed.
const FUNCTIONS: [&str; 5] = ["seckill", "order-worker", "sweeper", "sales", "order-status"];

#[track_caller]
fn no_surprises(ends: &[(String, Bought)]) {
    let surprises: Vec<_> =
        ends.iter().filter(|(_, end)| matches!(end, Bought::Surprise(_))).collect();
    assert!(surprises.is_empty(), "{surprises:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn one_of_two_emulators_is_killed_on_servers() {
    one_of_two_emulators_is_killed(Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn one_of_two_emulators_is_killed_in_processes() {
    one_of_two_emulators_is_killed(Place::processes()).await;
}

async fn one_of_two_emulators_is_killed(place: Place) {
    let (tokens, sale) = (place.seed(1_500), place.sale(600));
    let (doomed, other) = (place.start(&["--no-demo"]), place.start(&["--no-demo"]));
    let clients = [doomed.client.clone(), other.client.clone()];
    let shoppers = tokio::spawn({
        let (clients, sale, tokens) = (clients.clone(), sale.clone(), tokens.clone());
        async move { rush(&clients, &sale, &tokens, 32).await }
    });
    wait_for_sales(&other.client, &sale, 600, 100).await;
    doomed.kill();
    let ends = shoppers.await.unwrap();
    no_surprises(&ends);
    let survivors = [other.client.clone()];
    assert_eq!(follow_all(&survivors, &ends).await, 600);
    let winners = winners(&ends);
    assert_winners_are_told(&survivors, &sale, &winners).await;
    assert!(place.audit().contains("stock 600 = available 0 + reserved 0 + sold 600"));
    other.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_emulator_is_killed_and_started_again() {
    let place = Place::embedded();
    let (tokens, sale) = (place.seed(1_000), place.sale(400));
    add_admin(&place);
    let doomed = place.start(&["--no-demo"]);
    let clients = [doomed.client.clone()];
    let (early, late) = tokens.split_at(600);
    let accepted = Accepted::default();
    let shoppers = tokio::spawn({
        let (clients, sale, early, accepted) =
            (clients.clone(), sale.clone(), early.to_vec(), accepted.clone());
        async move {
            let buying = rush_noting(&clients, &sale, &early, 32, &accepted);
            // After the crash no request is answered: shoppers without an order give up here and
            // try again below.
            tokio::time::timeout(Duration::from_secs(2), buying).await.unwrap_or_default()
        }
    });
    wait_for_sales(&doomed.client, &sale, 400, 100).await;
    doomed.kill();
    shoppers.await.unwrap();
    let again = place.start(&["--no-demo"]);
    let clients = [again.client.clone()];
    // The admission store was in memory; it has been rebuilt before the first request is answered.
    let path = format!("/api/sales/{sale}/tickets");
    let first = again.client.post(&path, Some(&late[0]), json!({})).await;
    assert!(matches!(first.status.as_u16(), 201 | 409), "{} {}", first.status, first.slug());
    // All sessions are still alive, and every order that was accepted before the crash is there.
    let accepted = accepted.lock().unwrap().clone();
    assert!(accepted.len() >= 50, "the crash came too early to show anything: {}", accepted.len());
    for (order, token) in &accepted {
        assert_eq!(follow(&clients, order, token).await, "confirmed");
    }
    let ends = rush(&clients, &sale, late, 32).await;
    no_surprises(&ends);
    follow_all(&clients, &ends).await;
    // An emulator that did not accept the winners' orders still answers `already-bought`, whether
    // or not the sale is sold out.
    assert_winners_are_told(&clients, &sale, &accepted).await;
    let ends = rush(&clients, &sale, early, 32).await;
    let surprises: Vec<_> = ends
        .iter()
        .filter(
            |(_, end)| matches!(end, Bought::Surprise(what) if !what.ends_with("already-bought")),
        )
        .collect();
    assert!(surprises.is_empty(), "{surprises:?}");
    follow_all(&clients, &ends).await;
    // A unit that was reserved when the emulator crashed and whose order was never published is
    // free again.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut recorded = 0;
        for token in &tokens {
            let listed = again.client.get("/api/orders", Some(token)).await.expect(200).json();
            let orders = listed["orders"].as_array().unwrap();
            assert!(orders.len() <= 1, "{orders:?}");
            recorded += orders.len();
        }
        if recorded == 400 {
            break;
        }
        assert!(Instant::now() < deadline, "{recorded} of 400 units are sold");
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(balanced_books(&again.client, &sale).await["sold"], 400);
    again.stop();
    let books = place.audit();
    assert!(books.contains("stock 400 = available 0 + reserved 0 + sold 400"), "{books}");
}

/// As after a failover: an audit at that moment waits for the store instead of failing.
#[test]
#[ignore = "needs servers: infra/test runs it"]
fn an_audit_waits_for_a_store_that_does_not_answer() {
    let place = Place::servers();
    place.sale(1);
    let servers = place.servers.as_ref().unwrap();
    servers.pause(ServerKind::RabbitMq).unwrap();
    std::thread::scope(|scope| {
        let audit = scope.spawn(|| place.audit());
        // Longer than a call to the queue may take.
        std::thread::sleep(Duration::from_secs(10));
        let waits = !audit.is_finished();
        servers.resume(ServerKind::RabbitMq).unwrap();
        assert!(audit.join().expect("the books balance").contains("the books of 1 sales balance"));
        assert!(waits, "it can't have read the queue");
    });
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_is_emptied() {
    let place = Place::servers();
    let (tokens, sale) = (place.seed(800), place.sale(300));
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    let accepted = Accepted::default();
    let shoppers = tokio::spawn({
        let (clients, sale, tokens, accepted) =
            (clients.clone(), sale.clone(), tokens.clone(), accepted.clone());
        async move { rush_noting(&clients, &sale, &tokens, 16, &accepted).await }
    });
    wait_for_sales(&emulator.client, &sale, 300, 60).await;
    let redis = place.servers.as_ref().unwrap().redis_url().unwrap();
    flush(&redis);
    let ends = shoppers.await.unwrap();
    no_surprises(&ends);
    // No shopper is signed out, and the sale continues, also for new shoppers.
    let more = place.seed(800);
    let late = rush_noting(&clients, &sale, &more, 16, &accepted).await;
    no_surprises(&late);
    assert!(late.iter().any(|(_, end)| *end == Bought::SoldOut), "it was sold out in the end");
    let books = place.audit();
    assert!(books.contains("stock 300 = available 0 + reserved 0 + sold 300"), "{books}");
    // Every accepted order has ended, according to the ledger.
    let ledger = MySql::new(&place.servers.as_ref().unwrap().mysql_url().unwrap()).unwrap();
    let accepted = accepted.lock().unwrap().clone();
    assert!(accepted.len() >= 60, "{}", accepted.len());
    let mut confirmed = 0;
    for (order, _) in &accepted {
        let recorded = ledger.get(order.parse().unwrap()).await.unwrap();
        match recorded.unwrap_or_else(|| panic!("accepted order {order} is lost")).status {
            OrderStatus::Confirmed => confirmed += 1,
            // After the loss of the admission store the ledger refuses some orders: these have
            // ended, too.
            OrderStatus::Rejected => {}
            other => panic!("{order} is {other:?}"),
        }
    }
    assert!(confirmed <= 300, "{confirmed}");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn functions_are_killed_all_the_time() {
    // Long enough for a function to start and work in between, even in a debug build.
    const KILL_PERIOD: Duration = Duration::from_millis(250);
    const KILLS_MIN: u32 = 30;
    let place = Place::processes();
    let (tokens, sale) = (place.seed(1_500), place.sale(600));
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    let shoppers = tokio::spawn({
        let (clients, sale, tokens) = (clients.clone(), sale.clone(), tokens.clone());
        async move { rush(&clients, &sale, &tokens, 32).await }
    });
    let mut kills = 0;
    let mut turn = 0;
    while !shoppers.is_finished() || kills < KILLS_MIN {
        let mut functions: Vec<(u64, String)> = emulator.children().into_iter().collect();
        functions
            .retain(|(_, command)| FUNCTIONS.iter().any(|name| command.trim_end().ends_with(name)));
        functions.sort();
        if let Some((pid, _)) = functions.get(turn % functions.len().max(1)) {
            // The process may have ended meanwhile.
            let killed = std::process::Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .output()
                .unwrap();
            kills += u32::from(killed.status.success());
        }
        turn += 1;
        sleep(KILL_PERIOD).await;
    }
    let ends = shoppers.await.unwrap();
    no_surprises(&ends);
    assert_eq!(emulator.client.unanswered(), 0, "every request is answered");
    assert_eq!(follow_all(&clients, &ends).await, 600);
    assert!(place.audit().contains("stock 600 = available 0 + reserved 0 + sold 600"));
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn servers_are_killed_and_come_back_on_servers() {
    servers_are_killed_and_come_back(Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn servers_are_killed_and_come_back_in_processes() {
    servers_are_killed_and_come_back(Place::processes()).await;
}

async fn servers_are_killed_and_come_back(place: Place) {
    let (tokens, sale) = (place.seed(900), place.sale(300));
    let emulator = place.start(&["--no-demo"]);
    // RabbitMQ 3.10 can lose a quorum queue that was declared within the last second or two before
    // a SIGKILL: it comes back without a leader. A queue in use is older than that.
    sleep(Duration::from_secs(4)).await;
    let clients = [emulator.client.clone()];
    let shoppers = tokio::spawn({
        let (clients, sale, tokens) = (clients.clone(), sale.clone(), tokens.clone());
        async move { rush(&clients, &sale, &tokens, 16).await }
    });
    let servers = place.servers.as_ref().unwrap();
    for (kind, sold) in [(ServerKind::MySql, 30), (ServerKind::RabbitMq, 60)] {
        wait_for_sales(&emulator.client, &sale, 300, sold).await;
        servers.stop_hard(kind).unwrap();
        sleep(Duration::from_millis(300)).await;
        servers.restart(kind).unwrap();
    }
    let ends = shoppers.await.unwrap();
    no_surprises(&ends);
    assert_eq!(follow_all(&clients, &ends).await, 300);
    emulator.stop();
}

/// All 150 units are sold, and the only emulator is killed with SIGKILL and started again: no
/// winner is answered `sold-out`.
#[tokio::test(flavor = "multi_thread")]
async fn winners_are_told_so_after_a_kill_and_a_restart() {
    winners_are_told_so_after_a_kill_and_a_restart_of(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn winners_are_told_so_after_a_kill_and_a_restart_on_servers() {
    winners_are_told_so_after_a_kill_and_a_restart_of(Place::servers()).await;
}

async fn winners_are_told_so_after_a_kill_and_a_restart_of(place: Place) {
    let (tokens, sale) = (place.seed(500), place.sale(150));
    let doomed = place.start(&["--no-demo"]);
    let ends = rush(std::slice::from_ref(&doomed.client), &sale, &tokens, 32).await;
    no_surprises(&ends);
    doomed.kill();
    let again = place.start(&["--no-demo"]);
    let clients = [again.client.clone()];
    let winners = winners(&ends);
    assert_eq!(winners.len(), 150);
    // The losers' requests come first and continue, so that the emulator knows that the sale is
    // sold out.
    let losers: Vec<_> = ends
        .iter()
        .filter(|(_, end)| *end == Bought::SoldOut)
        .map(|(token, _)| token.clone())
        .collect();
    assert_eq!(losers.len(), 350);
    let crowd = tokio::spawn({
        let (clients, sale) = (clients.clone(), sale.clone());
        async move { rush(&clients, &sale, &losers, 16).await }
    });
    assert_winners_are_told(&clients, &sale, &winners).await;
    let crowd = crowd.await.unwrap();
    assert!(crowd.iter().all(|(_, end)| *end == Bought::SoldOut), "{crowd:?}");
    assert_winners_are_told(&clients, &sale, &winners).await;
    assert_eq!(follow_all(&clients, &ends).await, 150);
    again.stop();
}

/// The accepted orders of a rush, each with its buyer's token.
fn winners(ends: &[(String, Bought)]) -> Vec<(String, String)> {
    ends.iter()
        .filter_map(|(token, end)| match end {
            Bought::Order(order) => Some((order.clone(), token.clone())),
            _ => None,
        })
        .collect()
}

/// Asserts that each buyer's request for another ticket is answered with the buyer's order.
async fn assert_winners_are_told(clients: &[Client], sale: &str, winners: &[(String, String)]) {
    let path = format!("/api/sales/{sale}/tickets");
    let mut wrong = Vec::new();
    for (number, (order, token)) in winners.iter().enumerate() {
        let deadline = Instant::now() + Duration::from_secs(30);
        let (slug, told) = loop {
            let answer = clients[number % clients.len()]
                .send("POST", &path, Some(token), Some(json!({})))
                .await
                .unwrap();
            let slug = answer.slug();
            // The emulator has just started, or the client is too fast.
            if !["unavailable", "rate-limited"].contains(&slug.as_str()) {
                break (slug, answer.json()["order_id"].as_str().map(str::to_owned));
            }
            assert!(Instant::now() < deadline, "still {slug}");
            sleep(Duration::from_millis(200)).await;
        };
        if slug != "already-bought" || told.as_deref() != Some(order) {
            wrong.push((order, slug, told));
        }
    }
    assert!(wrong.is_empty(), "{} of {} winners: {wrong:?}", wrong.len(), winners.len());
}

/// Waits until some units are taken.
async fn wait_for_sales(client: &Client, sale: &str, stock: u64, taken: u64) {
    loop {
        if let Ok(answer) = client.send("GET", &format!("/api/sales/{sale}"), None, None).await
            && let Some(available) = answer.json()["available"].as_u64()
            && stock - available >= taken
        {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

pub fn flush(url: &str) {
    use std::io::{Read as _, Write as _};
    let address =
        url.strip_prefix("redis://").unwrap().trim_end_matches('/').split('/').next().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"FLUSHALL\r\n").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
}
