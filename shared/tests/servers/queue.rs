//! Suites of the queue ports on real servers, and what happens to messages when server or network fail.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use flashsale::{
    adapters::rabbitmq::RabbitMq,
    contract::{
        Fault, FaultProxy,
        queue::{self, carried, gather, orders},
    },
    domain::{OrderId, OrderRequest},
    ports::{Depth, Health as _, OrderQueue, OrderSource, StoreError},
};
use flashsale_servers::{ServerKind, Servers};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
    time::sleep,
};

use crate::support::{servers, unique};

fn shared_url() -> String {
    servers().amqp_url().unwrap()
}

/// A queue of its own on the server that all tests share.
fn own() -> RabbitMq {
    RabbitMq::new(&shared_url(), &unique("q")).unwrap()
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn published_is_received_once() {
    let rabbit = own();
    queue::published_is_received_once(&rabbit, &rabbit).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn receive_is_bounded() {
    let rabbit = own();
    queue::receive_is_bounded(&rabbit, &rabbit).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_message_wakes_the_receiver() {
    let rabbit = own();
    queue::a_message_wakes_the_receiver(&rabbit, Arc::new(rabbit.clone())).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_receiver_may_go_away() {
    let rabbit = own();
    queue::a_receiver_may_go_away(&rabbit, &rabbit).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn handed_back_comes_again() {
    let rabbit = own();
    queue::handed_back_comes_again(&rabbit, &rabbit).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn handed_back_too_often_is_parked() {
    let rabbit = own();
    queue::handed_back_too_often_is_parked(&rabbit, &rabbit).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn parked_is_counted() {
    let rabbit = own();
    queue::parked_is_counted(&rabbit, &rabbit).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn many_publish_at_once() {
    let rabbit = own();
    queue::many_publish_at_once(Arc::new(rabbit.clone()), &rabbit).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn two_consumers_share() {
    let name = unique("q");
    let [one, two] = [(); 2].map(|()| Arc::new(RabbitMq::new(&shared_url(), &name).unwrap()));
    queue::two_consumers_share(one.clone(), [one, two]).await;
}

/// The library's own connection, to do to a queue what an administrator would.
async fn administrator(url: &str) -> (lapin::Connection, lapin::Channel) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn delete(url: &str, queue: &str) {
    let (_connection, channel) = administrator(url).await;
    channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
}

/// Everything that waits in the queue, taken off it.
async fn drain(url: &str, queue: &str) -> Vec<OrderId> {
    let rabbit = RabbitMq::new(url, queue).unwrap();
    let mut found = Vec::new();
    loop {
        let some = rabbit.receive(1_000, 500).await.unwrap();
        if some.is_empty() {
            break;
        }
        found.extend(some.iter().flat_map(carried).map(|order| order.order_id));
        rabbit.ack(&some.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    }
    rabbit.close().await;
    found
}

/// Publishes until it succeeds; what went before must not be worse than `Unavailable` or `Unknown`.
async fn publish_in_the_end(rabbit: &RabbitMq, orders: &[OrderRequest], limit: Duration) {
    let begun = Instant::now();
    while let Err(error) = rabbit.publish(orders).await {
        assert!(matches!(error, StoreError::Unavailable { .. } | StoreError::Unknown { .. }), "{error:?}");
        assert!(begun.elapsed() < limit, "still {error}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn unroutable_is_never_ok() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    delete(&url, &name).await;
    let refused = rabbit.publish(&orders(1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let kept = orders(1);
    publish_in_the_end(&rabbit, &kept, Duration::from_secs(5)).await;
    assert_eq!(drain(&url, &name).await, [kept[0].order_id], "in the queue that was made again");
    delete(&url, &format!("{name}.parked")).await;
    let refused = rabbit.park(b"x", "test").await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
}

/// With many in flight while the queue is deleted, each `Ok` is a message that was in the queue.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn unroutable_among_many_is_never_ok() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    // Nothing listens on this name, so every message comes back, while those to the queue are confirmed.
    delete(&url, &format!("{name}.parked")).await;
    let mut parking = JoinSet::new();
    let mut publishing = JoinSet::new();
    for _ in 0..60 {
        let (parker, publisher) = (rabbit.clone(), rabbit.clone());
        parking.spawn(async move { parker.park(b"x", "test").await });
        publishing.spawn(async move {
            let message = orders(1);
            publisher.publish(&message).await.map(|()| message[0].order_id)
        });
    }
    // A refused one makes the connection anew, and with it the queue: then parking works.
    let parked = parking.join_all().await.into_iter().filter(Result::is_ok).count() as u64;
    let published = publishing.join_all().await;
    let depth = rabbit.depth().await.unwrap();
    assert_eq!(depth.parked, parked, "each Ok is there, and nothing else");
    let found = drain(&url, &name).await;
    for order_id in published.into_iter().flatten() {
        assert!(found.contains(&order_id));
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_queue_with_other_settings_is_refused() {
    let (url, name) = (shared_url(), unique("q"));
    let (_connection, channel) = administrator(&url).await;
    channel
        .queue_declare(name.as_str().into(), lapin::options::QueueDeclareOptions::default(), lapin::types::FieldTable::default())
        .await
        .unwrap();
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    let refused = rabbit.publish(&orders(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("other settings"), "{refused}");
    assert!(rabbit.receive(1, 0).await.is_err());
    assert!(rabbit.check().await.is_err());
    // An administrator deletes it, and the next attempt finds its way.
    delete(&url, &name).await;
    publish_in_the_end(&rabbit, &orders(1), Duration::from_secs(10)).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_wrong_password_is_not_shown() {
    let url = shared_url();
    let (user, rest) = url.split_once('@').unwrap();
    let (user, _) = user.rsplit_once(':').unwrap();
    let rabbit = RabbitMq::new(&format!("{user}:s3cret@{rest}"), &unique("q")).unwrap();
    let refused = rabbit.publish(&orders(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn tls_to_a_plain_port_is_refused() {
    let url = shared_url().replace("amqp://", "amqps://");
    let rabbit = RabbitMq::new(&url, &unique("q")).unwrap();
    let begun = Instant::now();
    let refused = rabbit.publish(&orders(1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn address_of(url: &str) -> SocketAddr {
    let (_, host) = url.rsplit_once('@').unwrap();
    host.split('/').next().unwrap().parse().unwrap()
}

/// A queue of its own behind a proxy, the proxy, and the straight way to the server.
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
    assert!(begun.elapsed() < Duration::from_millis(3_500), "{:?}", begun.elapsed());
    proxy.set(Fault::None).await;
    assert_eq!(drain(&url, &name).await.len(), 1);
}

/// While nothing answers, callers wait together for one attempt, and then none waits.
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
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert!(rabbit.publish(&orders(1)).await.is_err());
        assert!(rabbit.park(b"x", "test").await.is_err());
        assert!(rabbit.depth().await.is_err());
        assert!(rabbit.check().await.is_err());
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        assert!(rabbit.receive(1, 0).await.is_err());
        proxy.set(Fault::None).await;
        let kept = orders(1);
        publish_in_the_end(&rabbit, &kept, Duration::from_secs(10)).await;
        rabbit.check().await.unwrap();
        assert_eq!(drain(&url, &name).await, [kept[0].order_id]);
    }
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
    // The acknowledgement has arrived when it is no longer counted.
    while rabbit.depth().await.unwrap().waiting > 3 {
        sleep(Duration::from_millis(10)).await;
    }
    proxy.cut();
    let after = gather(&rabbit, 3).await;
    assert_eq!(after.iter().map(carried).collect::<Vec<_>>(), messages[1..]);
    assert!(after.iter().all(|delivery| delivery.redelivered));
    // Old tags, which carry the server's same small numbers, do nothing to the new deliveries.
    let stale: Vec<_> = before.iter().map(|delivery| delivery.tag).collect();
    rabbit.ack(&stale).await.unwrap();
    rabbit.hand_back(&stale).await.unwrap();
    assert!(rabbit.receive(10, 300).await.unwrap().is_empty());
    rabbit.close().await;
    assert_eq!(drain(&url, &name).await.len(), 3, "not acknowledged");
}

/// A receiver that waits when the connection is cut goes on waiting on a new one.
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

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_consumer_comes_back_after_its_queue_was_deleted() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    assert_eq!(gather(&rabbit, 1).await.len(), 1);
    delete(&url, &name).await;
    // Notices, makes the queue again and consumes from it.
    assert!(rabbit.receive(1, 1_000).await.unwrap().is_empty());
    let message = orders(1);
    publish_in_the_end(&rabbit, &message, Duration::from_secs(5)).await;
    let deliveries = gather(&rabbit, 1).await;
    assert_eq!(carried(&deliveries[0]), message);
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn closing_hands_back() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    let messages: Vec<_> = (0..5).map(|_| orders(1)).collect();
    for message in &messages {
        rabbit.publish(message).await.unwrap();
    }
    let deliveries = gather(&rabbit, 3).await;
    rabbit.ack(&[deliveries[0].tag]).await.unwrap();
    rabbit.close().await;
    let other = RabbitMq::new(&url, &name).unwrap();
    assert_eq!(other.depth().await.unwrap(), Depth { waiting: 4, parked: 0 }, "at once");
    let again = gather(&other, 4).await;
    assert_eq!(again.iter().map(carried).collect::<Vec<_>>(), messages[1..], "also what was only fetched ahead");
    for outcome in [rabbit.publish(&messages[0]).await, rabbit.receive(1, 0).await.map(drop), rabbit.check().await] {
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    }
    rabbit.ack(&[deliveries[1].tag]).await.unwrap();
    rabbit.close().await;
}

const SETTLED_MS: u64 = 3_000;

/// A server for tests that break it, one at a time.
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
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    for _ in 0..8 {
        let (rabbit, stop) = (rabbit.clone(), Arc::clone(&stop));
        publishers.spawn(async move {
            let (mut confirmed, mut refused) = (Vec::new(), Vec::new());
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
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
    sleep(Duration::from_millis(SETTLED_MS)).await;
    tokio::task::block_in_place(|| servers.stop_hard(ServerKind::RabbitMq)).unwrap();
    assert!(rabbit.receive(1, 100).await.is_err());
    tokio::task::block_in_place(|| servers.restart(ServerKind::RabbitMq)).unwrap();
    let up = Instant::now();
    publish_in_the_end(&rabbit, &orders(1), Duration::from_secs(30)).await;
    println!("publishing works {:?} after the restart", up.elapsed());
    sleep(Duration::from_millis(500)).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (confirmed, refused): (Vec<_>, Vec<_>) = publishers.join_all().await.into_iter().unzip();
    rabbit.ack(&[held[0].tag]).await.unwrap();
    rabbit.close().await;
    let found: std::collections::HashSet<_> = drain(&url, &name).await.into_iter().collect();
    assert!(found.contains(&carried(&held[0])[0].order_id), "its tag was of the lost connection");
    let confirmed: Vec<_> = confirmed.into_iter().flatten().collect();
    println!("{} confirmed, {} found", confirmed.len(), found.len());
    assert!(confirmed.len() > 10);
    assert!(confirmed.iter().all(|order_id| found.contains(order_id)), "every confirmed message is there");
    assert!(refused.iter().flatten().all(|order_id| !found.contains(order_id)), "nothing that was refused is there");
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
    assert!(begun.elapsed() < Duration::from_millis(3_500), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let answer = rabbit.publish(&orders(1)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    servers.resume(ServerKind::RabbitMq).unwrap();
    publish_in_the_end(&rabbit, &orders(1), Duration::from_secs(10)).await;
}

async fn rate<F: Future<Output = ()> + Send + 'static>(
    what: &str,
    in_flight: usize,
    each: usize,
    publish: impl Fn() -> F + Clone + Send + 'static,
) {
    let begun = Instant::now();
    let mut publishers = JoinSet::new();
    for _ in 0..in_flight {
        let publish = publish.clone();
        publishers.spawn(async move {
            for _ in 0..each {
                publish().await;
            }
        });
    }
    publishers.join_all().await;
    println!("{what}, {in_flight} in flight: {:.0} confirmed publishes/s", (in_flight * each) as f64 / begun.elapsed().as_secs_f64());
}

/// No assertion: prints how fast single confirmed publishes are, beside the library's own pace on one channel.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn publish_rates() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    let (_connection, channel) = administrator(&url).await;
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let body = serde_json::to_vec(&flashsale::domain::QueueMessage { v: 1, orders: orders(1) }).unwrap();
    let plain = move || {
        let (channel, name, body) = (channel.clone(), name.clone(), body.clone());
        async move {
            let options = lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = lapin::BasicProperties::default().with_delivery_mode(2);
            channel.basic_publish("".into(), name.into(), options, &body, properties).await.unwrap().await.unwrap();
        }
    };
    let message = orders(1);
    let ours = move || {
        let (rabbit, message) = (rabbit.clone(), message.clone());
        async move { rabbit.publish(&message).await.unwrap() }
    };
    for _ in 0..2 {
        rate("lapin, one channel", 1, 2_000, plain.clone()).await;
        rate("adapter", 1, 2_000, ours.clone()).await;
        rate("lapin, one channel", 64, 200, plain.clone()).await;
        rate("adapter", 64, 200, ours.clone()).await;
    }
}
