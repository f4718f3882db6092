//! Two thousand shoppers, five hundred units, on both sets of adapters.

use std::{collections::HashSet, sync::Arc};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Mutex;

use crate::{
    books::{add_admin, balanced_books},
    client::Client,
    emulator::Place,
    shop::{Bought, buy, follow},
};

/// Accepted orders with their buyers' tokens, recorded when the 202 arrives.
pub type Accepted = Arc<std::sync::Mutex<Vec<(String, String)>>>;

/// Buys with every token, `connections` at a time; every third shopper sends its orders twice.
pub async fn rush(
    emulators: &[Client],
    sale: &str,
    tokens: &[String],
    connections: usize,
) -> Vec<(String, Bought)> {
    rush_noting(emulators, sale, tokens, connections, &Accepted::default()).await
}

/// Like [`rush`], but records every accepted order at once, so that it is known even if the rush is
/// aborted.
pub async fn rush_noting(
    emulators: &[Client],
    sale: &str,
    tokens: &[String],
    connections: usize,
    accepted: &Accepted,
) -> Vec<(String, Bought)> {
    let waiting: Arc<Mutex<Vec<(usize, String)>>> =
        Arc::new(Mutex::new(tokens.iter().cloned().enumerate().collect()));
    let shoppers: Vec<_> = (0..connections)
        .map(|_| {
            let (waiting, emulators, sale) =
                (Arc::clone(&waiting), emulators.to_vec(), sale.to_owned());
            let accepted = Arc::clone(accepted);
            tokio::spawn(async move {
                let mut ends = Vec::new();
                loop {
                    let next = waiting.lock().await.pop();
                    let Some((number, token)) = next else { return ends };
                    let end = buy(&emulators, &sale, &token, number % 3 == 0, number).await;
                    if let Bought::Order(order) = &end {
                        accepted.lock().unwrap().push((order.clone(), token.clone()));
                    }
                    ends.push((token, end));
                }
            })
        })
        .collect();
    let mut ends = Vec::new();
    for shopper in shoppers {
        ends.extend(shopper.await.unwrap());
    }
    ends
}

/// Follows every accepted order and returns how many were confirmed; panics at any other end.
pub async fn follow_all(emulators: &[Client], ends: &[(String, Bought)]) -> usize {
    let mut orders = HashSet::new();
    for (token, end) in ends {
        if let Bought::Order(order) = end {
            assert!(orders.insert(order.clone()), "one order, one buyer");
            assert_eq!(follow(emulators, order, token).await, "confirmed");
        }
    }
    orders.len()
}

async fn storm(place: &Place, emulators: usize, connections: usize) {
    let tokens = place.seed(2_000);
    let sale = place.sale(500);
    add_admin(place);
    let mut emulators: Vec<_> = (0..emulators).map(|_| place.start(&["--no-demo"])).collect();
    let clients: Vec<_> = emulators.iter().map(|emulator| emulator.client.clone()).collect();
    let ends = rush(&clients, &sale, &tokens, connections).await;
    let losers = ends.iter().filter(|(_, end)| *end == Bought::SoldOut).count();
    let surprises: Vec<_> =
        ends.iter().filter(|(_, end)| matches!(end, Bought::Surprise(_))).collect();
    assert!(surprises.is_empty(), "{surprises:?}");
    assert_eq!(follow_all(&clients, &ends).await, 500);
    assert_eq!(losers, 1_500);
    for client in &clients {
        let page = client.get(&format!("/api/sales/{sale}"), None).await.expect(200).json();
        assert_eq!((&page["available"], &page["state"]), (&0.into(), &"sold_out".into()));
    }
    assert_eq!(balanced_books(&clients[0], &sale).await["sold"], 500);
    for emulator in emulators.drain(..) {
        emulator.stop();
    }
    let books = place.audit();
    assert!(books.contains("stock 500 = available 0 + reserved 0 + sold 500"), "{books}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_on_embedded_stores() {
    storm(&Place::embedded(), 1, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn storm_on_servers() {
    storm(&Place::servers(), 1, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn storm_in_processes() {
    storm(&Place::processes(), 1, 64).await;
}

/// Every shopper at once, each with a connection of its own.
#[tokio::test(flavor = "multi_thread")]
async fn storm_of_2000_connections_on_embedded_stores() {
    allow_connections();
    storm(&Place::embedded(), 1, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn storm_of_2000_connections_on_servers() {
    allow_connections();
    storm(&Place::servers(), 2, 2_000).await;
}

/// The test's own process needs a descriptor for each connection.
fn allow_connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    assert!(maximum.is_none_or(|maximum| maximum >= 4_096), "ulimit -Hn must be 4096 at least");
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
