//! Suites of the queue ports on the embedded adapters.

use std::sync::Arc;

use flashsale::{
    adapters::sqlite::Sqlite,
    contract_tests,
    domain::{QueueBacklog, QueueDepth},
    ports::{OrderQueue as _, OrderSource as _},
    private_files::Loose,
    testing::contract::queue::{QueuePorts, carried, gather, orders},
};

use flashsale::testing::TempDir;

async fn queue() -> (TempDir, QueuePorts) {
    let dir = TempDir::new();
    let store = Arc::new(dir.sqlite().await);
    (dir, QueuePorts::of(&store))
}

contract_tests! { queue [] queue() }

#[tokio::test]
async fn a_restart_makes_everything_visible_again() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    let messages = [orders(1), orders(1), orders(1)];
    for message in &messages {
        store.publish(message).await.unwrap();
    }
    let before = gather(&store, 3).await;
    store.ack(&[before[1].tag]).await.unwrap();
    // The file looks the same after a crash, because nothing is written at the end.
    drop(store);
    let store = reopened(&dir).await;
    store.ack(&[before[0].tag, before[2].tag]).await.unwrap();
    let after = gather(&store, 2).await;
    assert_eq!(
        after.iter().map(carried).collect::<Vec<_>>(),
        [messages[0].clone(), messages[2].clone()]
    );
    assert!(after.iter().all(|delivery| delivery.redelivered));
    store.publish(&messages[1]).await.unwrap();
    let new = gather(&store, 1).await;
    assert!(!new[0].redelivered, "published by this run");
    assert_eq!(store.depth().await.unwrap(), QueueDepth { waiting: 3, parked: 0 });
}

/// Opens the store again as soon as the previous process has released it.
async fn reopened(dir: &TempDir) -> Sqlite {
    for _ in 0..200 {
        match Sqlite::open(dir.path(), Loose::Tighten).await {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
    dir.sqlite().await
}

#[tokio::test]
async fn what_an_earlier_process_left_is_counted_until_it_is_worked_off() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    store.publish(&orders(1)).await.unwrap();
    store.publish(&orders(1)).await.unwrap();
    assert_eq!(store.inherited().await.unwrap(), Some(0), "published by this process");
    drop(store);
    let store = reopened(&dir).await;
    store.publish(&orders(1)).await.unwrap();
    assert_eq!(store.inherited().await.unwrap(), Some(2));
    let given = gather(&store, 3).await;
    assert_eq!(
        store.inherited().await.unwrap(),
        Some(2),
        "received messages are not yet processed"
    );
    store.hand_back(&[given[0].tag]).await.unwrap();
    store.ack(&[given[1].tag]).await.unwrap();
    assert_eq!(store.inherited().await.unwrap(), Some(1));
    let again = gather(&store, 1).await;
    store.ack(&[again[0].tag]).await.unwrap();
    assert_eq!(store.inherited().await.unwrap(), Some(0));
    assert_eq!(store.depth().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn what_a_consumer_holds_is_in_the_backlog() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    assert_eq!(store.backlog().await.unwrap(), QueueBacklog::default());
    store.publish(&orders(1)).await.unwrap();
    let given = store.receive(1, 1_000).await.unwrap();
    assert_eq!(
        store.backlog().await.unwrap(),
        QueueBacklog { ready: 1, consumers: 0 },
        "no consumer needs to report"
    );
    assert_eq!(store.progress(), None);
    store.ack(&[given[0].tag]).await.unwrap();
    assert_eq!(store.backlog().await.unwrap(), QueueBacklog::default());
}
