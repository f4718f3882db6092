//! Two thousand shoppers, five hundred units, on both sets of adapters.

use std::{collections::HashSet, sync::Arc};

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

async fn storm(place: &Place) {
    let tokens = place.seed(2_000);
    let sale = place.sale(500);
    add_admin(place);
    let emulator = place.start(&["--no-demo"]);
    let clients = [emulator.client.clone()];
    let ends = rush(&clients, &sale, &tokens, 64).await;
    let losers = ends.iter().filter(|(_, end)| *end == Bought::SoldOut).count();
    let surprises: Vec<_> =
        ends.iter().filter(|(_, end)| matches!(end, Bought::Surprise(_))).collect();
    assert!(surprises.is_empty(), "{surprises:?}");
    assert_eq!(follow_all(&clients, &ends).await, 500);
    assert_eq!(losers, 1_500);
    let page = emulator.client.get(&format!("/api/sales/{sale}"), None).await.expect(200).json();
    assert_eq!((&page["available"], &page["state"]), (&0.into(), &"sold_out".into()));
    assert_eq!(balanced_books(&emulator.client, &sale).await["sold"], 500);
    emulator.stop();
    let books = place.audit();
    assert!(books.contains("stock 500 = available 0 + reserved 0 + sold 500"), "{books}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_on_embedded_stores() {
    storm(&Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn storm_on_servers() {
    storm(&Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn storm_in_processes() {
    storm(&Place::processes()).await;
}
