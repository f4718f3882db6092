//! What happens to messages when the network or the server fails.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flashsale::{
    adapters::rabbitmq::RabbitMq,
    ports::{Health as _, OrderQueue as _, OrderSource as _, PUBLISH_LIMIT_MS, StoreError},
    testing::{
        Fault, FaultProxy,
        contract::queue::{carried, gather, orders},
    },
};
use flashsale_servers::{ServerKind, Servers};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
    time::sleep,
};

use super::{drain, publish_in_the_end, shared_url};
use crate::support::unique;

/// The contract's limit, plus a second for a busy machine to notice.
const IN_TIME: Duration = Duration::from_millis(PUBLISH_LIMIT_MS + 1_000);

fn address_of(url: &str) -> SocketAddr {
    let (_, host) = url.rsplit_once('@').unwrap();
    host.split('/').next().unwrap().parse().unwrap()
}

/// A queue behind a proxy, the proxy, and a direct connection to the server.
async fn behind_a_proxy() -> (RabbitMq, FaultProxy, String, String) {
    let (url, name) = (shared_url(), unique("q"));
    let proxy = FaultProxy::start(address_of(&url)).await;
    (RabbitMq::new(&proxy.through(&url), &name).unwrap(), proxy, url, name)
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_lost_confirm_is_unknown() {
    let (rabbit, proxy, url, name) = behind_a_proxy().await;
    rabbit.publish(&orders(1)).await.unwrap();
    proxy.set(Fault::LoseAnswers).await;
    let lost = orders(1);
    let (answer, ()) = tokio::join!(rabbit.publish(&lost), async {
        sleep(Duration::from_millis(500)).await;
        proxy.cut();
    });
    assert!(matches!(answer, Err(StoreError::Unknown { .. })), "{answer:?}");
    proxy.set(Fault::None).await;
    publish_in_the_end(&rabbit, &orders(1), Duration::from_secs(5)).await;
    let found = drain(&url, &name).await;
    assert_eq!(found.len(), 3);
    assert_eq!(found[1], lost[0].order_id, "the server had it");
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_message_that_did_not_arrive_is_never_ok() {
    let (rabbit, proxy, url, name) = behind_a_proxy().await;
    rabbit.publish(&orders(1)).await.unwrap();
    proxy.set(Fault::BlackHole).await;
    let begun = Instant::now();
    let answer = rabbit.publish(&orders(1)).await;
    assert!(matches!(answer, Err(StoreError::Unknown { .. })), "{answer:?}");
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    proxy.set(Fault::None).await;
    assert_eq!(drain(&url, &name).await.len(), 1);
}

/// While the server does not answer, callers share the wait for one attempt; after it no call
/// waits.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_dead_server_is_not_waited_for() {
    for fault in [Fault::BlackHole, Fault::Refuse] {
        let (rabbit, proxy, url, name) = behind_a_proxy().await;
        proxy.set(fault).await;
        let begun = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..1_000 {
            let rabbit = rabbit.clone();
            callers.spawn(async move { rabbit.publish(&orders(1)).await });
        }
        for answer in callers.join_all().await {
            assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
        }
        assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert!(rabbit.publish(&orders(1)).await.is_err());
        assert!(rabbit.park(b"x", "test").await.is_err());
        assert!(rabbit.depth().await.is_err());
        assert!(rabbit.check().await.is_err());
        // One attempt to connect would take three seconds.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(rabbit.receive(1, 0).await.is_err());
        proxy.set(Fault::None).await;
        let kept = orders(1);
        publish_in_the_end(&rabbit, &kept, Duration::from_secs(10)).await;
        rabbit.check().await.unwrap();
        assert_eq!(drain(&url, &name).await, [kept[0].order_id]);
    }
}

/// A consumer that is lost while a batch is being filled is reopened with the full limit, not with
/// the room left in the batch.
#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_consumer_opened_again_for_the_rest_of_a_batch_fetches_as_much_ahead_as_before() {
    const MESSAGES: u64 = 40;
    let (rabbit, proxy, url, name) = behind_a_proxy().await;
    let straight = RabbitMq::new(&url, &name).unwrap();
    for _ in 0..MESSAGES {
        straight.publish(&orders(1)).await.unwrap();
    }
    // The messages ready in the queue are those that the consumer has not prefetched; it prefetches
    // twice its limit.
    let fetched = async |wanted: u64| {
        let begun = Instant::now();
        loop {
            let fetched = MESSAGES - straight.depth().await.unwrap().waiting;
            if fetched == wanted {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{fetched} are fetched, not {wanted}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(!rabbit.receive(10, 10_000).await.unwrap().is_empty());
    fetched(20).await;
    proxy.cut();
    fetched(0).await;
    let begun = Instant::now();
    while !matches!(rabbit.receive(1, 1_000).await, Ok(some) if !some.is_empty()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "no consumer");
    }
    fetched(20).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_slow_network_is_no_fault() {
    let (rabbit, proxy, ..) = behind_a_proxy().await;
    proxy.set(Fault::Delay(Duration::from_millis(50))).await;
    rabbit.publish(&orders(1)).await.unwrap();
    let deliveries = gather(&rabbit, 1).await;
    rabbit.ack(&[deliveries[0].tag]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_consumer_comes_back_after_a_cut() {
    let (rabbit, proxy, url, name) = behind_a_proxy().await;
    let messages: Vec<_> = (0..4).map(|_| orders(1)).collect();
    for message in &messages {
        rabbit.publish(message).await.unwrap();
    }
    let before = gather(&rabbit, 4).await;
    rabbit.ack(&[before[0].tag]).await.unwrap();
    // Once the acknowledgement has arrived, the message is no longer counted.
    while rabbit.depth().await.unwrap().waiting > 3 {
        sleep(Duration::from_millis(10)).await;
    }
    proxy.cut();
    let after = gather(&rabbit, 3).await;
    assert_eq!(after.iter().map(carried).collect::<Vec<_>>(), messages[1..]);
    assert!(after.iter().all(|delivery| delivery.redelivered));
    // Old tags, with the same small server numbers, have no effect on the new deliveries.
    let stale: Vec<_> = before.iter().map(|delivery| delivery.tag).collect();
    rabbit.ack(&stale).await.unwrap();
    rabbit.hand_back(&stale).await.unwrap();
    assert!(rabbit.receive(10, 300).await.unwrap().is_empty());
    rabbit.close().await;
    assert_eq!(drain(&url, &name).await.len(), 3, "not acknowledged");
}

/// A receiver that waits while the connection is cut continues on a new connection.
#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_waiting_receiver_survives_a_cut() {
    let (rabbit, proxy, ..) = behind_a_proxy().await;
    assert!(rabbit.receive(1, 100).await.unwrap().is_empty());
    let receiver = rabbit.clone();
    let receiving = tokio::spawn(async move { receiver.receive(1, 20_000).await });
    sleep(Duration::from_millis(200)).await;
    proxy.cut();
    let message = orders(1);
    publish_in_the_end(&rabbit, &message, Duration::from_secs(5)).await;
    let deliveries = receiving.await.unwrap().unwrap();
    assert_eq!(carried(&deliveries[0]), message);
}

/// RabbitMQ 3.10 writes the directory of its quorum queues up to a second late: if the server is
/// killed right after a queue was first declared, that queue never gets a leader again. These tests
/// avoid such queues.
const QUEUE_IS_KNOWN_MS: u64 = 3_000;

/// A server for tests that break it, used by one test at a time.
async fn breakable() -> (&'static Servers, MutexGuard<'static, ()>) {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let servers = SERVERS.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("fs-breakable-{}", std::process::id()));
        Servers::builder(dir).rabbitmq().start().unwrap_or_else(|error| panic!("{error}"))
    });
    (servers, turn)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn confirmed_messages_survive_a_killed_server() {
    let (servers, _turn) = breakable().await;
    let (url, name) = (servers.amqp_url().unwrap(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    let held = gather(&rabbit, 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    for _ in 0..8 {
        let (rabbit, stop) = (rabbit.clone(), Arc::clone(&stop));
        publishers.spawn(async move {
            let (mut confirmed, mut refused) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::SeqCst) {
                let message = orders(1);
                match rabbit.publish(&message).await {
                    Ok(()) => confirmed.push(message[0].order_id),
                    Err(StoreError::Unavailable { .. }) => {
                        refused.push(message[0].order_id);
                        sleep(Duration::from_millis(20)).await;
                    }
                    Err(StoreError::Unknown { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            (confirmed, refused)
        });
    }
    sleep(Duration::from_millis(QUEUE_IS_KNOWN_MS)).await;
    tokio::task::block_in_place(|| servers.stop_hard(ServerKind::RabbitMq)).unwrap();
    // Messages that were sent ahead may still be received.
    let killed = Instant::now();
    while rabbit.receive(1, 100).await.is_ok() {
        assert!(killed.elapsed() < Duration::from_secs(10), "the receiver does not notice");
    }
    tokio::task::block_in_place(|| servers.restart(ServerKind::RabbitMq)).unwrap();
    let up = Instant::now();
    publish_in_the_end(&rabbit, &orders(1), Duration::from_secs(30)).await;
    println!("publishing works {:?} after the restart", up.elapsed());
    sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::SeqCst);
    let (confirmed, refused): (Vec<_>, Vec<_>) = publishers.join_all().await.into_iter().unzip();
    rabbit.ack(&[held[0].tag]).await.unwrap();
    rabbit.close().await;
    let found: HashSet<_> = drain(&url, &name).await.into_iter().collect();
    assert!(found.contains(&carried(&held[0])[0].order_id), "its tag was of the lost connection");
    let confirmed: Vec<_> = confirmed.into_iter().flatten().collect();
    println!("{} confirmed, {} found", confirmed.len(), found.len());
    assert!(confirmed.len() > 10);
    assert!(
        confirmed.iter().all(|order_id| found.contains(order_id)),
        "every confirmed message is there"
    );
    assert!(
        refused.iter().flatten().all(|order_id| !found.contains(order_id)),
        "nothing that was refused is there"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_paused_server_is_given_up_in_time() {
    let (servers, _turn) = breakable().await;
    let (url, name) = (servers.amqp_url().unwrap(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    servers.pause(ServerKind::RabbitMq).unwrap();
    let begun = Instant::now();
    let answer = rabbit.publish(&orders(1)).await;
    assert!(matches!(answer, Err(StoreError::Unknown { .. })), "{answer:?}");
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    let begun = Instant::now();
    let answer = rabbit.publish(&orders(1)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    servers.resume(ServerKind::RabbitMq).unwrap();
    publish_in_the_end(&rabbit, &orders(1), Duration::from_secs(10)).await;
}
