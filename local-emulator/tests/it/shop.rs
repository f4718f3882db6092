//! A shopper that buys one unit as a good client does: it retries with the same ticket, and waits
//! before a retry when it is refused by a limit.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::Client;

/// How a shopper's attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bought {
    /// A 202 for this order.
    Order(String),
    /// `sold-out`.
    SoldOut,
    /// An answer that a good client must never get: the problem's slug.
    Surprise(String),
}

/// How long a shopper keeps trying.
const PATIENCE: Duration = Duration::from_secs(60);

/// Buys one unit from any emulator that answers. With `twice`, every order request is sent twice at
/// once.
pub async fn buy(
    emulators: &[Client],
    sale: &str,
    token: &str,
    twice: bool,
    first: usize,
) -> Bought {
    let deadline = Instant::now() + PATIENCE;
    let mut turn = first;
    let mut ticket: Option<(String, String)> = None;
    while Instant::now() < deadline {
        let client = &emulators[turn % emulators.len()];
        turn += 1;
        let Some((sent, order_id)) = &ticket else {
            match client
                .send("POST", &format!("/api/sales/{sale}/tickets"), Some(token), Some(json!({})))
                .await
            {
                Ok(answer) if answer.status == 201 => {
                    ticket = Some((answer.text("ticket"), answer.text("order_id")))
                }
                Ok(answer) => match answer.slug().as_str() {
                    "sold-out" => return Bought::SoldOut,
                    "rate-limited" | "unavailable" => sleep(Duration::from_millis(200)).await,
                    // A function's process ended: retry at once.
                    "function-failed" => {}
                    other => return Bought::Surprise(format!("ticket: {} {other}", answer.status)),
                },
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
            continue;
        };
        let path = format!("/api/sales/{sale}/orders");
        let order = || client.send("POST", &path, Some(token), Some(json!({ "ticket": sent })));
        let answer = if twice {
            let (one, other) = tokio::join!(order(), order());
            if let (Ok(one), Ok(other)) = (&one, &other)
                && one.status == 202
                && other.status == 202
            {
                assert_eq!(one.text("order_id"), other.text("order_id"), "one ticket, one order");
            }
            one.or(other)
        } else {
            order().await
        };
        match answer {
            Ok(answer) if answer.status == 202 => {
                assert_eq!(&answer.text("order_id"), order_id);
                assert_eq!(answer.headers["location"], format!("/api/orders/{order_id}"));
                return Bought::Order(order_id.clone());
            }
            Ok(answer) => match answer.slug().as_str() {
                "sold-out" => return Bought::SoldOut,
                "rate-limited" | "unavailable" | "not-durable-yet" => {
                    sleep(Duration::from_millis(200)).await
                }
                "function-failed" => {}
                other => return Bought::Surprise(format!("order: {} {other}", answer.status)),
            },
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
    Bought::Surprise("lost patience".to_owned())
}

/// Follows an order until its status is no longer `queued`.
pub async fn follow(emulators: &[Client], order: &str, token: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut turn = 0;
    let mut last = String::new();
    while Instant::now() < deadline {
        turn += 1;
        match emulators[turn % emulators.len()]
            .send("GET", &format!("/api/orders/{order}"), Some(token), None)
            .await
        {
            Ok(answer) if answer.status == 200 => {
                last = answer.text("status");
                if last != "queued" {
                    return last;
                }
            }
            Ok(answer) => {
                last = format!("{} {}", answer.status, answer.slug());
                assert_ne!(answer.status, 404, "an accepted order is always found");
                if answer.status == 401 {
                    return "unauthenticated".to_owned();
                }
            }
            Err(error) => last = error,
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("order {order} did not become final; last seen: {last}");
}
