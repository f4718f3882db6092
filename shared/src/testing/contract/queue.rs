//! Suites of the queue ports. Each needs its own queue, empty at first and without other users.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    domain::{AdmittedOrder, Delivery, QueueDepth, QueueMessage},
    ports::{DeadLetters, OrderQueue, OrderSource, StoreError},
    testing::{request, sale, user_id},
};

/// Longest wait for a message that must arrive.
const COMES_MS: u64 = 15_000;
/// How long to wait for messages that must not arrive.
const SILENCE_MS: u64 = 300;
/// More hand-backs than any store allows before it parks a message.
const HAND_BACKS: usize = 200;

/// The ports of one queue.
#[derive(Clone)]
pub struct QueuePorts {
    /// The publisher's side.
    pub queue: Arc<dyn OrderQueue>,
    /// Two consumers. A check that needs one uses the first.
    pub sources: [Arc<dyn OrderSource>; 2],
    /// Parked messages.
    pub dead_letters: Arc<dyn DeadLetters>,
}

impl QueuePorts {
    /// The ports of a store with both sides of the queue.
    pub fn of<S: OrderQueue + OrderSource + DeadLetters + 'static>(store: &Arc<S>) -> Self {
        let (queue, dead_letters) = (store.clone(), store.clone());
        Self { queue, sources: [store.clone(), store.clone()], dead_letters }
    }

    fn one(&self) -> (&dyn OrderQueue, &dyn OrderSource) {
        (&*self.queue, &*self.sources[0])
    }
}

/// Some orders.
#[must_use]
pub fn orders(count: usize) -> Vec<AdmittedOrder> {
    let sale = sale(1_000);
    (0..count).map(|_| request(&sale, user_id())).collect()
}

/// The orders in a delivery.
///
/// # Panics
/// When the delivery is not a message of version 1.
#[must_use]
pub fn carried(delivery: &Delivery) -> Vec<AdmittedOrder> {
    let message: QueueMessage =
        serde_json::from_slice(&delivery.body).expect("the body is a queue message");
    assert_eq!(message.v, QueueMessage::VERSION);
    message.orders
}

/// Receives until there are `count` messages (at most 100), or no more arrive.
pub async fn gather(source: &dyn OrderSource, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = source.receive(100, COMES_MS).await.expect("received");
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    all
}

fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

async fn silent(source: &dyn OrderSource) {
    let more = source.receive(10, SILENCE_MS).await.expect("received");
    assert!(more.is_empty(), "nothing more comes: {more:?}");
}

/// Waits until the queue reports this depth: acknowledged messages may be counted for a moment
/// longer.
async fn settles(queue: &dyn OrderQueue, wanted: QueueDepth) {
    let begun = Instant::now();
    loop {
        let depth = queue.depth().await.expect("counted");
        if depth == wanted {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_millis(COMES_MS),
            "{depth:?} does not become {wanted:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Published messages are received once, unchanged and in order; after an acknowledgement they
/// never come again.
pub async fn published_is_received_once(ports: &QueuePorts) {
    let (queue, source) = ports.one();
    let mut first = orders(1);
    first[0].traceparent =
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let mut messages = vec![first, orders(3)];
    messages.extend((0..20).map(|_| orders(1)));
    for message in &messages {
        queue.publish(message).await.expect("published");
    }
    assert_eq!(queue.depth().await.expect("counted"), QueueDepth { waiting: 22, parked: 0 });
    let deliveries = gather(source, messages.len()).await;
    assert_eq!(deliveries.iter().map(carried).collect::<Vec<_>>(), messages, "the same, in order");
    assert!(deliveries.iter().all(|delivery| !delivery.redelivered), "for the first time");
    assert_eq!(
        tags(&deliveries).into_iter().collect::<HashSet<_>>().len(),
        messages.len(),
        "a tag each"
    );
    silent(source).await;
    settles(queue, QueueDepth { waiting: 22, parked: 0 }).await;
    // Acknowledge the later ones first, which must not acknowledge the earlier ones too.
    source.ack(&tags(&deliveries[10..])).await.expect("acknowledged");
    settles(queue, QueueDepth { waiting: 10, parked: 0 }).await;
    source.hand_back(&tags(&deliveries[..10])).await.expect("handed back");
    let again = gather(source, 10).await;
    assert_eq!(
        again.iter().map(carried).collect::<Vec<_>>(),
        messages[..10],
        "and these come again"
    );
    source.ack(&tags(&again)).await.expect("acknowledged");
    settles(queue, QueueDepth::default()).await;
    silent(source).await;
    // Repeating it changes nothing.
    source.ack(&tags(&deliveries)).await.expect("ignored");
    source.hand_back(&tags(&deliveries)).await.expect("ignored");
    silent(source).await;
    queue.publish(&orders(1)).await.expect("published");
    assert_eq!(gather(source, 1).await.len(), 1, "the source still works");
}

/// `receive` returns at most `limit` messages, and none after the timeout if there are none.
pub async fn receive_is_bounded(ports: &QueuePorts) {
    let (queue, source) = ports.one();
    let begun = Instant::now();
    // The first call may have to connect.
    assert!(source.receive(10, 0).await.expect("received").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let begun = Instant::now();
    assert!(source.receive(10, SILENCE_MS).await.expect("received").is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(SILENCE_MS), "it waits for a first message");
    assert!(begun.elapsed() < Duration::from_secs(10), "and ends by itself");
    for _ in 0..5 {
        queue.publish(&orders(1)).await.expect("published");
    }
    assert!(source.receive(0, 0).await.expect("received").is_empty());
    let mut seen = 0;
    while seen < 5 {
        let some = source.receive(2, COMES_MS).await.expect("received");
        assert!((1..=2).contains(&some.len()), "{}", some.len());
        seen += some.len();
        source.ack(&tags(&some)).await.expect("acknowledged");
    }
    silent(source).await;
}

/// A message wakes a waiting receiver well before its timeout.
pub async fn a_message_wakes_the_receiver(ports: &QueuePorts) {
    let (queue, source) = (&ports.queue, Arc::clone(&ports.sources[0]));
    silent(&*source).await;
    let receiver = tokio::spawn(async move { source.receive(10, 60_000).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    queue.publish(&orders(1)).await.expect("published");
    let deliveries = receiver.await.expect("no panic").expect("received");
    assert_eq!(deliveries.len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// A receiver that is dropped while it waits loses no message.
pub async fn a_receiver_may_go_away(ports: &QueuePorts) {
    let (queue, source) = ports.one();
    silent(source).await;
    let mut seen = 0;
    for _ in 0..20 {
        let publish = async {
            queue.publish(&orders(1)).await.expect("published");
            // Long enough that a message is sometimes received, too short for certainty.
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        tokio::select! {
            biased;
            received = source.receive(10, COMES_MS) => {
                let deliveries = received.expect("received");
                seen += deliveries.len();
                source.ack(&tags(&deliveries)).await.expect("acknowledged");
            }
            () = publish => {}
        }
        // The publish that was dropped with the other branch may or may not have happened.
    }
    loop {
        let some = source.receive(10, SILENCE_MS).await.expect("received");
        if some.is_empty() {
            break;
        }
        seen += some.len();
        assert!(seen <= 20, "none twice: {seen}");
        source.ack(&tags(&some)).await.expect("acknowledged");
    }
    settles(queue, QueueDepth::default()).await;
}

/// Only messages that were handed back come again, marked as redelivered.
pub async fn handed_back_comes_again(ports: &QueuePorts) {
    let (queue, source) = ports.one();
    let messages: Vec<_> = (0..3).map(|_| orders(2)).collect();
    for message in &messages {
        queue.publish(message).await.expect("published");
    }
    let first = gather(source, 3).await;
    source.hand_back(&[first[0].tag, first[2].tag]).await.expect("handed back");
    let again = gather(source, 2).await;
    assert_eq!(again.len(), 2);
    let carried_again: HashSet<_> =
        again.iter().map(|delivery| carried(delivery)[0].order_id).collect();
    assert_eq!(carried_again, HashSet::from([messages[0][0].order_id, messages[2][0].order_id]));
    assert!(again.iter().all(|delivery| delivery.redelivered));
    // Tags of the first delivery do not apply to the second.
    source.ack(&[first[0].tag, first[2].tag]).await.expect("ignored");
    settles(queue, QueueDepth { waiting: 3, parked: 0 }).await;
    source.hand_back(&tags(&again)).await.expect("handed back");
    let third = gather(source, 2).await;
    assert_eq!(third.len(), 2, "they were not acknowledged by their old tags");
    source.ack(&tags(&third)).await.expect("acknowledged");
    source.ack(&[first[1].tag]).await.expect("acknowledged");
    settles(queue, QueueDepth::default()).await;
    silent(source).await;
}

/// A message that was handed back too often is parked; other messages are not.
pub async fn handed_back_too_often_is_parked(ports: &QueuePorts) {
    let (queue, source) = ports.one();
    queue.publish(&orders(1)).await.expect("published");
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < HAND_BACKS {
        let delivery = source.receive(1, SILENCE_MS).await.expect("received");
        if !delivery.is_empty() {
            rounds += 1;
            source.hand_back(&tags(&delivery)).await.expect("handed back");
        } else if queue.depth().await.expect("counted").parked == 1 {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "neither parked nor given out again after {rounds}"
        );
    }
    assert!((10..HAND_BACKS).contains(&rounds), "parked after {rounds}");
    settles(queue, QueueDepth { waiting: 0, parked: 1 }).await;
    silent(source).await;
    queue.publish(&orders(1)).await.expect("published");
    let next = gather(source, 1).await;
    assert!(!next[0].redelivered);
    source.ack(&tags(&next)).await.expect("acknowledged");
}

/// An unusable message is parked unchanged, and counted.
pub async fn parked_is_counted(ports: &QueuePorts) {
    let (queue, source) = ports.one();
    queue.park(b"{ not json", "the body is no message").await.expect("parked");
    queue.park(&[0xff, 0x00], &"long ".repeat(10_000)).await.expect("parked");
    settles(queue, QueueDepth { waiting: 0, parked: 2 }).await;
    silent(source).await;
}

/// Parked messages can be listed any number of times, and then retried once or discarded.
pub async fn parked_is_shown_retried_and_discarded(ports: &QueuePorts) {
    const LOOKS: usize = 60;
    let ((queue, source), parked) = (ports.one(), &ports.dead_letters);
    assert!(parked.list(10).await.expect("listed").is_empty());
    for missing in ["1", "no such id", ""] {
        assert!(!parked.retry(missing).await.expect("looked for"));
        assert!(!parked.discard(missing).await.expect("looked for"));
    }
    for body in ["one", "two", "three"] {
        queue.park(body.as_bytes(), &format!("because of {body}")).await.expect("parked");
    }
    settles(queue, QueueDepth { waiting: 0, parked: 3 }).await;
    assert_eq!(parked.list(2).await.expect("listed").len(), 2);
    // A server may count how often a message was read; reading must lose none.
    for _ in 0..LOOKS {
        assert_eq!(parked.list(10).await.expect("listed").len(), 3);
    }
    let all = parked.list(10).await.expect("listed");
    let mut bodies: Vec<_> =
        all.iter().map(|parked| (parked.body.as_slice(), parked.reason.as_str())).collect();
    bodies.sort_unstable();
    assert_eq!(
        bodies,
        [
            (&b"one"[..], "because of one"),
            (b"three", "because of three"),
            (b"two", "because of two")
        ]
    );
    let id = |body: &str| {
        all.iter().find(|parked| parked.body == body.as_bytes()).expect("it is there").id.clone()
    };
    assert!(parked.discard(&id("two")).await.expect("discarded"));
    assert!(!parked.discard(&id("two")).await.expect("looked for"));
    assert!(parked.retry(&id("three")).await.expect("retried"));
    assert!(!parked.retry(&id("three")).await.expect("looked for"));
    let given = gather(source, 1).await;
    assert_eq!(given[0].body, b"three");
    source.ack(&[given[0].tag]).await.expect("acknowledged");
    settles(queue, QueueDepth { waiting: 0, parked: 1 }).await;
    assert_eq!(parked.list(10).await.expect("listed")[0].body, b"one");
}

/// With many concurrent publishers no message is lost, and many orders fit into one message.
pub async fn many_publish_at_once(ports: &QueuePorts) {
    const TASKS: usize = 50;
    const EACH: usize = 20;
    let (queue, source) = (&ports.queue, &*ports.sources[0]);
    let mut publishers = JoinSet::new();
    for _ in 0..TASKS {
        let queue = Arc::clone(queue);
        publishers.spawn(async move {
            let mut published = Vec::new();
            for _ in 0..EACH {
                let message = orders(1);
                queue.publish(&message).await.expect("published");
                published.push(message[0].order_id);
            }
            published
        });
    }
    let published = publishers.join_all().await;
    // Acknowledge along the way: a source limits the messages held at once.
    let mut received = Vec::new();
    while received.len() < TASKS * EACH {
        let some = source.receive(100, COMES_MS).await.expect("received");
        assert!(!some.is_empty(), "some are missing: {} came", received.len());
        received.extend(some.iter().map(|delivery| carried(delivery)[0].order_id));
        source.ack(&tags(&some)).await.expect("acknowledged");
    }
    let place: HashMap<_, _> =
        received.iter().enumerate().map(|(place, order_id)| (*order_id, place)).collect();
    assert_eq!((received.len(), place.len()), (TASKS * EACH, TASKS * EACH), "each once");
    for mine in &published {
        let places: Vec<_> = mine.iter().map(|order_id| place[order_id]).collect();
        assert!(places.is_sorted(), "one publisher's order is kept");
    }
    let large = orders(2_000);
    queue.publish(&large).await.expect("published");
    let delivery = gather(source, 1).await;
    assert_eq!(carried(&delivery[0]), large);
    source.ack(&tags(&delivery)).await.expect("acknowledged");
    settles(&**queue, QueueDepth::default()).await;
}

/// Two consumers share the work: each message goes to one of them, even when its acknowledgements
/// are mixed.
pub async fn two_consumers_share(QueuePorts { queue, sources, .. }: &QueuePorts) {
    const MESSAGES: usize = 300;
    /// Publishes tolerate timeouts of a busy machine: after one, the message may be in the queue or
    /// not.
    const UNKNOWN_MAX: usize = 5;
    let mut consumers = JoinSet::new();
    for source in sources.clone() {
        consumers.spawn(async move {
            let (mut seen, mut failures) = (Vec::new(), 0);
            loop {
                // Long enough that one consumer does not finish while the other still connects.
                let some = match source.receive(10, 3_000).await {
                    Ok(some) => some,
                    // A server may fail to open a consumer of a queue that is just being declared.
                    // The poller retries too.
                    Err(StoreError::Unavailable { .. }) if failures < 20 => {
                        failures += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                if some.is_empty() {
                    return seen;
                }
                seen.extend(some.iter().map(|delivery| carried(delivery)[0].order_id));
                assert!(seen.len() <= MESSAGES + UNKNOWN_MAX, "none twice");
                let (odd, even): (Vec<_>, Vec<_>) =
                    tags(&some).into_iter().partition(|tag| tag % 2 == 1);
                let (odd, even) = tokio::join!(source.ack(&odd), source.ack(&even));
                odd.and(even).expect("acknowledged");
            }
        });
    }
    let (mut published, mut unknown) = (HashSet::new(), HashSet::new());
    while published.len() < MESSAGES {
        let message = orders(1);
        match queue.publish(&message).await {
            Ok(()) => published.insert(message[0].order_id),
            Err(StoreError::Unknown { .. }) if unknown.len() < UNKNOWN_MAX => {
                unknown.insert(message[0].order_id)
            }
            Err(error) => panic!("{error}"),
        };
    }
    let seen: Vec<_> = consumers.join_all().await.into_iter().flatten().collect();
    let (count, mut seen) = (seen.len(), seen.into_iter().collect::<HashSet<_>>());
    assert_eq!(seen.len(), count, "none twice");
    seen.retain(|order_id| !unknown.contains(order_id));
    assert_eq!(seen, published, "none missing");
    settles(&**queue, QueueDepth::default()).await;
}
