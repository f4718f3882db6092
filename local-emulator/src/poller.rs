//! Turns messages of the order queue into batches for the order worker, as Lambda's event source mapping for Amazon MQ does:
//! a batch is as large as messages are there, or come within the batching window; it is acknowledged when the function has
//! succeeded, and given again when it has failed. Where that source mapping would give a failing batch again and again, the
//! poller finds the messages that fail and hands those back. What is given again too often is parked by the queue.

use std::{collections::HashMap, time::Duration};

use aws_lambda_events::event::rabbitmq::{RabbitMqBasicProperties, RabbitMqEvent, RabbitMqMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{
    domain::{Delivery, Timestamp},
    metrics::{BATCH_SECONDS, HANDED_BACK, elapsed},
    ports::Stored,
};
use metrics::{Counter, Histogram};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use crate::{host::Host, lambda::PAYLOAD_BYTES_MAX, metrics::Oldest};

/// Pauses between tries of one batch: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// So often the messages of a batch are given together before each is given by itself.
const TRIES_TOGETHER: u32 = 2;
/// After so long a batch is handed back, for another instance to try.
const HAND_BACK_AFTER: Duration = Duration::from_secs(60);

/// Polls until `stop` turns true; the batch under way is finished or handed back.
pub async fn run(host: Host, oldest: Oldest, mut stop: watch::Receiver<bool>) {
    let measures = Measures::new(oldest);
    let mut pause = PAUSE_FIRST;
    while !*stop.borrow() {
        let received = tokio::select! {
            received = gather(&host) => received,
            // A message taken but not seen here is handed back when the source is closed.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match received {
            Ok(batch) if batch.is_empty() => {}
            Ok(batch) => {
                let settled = deliver(&host, batch, &measures, &stop).await;
                // What could not be acknowledged comes again at once (a full disk, say): not to be met without a pause.
                if settled { pause = PAUSE_FIRST } else { back_off(&mut pause).await }
            }
            Err(error) => {
                tracing::warn!(%error, "the order queue can't be read");
                back_off(&mut pause).await;
            }
        }
    }
}

/// Sleeps, and makes the next pause longer.
async fn back_off(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE_LAST);
}

/// One batch: what is there when the first message comes, and what comes within the batching window after that.
async fn gather(host: &Host) -> Stored<Vec<Delivery>> {
    let (source, worker) = (&host.app().ports.source, host.app().config.worker);
    let mut batch = source.receive(worker.batch_messages_max, worker.batch_wait_ms).await?;
    let window = Duration::from_millis(worker.batch_window_ms);
    let begun = Instant::now();
    while !batch.is_empty()
        && batch.len() < worker.batch_messages_max as usize
        && begun.elapsed() < window
    {
        let left = window.saturating_sub(begun.elapsed());
        let room = worker.batch_messages_max - batch.len() as u32;
        match source.receive(room, u64::try_from(left.as_millis()).unwrap_or(0).max(1)).await {
            Ok(more) => batch.extend(more),
            // What was gathered is not to wait for the queue to come back.
            Err(_) => break,
        }
    }
    Ok(batch)
}

/// Gives the messages to the function until each is acknowledged or handed back; says whether the queue knows that.
///
/// A batch fails as a whole, whichever of its messages is the cause. So after [`TRIES_TOGETHER`] tries each message is given
/// by itself, and one that still fails after others have succeeded is handed back: it does not hold up the rest, and the
/// queue parks it when it has come too often. While all fail (the ledger is down, say) nothing is handed back, because that
/// would use up the deliveries of sound messages; there is room then for new messages, which tell the two cases apart.
async fn deliver(
    host: &Host,
    mut batch: Vec<Delivery>,
    measures: &Measures,
    stop: &watch::Receiver<bool>,
) -> bool {
    let app = host.app();
    let (source, config) = (&app.ports.source, &app.config);
    let (queue, vhost) = (&config.amqp_queue, config.amqp_vhost());
    let (started, mut pause) = (Instant::now(), PAUSE_FIRST);
    let _measured = measures.batch(started);
    let over = || *stop.borrow() || started.elapsed() > HAND_BACK_AFTER;
    // `acked`: the queue took every acknowledgement. `others_succeed`: some message succeeded in an earlier try.
    let (mut acked, mut others_succeed) = (true, false);
    for tries in 1_u32.. {
        measures.holds(&batch);
        let singly = tries > TRIES_TOGETHER;
        let parts: Vec<&[Delivery]> =
            if singly { batch.chunks(1).collect() } else { within_payload(&batch).collect() };
        let (mut done, mut problem) = (Vec::new(), None);
        for part in parts {
            match host.work_off(&event(queue, &vhost, part)).await {
                Ok(()) => done.extend(tags(part)),
                Err(error) => problem = Some(error),
            }
            // What was not tried is handed back below.
            if singly && over() {
                break;
            }
        }
        if !done.is_empty() {
            acked &= settle("ack", source.ack(&done).await);
        }
        batch.retain(|delivery| !done.contains(&delivery.tag));
        if batch.is_empty() {
            break;
        }
        tracing::warn!(
            error = problem,
            messages = batch.len(),
            singly,
            "order-worker failed; the messages are given again"
        );
        if over() || (singly && others_succeed) {
            measures.handed_back.increment(batch.len() as u64);
            return settle("hand back", source.hand_back(&tags(&batch).collect::<Vec<_>>()).await)
                && acked;
        }
        others_succeed |= !done.is_empty();
        back_off(&mut pause).await;
        let room = config
            .worker
            .batch_messages_max
            .saturating_sub(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        if singly && room > 0 {
            // A queue that can't be read gives no new messages; those at hand are tried again all the same.
            batch.extend(source.receive(room, 1).await.unwrap_or_default());
        }
    }
    acked
}

/// The metrics of the poller.
struct Measures {
    oldest: Oldest,
    batch_seconds: Histogram,
    handed_back: Counter,
}

impl Measures {
    fn new(oldest: Oldest) -> Self {
        Self {
            oldest,
            batch_seconds: BATCH_SECONDS.histogram(&[]),
            handed_back: HANDED_BACK.counter(&[]),
        }
    }

    /// To be kept for as long as the batch's messages are held.
    const fn batch(&self, begun: Instant) -> Batch<'_> {
        Batch { measures: self, begun }
    }

    /// Notes the age of the first order that can be read: the queue gives the oldest message first.
    fn holds(&self, batch: &[Delivery]) {
        #[derive(Deserialize)]
        struct Message {
            orders: Vec<Order>,
        }
        #[derive(Deserialize)]
        struct Order {
            admitted_at: Timestamp,
        }
        let admitted_at = |delivery: &Delivery| {
            let message: Message = serde_json::from_slice(&delivery.body).ok()?;
            message.orders.iter().map(|order| order.admitted_at).min()
        };
        self.oldest.set(batch.iter().find_map(admitted_at));
    }
}

/// A batch under way.
struct Batch<'m> {
    measures: &'m Measures,
    begun: Instant,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.measures.oldest.set(None);
        self.measures.batch_seconds.record(elapsed(self.begun.elapsed()));
    }
}

fn tags(batch: &[Delivery]) -> impl Iterator<Item = u64> {
    batch.iter().map(|delivery| delivery.tag)
}

/// An acknowledgement that is lost costs only a second delivery, which finds the work done.
fn settle(what: &str, outcome: Stored<()>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(%error, what, "the messages will come again");
    }
    outcome.is_ok()
}

/// The batch in parts whose events are small enough to be payloads. A message that alone is too large goes alone.
fn within_payload(batch: &[Delivery]) -> impl Iterator<Item = &[Delivery]> {
    /// What stands around one message's data, generously.
    const ENVELOPE_BYTES: usize = 1_024;
    let mut rest = batch;
    std::iter::from_fn(move || {
        let mut bytes = ENVELOPE_BYTES;
        let fitting = rest.iter().take_while(|delivery| {
            bytes += delivery.body.len().div_ceil(3) * 4 + ENVELOPE_BYTES;
            bytes <= PAYLOAD_BYTES_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (part, others) = rest.split_at(count);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// The batch in the shape that Lambda gives to functions.
fn event(queue: &str, vhost: &str, batch: &[Delivery]) -> RabbitMqEvent {
    let messages = batch
        .iter()
        .map(|delivery| {
            let mut properties = RabbitMqBasicProperties::default();
            properties.content_type = Some("application/json".to_owned());
            properties.delivery_mode = 2;
            properties.body_size = delivery.body.len() as u64;
            let mut message = RabbitMqMessage::default();
            message.basic_properties = properties;
            message.data = Some(BASE64.encode(&delivery.body));
            message.redelivered = delivery.redelivered;
            message
        })
        .collect();
    let mut event = RabbitMqEvent::default();
    event.event_source = Some("aws:rmq".to_owned());
    event.event_source_arn = Some(
        "arn:aws:mq:us-east-1:000000000000:broker:local:b-00000000-0000-0000-0000-000000000000"
            .to_owned(),
    );
    event.messages_by_queue = HashMap::from([(format!("{queue}::{vhost}"), messages)]);
    event
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::PathBuf,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
    };

    use async_trait::async_trait;
    use flashsale::{
        app::App,
        config::Config,
        domain::{AdmittedOrder, ConsumerProgress, QueueBacklog, QueueDepth},
        ports::{OrderQueue, OrderSource, Ports, StoreError},
        testing, wire,
    };

    use super::*;

    /// Gives out the same message as often as it is asked, because it can't note that it is done: its disk is full.
    struct Full(AtomicUsize);

    #[async_trait]
    impl OrderSource for Full {
        fn progress(&self) -> Option<ConsumerProgress> {
            None
        }

        async fn receive(&self, _: u32, _: u64) -> Stored<Vec<Delivery>> {
            let given = self.0.fetch_add(1, Ordering::SeqCst);
            Ok(vec![Delivery {
                tag: given as u64,
                body: br#"{"v":1,"orders":[]}"#.to_vec(),
                redelivered: given > 0,
            }])
        }

        async fn ack(&self, _: &[u64]) -> Stored<()> {
            Err(StoreError::Unavailable { store: "test", cause: "the disk is full".to_owned() })
        }

        async fn hand_back(&self, tags: &[u64]) -> Stored<()> {
            self.ack(tags).await
        }

        async fn close(&self) {}
    }

    /// Gives out batches of messages, and notes what becomes of them. What is handed back comes again with the next batch.
    struct Script {
        batches: Mutex<Vec<Vec<Delivery>>>,
        again: Mutex<Vec<Delivery>>,
        given: Mutex<Vec<Delivery>>,
        acked: Mutex<BTreeSet<u64>>,
        handed_back: Mutex<Vec<u64>>,
    }

    impl Script {
        /// The bodies by batch; the messages are numbered from 0 on.
        fn new(batches: &[&[&str]]) -> Arc<Self> {
            let mut tags = 0..;
            let mut delivery = |body: &&str| Delivery {
                tag: tags.next().unwrap(),
                body: body.as_bytes().to_vec(),
                redelivered: false,
            };
            let mut batches: Vec<_> =
                batches.iter().map(|batch| batch.iter().map(&mut delivery).collect()).collect();
            batches.reverse();
            let (again, given) = (Mutex::default(), Mutex::default());
            Arc::new(Self {
                batches: Mutex::new(batches),
                again,
                given,
                acked: Mutex::default(),
                handed_back: Mutex::default(),
            })
        }

        async fn acked(&self, tags: &[u64]) {
            eventually(|| tags.iter().all(|tag| self.acked.lock().unwrap().contains(tag))).await;
        }

        fn handed_back(&self) -> Vec<u64> {
            self.handed_back.lock().unwrap().clone()
        }
    }

    #[async_trait]
    impl OrderSource for Script {
        fn progress(&self) -> Option<ConsumerProgress> {
            None
        }

        async fn receive(&self, _: u32, _: u64) -> Stored<Vec<Delivery>> {
            let mut batch = std::mem::take(&mut *self.again.lock().unwrap());
            batch.extend(self.batches.lock().unwrap().pop().unwrap_or_default());
            self.given.lock().unwrap().extend(batch.iter().cloned());
            if batch.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(batch)
        }

        async fn ack(&self, tags: &[u64]) -> Stored<()> {
            self.acked.lock().unwrap().extend(tags);
            Ok(())
        }

        async fn hand_back(&self, tags: &[u64]) -> Stored<()> {
            self.handed_back.lock().unwrap().extend(tags);
            let given = self.given.lock().unwrap();
            let back = tags
                .iter()
                .map(|tag| given.iter().find(|delivery| delivery.tag == *tag).unwrap().clone());
            self.again.lock().unwrap().extend(back);
            Ok(())
        }

        async fn close(&self) {}
    }

    /// A queue that can't park while `down`, so that a message which can't be used fails whenever it is given.
    struct NoPark {
        down: AtomicBool,
        refused: AtomicUsize,
    }

    #[async_trait]
    impl OrderQueue for NoPark {
        async fn publish(&self, _: &[AdmittedOrder]) -> Stored<()> {
            Ok(())
        }

        async fn park(&self, _: &[u8], _: &str) -> Stored<()> {
            if !self.down.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.refused.fetch_add(1, Ordering::SeqCst);
            Err(StoreError::Unavailable { store: "test", cause: "it can't park".to_owned() })
        }

        async fn depth(&self) -> Stored<QueueDepth> {
            Ok(QueueDepth { waiting: 0, parked: 0 })
        }

        async fn backlog(&self) -> Stored<QueueBacklog> {
            Err(StoreError::Unavailable {
                store: "test",
                cause: "the poller does not ask".to_owned(),
            })
        }

        async fn inherited(&self) -> Stored<Option<u64>> {
            Ok(None)
        }
    }

    struct Polling {
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
        dir: PathBuf,
    }

    impl Polling {
        async fn of(change: impl FnOnce(&mut Ports)) -> Self {
            let dir =
                std::env::temp_dir().join(format!("flashsale-poller-{}", testing::order_id()));
            let config = Config::load(
                None,
                [("FLASHSALE_DATA_DIR".to_owned(), dir.display().to_string())],
                [],
            )
            .unwrap();
            let mut ports = wire::connect(&config).await.unwrap();
            change(&mut ports);
            let host = Host::InProcess(App::new(config, ports).unwrap());
            let (stop, stopping) = watch::channel(false);
            Self { stop, task: tokio::spawn(run(host, Oldest::default(), stopping)), dir }
        }

        async fn scripted(script: &Arc<Script>) -> (Self, Arc<NoPark>) {
            let queue =
                Arc::new(NoPark { down: AtomicBool::new(true), refused: AtomicUsize::new(0) });
            let polling =
                Self::of(|ports| (ports.source, ports.queue) = (script.clone(), queue.clone()))
                    .await;
            (polling, queue)
        }

        async fn end(self) {
            self.stop.send_replace(true);
            self.task.await.unwrap();
            std::fs::remove_dir_all(self.dir).unwrap();
        }
    }

    /// Well below [`HAND_BACK_AFTER`].
    async fn eventually(mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not come about");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    const SOUND: &str = r#"{"v":1,"orders":[]}"#;
    const FAILING: &str = "nonsense";

    #[tokio::test]
    async fn a_message_that_always_fails_is_handed_back_alone_and_holds_up_no_other() {
        let script = Script::new(&[&[SOUND, FAILING, SOUND, SOUND], &[SOUND, SOUND]]);
        let (polling, queue) = Polling::scripted(&script).await;
        script.acked(&[0, 2, 3]).await;
        eventually(|| !script.handed_back().is_empty()).await;
        assert!(queue.refused.load(Ordering::SeqCst) <= 8, "few tries: {:?}", queue.refused);
        script.acked(&[4, 5]).await;
        polling.end().await;
        assert!(script.handed_back().iter().all(|tag| *tag == 1), "{:?}", script.handed_back());
    }

    #[tokio::test]
    async fn a_failing_message_that_is_alone_does_not_keep_new_ones_waiting() {
        let script = Script::new(&[&[FAILING], &[SOUND], &[SOUND]]);
        let (polling, _) = Polling::scripted(&script).await;
        script.acked(&[1, 2]).await;
        polling.end().await;
        assert!(script.handed_back().iter().all(|tag| *tag == 0), "{:?}", script.handed_back());
    }

    #[tokio::test]
    async fn while_every_message_fails_none_is_handed_back() {
        let script = Script::new(&[&[FAILING; 3], &[FAILING]]);
        let (polling, queue) = Polling::scripted(&script).await;
        // Beyond the tries of the whole batch: each message was tried alone more than once.
        eventually(|| queue.refused.load(Ordering::SeqCst) >= 12).await;
        assert_eq!(script.handed_back(), [0; 0]);
        queue.down.store(false, Ordering::SeqCst);
        script.acked(&[0, 1, 2, 3]).await;
        polling.end().await;
        assert_eq!(script.handed_back(), [0; 0]);
    }

    #[tokio::test]
    async fn what_cannot_be_acknowledged_is_not_given_again_without_a_pause() {
        let full = Arc::new(Full(AtomicUsize::new(0)));
        let polling = Polling::of(|ports| ports.source = full.clone()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        polling.end().await;
        // Pauses of 50, 100, 200, 400, 800 ms: a slow machine makes fewer, one that spins makes thousands.
        assert!((1..=6).contains(&full.0.load(Ordering::SeqCst)), "{:?}", full.0);
    }

    #[test]
    fn a_batch_is_cut_to_fit_payloads() {
        let batch = |sizes: &[usize]| -> Vec<Delivery> {
            sizes
                .iter()
                .map(|size| Delivery { tag: 0, body: vec![b'x'; *size], redelivered: false })
                .collect()
        };
        let parts = |sizes: &[usize]| {
            within_payload(&batch(sizes)).map(<[Delivery]>::len).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[]), [0; 0]);
        assert_eq!(parts(&[100; 50]), [50]);
        const MIB: usize = 1024 * 1024;
        assert_eq!(parts(&[2 * MIB, 2 * MIB, 2 * MIB, 5 * MIB, 1]), [2, 1, 1, 1]);
        for part in within_payload(&batch(&[150_000; 50])) {
            let payload = serde_json::to_vec(&event("flashsale.orders", "/", part)).unwrap();
            assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{}", payload.len());
        }
    }
}
