//! Suites of the queue ports on RabbitMQ, and the effects of its settings and of an administrator.

#![expect(clippy::unwrap_used, reason = "tests")]

mod faults;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flashsale::{
    adapters::rabbitmq::RabbitMq,
    contract_tests,
    domain::{AdmittedOrder, OrderId, QueueDepth},
    ports::{Health as _, OrderQueue as _, OrderSource as _, PUBLISH_LIMIT_MS, StoreError},
    testing::contract::{
        self,
        queue::{QueuePorts, carried, gather, orders},
    },
};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{rabbitmqctl, servers, unique};

fn shared_url() -> String {
    servers().amqp_url().unwrap()
}

/// A queue of its own on the shared server, with two connections.
async fn queue() -> ((), QueuePorts) {
    let name = unique("q");
    let [one, two] = [(); 2].map(|()| Arc::new(RabbitMq::new(&shared_url(), &name).unwrap()));
    ((), QueuePorts { queue: one.clone(), sources: [one.clone(), two], dead_letters: one })
}

contract_tests! { queue [#[ignore = "needs servers: infra/test runs it"]] queue() }

/// A direct connection through the library, for an administrator's actions.
async fn administrator(url: &str) -> (lapin::Connection, lapin::Channel) {
    let connection =
        lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn delete(url: &str, queue: &str) {
    let (_connection, channel) = administrator(url).await;
    channel
        .queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default())
        .await
        .unwrap();
}

/// Takes all waiting messages off the queue.
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

/// Publishes until it succeeds. Earlier failures must be `Unavailable` or `Unknown`.
async fn publish_in_the_end(rabbit: &RabbitMq, orders: &[AdmittedOrder], limit: Duration) {
    let begun = Instant::now();
    while let Err(error) = rabbit.publish(orders).await {
        assert!(
            matches!(error, StoreError::Unavailable { .. } | StoreError::Unknown { .. }),
            "{error:?}"
        );
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

/// While the queue is deleted with many publishes in flight, each `Ok` stands for a message that
/// was in the queue.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn unroutable_among_many_is_never_ok() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    // No queue has this name, so every message is returned, while those to the real queue are
    // confirmed.
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
    // A refused publish renews the connection and declares the queue again; then parking works.
    let parked = parking.join_all().await.into_iter().filter(Result::is_ok).count() as u64;
    let published = publishing.join_all().await;
    let depth = rabbit.depth().await.unwrap();
    assert_eq!(depth.parked, parked, "each Ok is there, and nothing else");
    let found = drain(&url, &name).await;
    for order_id in published.into_iter().flatten() {
        assert!(found.contains(&order_id));
    }
}

/// Limits the queue to one message.
fn bound(queue: &str) {
    rabbitmqctl(&[
        "set_policy",
        queue,
        &format!("^{queue}$"),
        r#"{"max-length":1}"#,
        "--apply-to",
        "queues",
    ]);
}

/// Quorum queues of RabbitMQ before 3.8.10 do not refuse messages.
fn full_queues_refuse() -> bool {
    let version = rabbitmqctl(&["version"]);
    let numbers: Vec<u32> =
        version.trim().split('.').map(|number| number.parse().unwrap()).collect();
    numbers >= vec![3, 8, 10]
}

/// A full queue refuses messages, like a new one without a leader.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_refused_message_is_published_again_until_there_is_room_or_no_time() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    bound(&name);
    if !full_queues_refuse() {
        makes_room_by_parking(&rabbit).await;
        return;
    }
    // The server accepts a few more before it enforces the limit.
    let (refused, took) = loop {
        let begun = Instant::now();
        if let Err(refused) = rabbit.publish(&orders(1)).await {
            break (refused, begun.elapsed());
        }
    };
    assert!(
        matches!(&refused, StoreError::Unavailable { cause, .. } if cause.contains("refused")),
        "{refused:?}"
    );
    let limit = Duration::from_millis(PUBLISH_LIMIT_MS);
    assert!(took > limit / 2 && took < limit + Duration::from_secs(1), "{took:?}");

    let kept = orders(1);
    let publishing = tokio::spawn({
        let (rabbit, kept) = (rabbit.clone(), kept.clone());
        async move { rabbit.publish(&kept).await }
    });
    sleep(Duration::from_millis(300)).await;
    assert!(!publishing.is_finished(), "it is refused and tries on");
    let before = drain(&url, &name).await;
    publishing.await.unwrap().unwrap();
    let found = [before, drain(&url, &name).await].concat();
    assert_eq!(
        found.iter().filter(|order_id| **order_id == kept[0].order_id).count(),
        1,
        "it is there once"
    );
}

/// With a full queue that can't refuse, no message is lost.
async fn makes_room_by_parking(rabbit: &RabbitMq) {
    for _ in 0..4 {
        rabbit.publish(&orders(1)).await.unwrap();
    }
    let expected = QueueDepth { waiting: 1, parked: 4 };
    let begun = Instant::now();
    while rabbit.depth().await.unwrap() != expected {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", rabbit.depth().await);
        sleep(Duration::from_millis(50)).await;
    }
}

/// A server before 3.8.10 declares a queue with fewer settings, which still exists after an
/// upgrade.
#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_queue_of_an_old_server_is_used() {
    let (url, name) = (shared_url(), unique("q"));
    let (_connection, channel) = administrator(&url).await;
    let text = |text: &str| lapin::types::AMQPValue::LongString(text.into());
    let mut settings = lapin::types::FieldTable::default();
    settings.insert("x-queue-type".into(), text("quorum"));
    settings.insert("x-delivery-limit".into(), lapin::types::AMQPValue::LongInt(50));
    settings.insert("x-dead-letter-exchange".into(), text(""));
    settings.insert("x-dead-letter-routing-key".into(), text(&format!("{name}.parked")));
    channel
        .queue_declare(
            name.as_str().into(),
            lapin::options::QueueDeclareOptions::durable(),
            settings,
        )
        .await
        .unwrap();
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    contract::queue::handed_back_too_often_is_parked(&QueuePorts::of(&Arc::new(rabbit))).await;
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_queue_with_other_settings_is_refused() {
    let (url, name) = (shared_url(), unique("q"));
    let (_connection, channel) = administrator(&url).await;
    channel
        .queue_declare(
            name.as_str().into(),
            lapin::options::QueueDeclareOptions::durable(),
            lapin::types::FieldTable::default(),
        )
        .await
        .unwrap();
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    let refused = rabbit.publish(&orders(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("other settings"), "{refused}");
    assert!(rabbit.receive(1, 0).await.is_err());
    assert!(rabbit.check().await.is_err());
    // An administrator deletes it, and the next attempt succeeds.
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

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_consumer_comes_back_after_its_queue_was_deleted() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    assert_eq!(gather(&rabbit, 1).await.len(), 1);
    delete(&url, &name).await;
    // Detects the loss, declares the queue again and consumes from it.
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
    assert_eq!(other.depth().await.unwrap(), QueueDepth { waiting: 4, parked: 0 }, "at once");
    let again = gather(&other, 4).await;
    assert_eq!(
        again.iter().map(carried).collect::<Vec<_>>(),
        messages[1..],
        "also what was only fetched ahead"
    );
    for outcome in [
        rabbit.publish(&messages[0]).await,
        rabbit.receive(1, 0).await.map(drop),
        rabbit.check().await,
    ] {
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    }
    rabbit.ack(&[deliveries[1].tag]).await.unwrap();
    rabbit.close().await;
}

#[expect(clippy::print_stdout, reason = "the benchmark prints its figures")]
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
    println!(
        "{what}, {in_flight} in flight: {:.0} confirmed publishes/s",
        (in_flight * each) as f64 / begun.elapsed().as_secs_f64()
    );
}

/// No assertion: prints the speed of single confirmed publishes, beside the library's own speed on
/// one channel.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn publish_rates() {
    let (url, name) = (shared_url(), unique("q"));
    let rabbit = RabbitMq::new(&url, &name).unwrap();
    rabbit.publish(&orders(1)).await.unwrap();
    let (_connection, channel) = administrator(&url).await;
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let body =
        serde_json::to_vec(&flashsale::domain::QueueMessage { v: 1, orders: orders(1) }).unwrap();
    let plain = move || {
        let (channel, name, body) = (channel.clone(), name.clone(), body.clone());
        async move {
            let options =
                lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = lapin::BasicProperties::default().with_delivery_mode(2);
            channel
                .basic_publish("".into(), name.into(), options, &body, properties)
                .await
                .unwrap()
                .await
                .unwrap();
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
