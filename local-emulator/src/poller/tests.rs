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
    domain::{AdmittedOrder, ConsumerProgress, Entry, QueueBacklog, QueueDepth},
    ports::{OrderQueue, OrderSource, Ports, StoreError},
    testing, wire,
};

use super::*;

/// A queue with a full disk: it can't store acknowledgements, so it delivers the same message again
/// and again.
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

/// Delivers batches of messages and records their outcome. A message that is handed back is
/// redelivered with the next batch.
struct Script {
    batches: Mutex<Vec<Vec<Delivery>>>,
    again: Mutex<Vec<Delivery>>,
    given: Mutex<Vec<Delivery>>,
    acks: AtomicUsize,
    acked: Mutex<BTreeSet<u64>>,
    handed_back: Mutex<Vec<u64>>,
}

impl Script {
    /// The bodies by batch; the messages are numbered from 0.
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
            acks: AtomicUsize::default(),
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
        self.acks.fetch_add(1, Ordering::SeqCst);
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

/// A queue that can't park messages while `down`, so that an unusable message fails at each
/// delivery.
struct NoPark {
    down: AtomicBool,
    refused: AtomicUsize,
}

#[async_trait]
impl OrderQueue for NoPark {
    fn publishes_at_once(&self) -> usize {
        1
    }

    async fn publish(&self, _: &[AdmittedOrder]) -> Stored<()> {
        Ok(())
    }

    async fn publish_entries(&self, _: &[Entry]) -> Stored<()> {
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
        Err(StoreError::Unavailable { store: "test", cause: "the poller does not ask".to_owned() })
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
        Self::within(0, change).await
    }

    /// With a batching window.
    async fn within(window_ms: u64, change: impl FnOnce(&mut Ports)) -> Self {
        let dir = std::env::temp_dir().join(format!("flashsale-poller-{}", testing::order_id()));
        let settings = [
            ("FLASHSALE_DATA_DIR", dir.display().to_string()),
            ("FLASHSALE_WORKER__BATCH_WINDOW_MS", window_ms.to_string()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let config = Config::load(None, settings, []).unwrap();
        let mut ports = wire::connect(&config).await.unwrap();
        change(&mut ports);
        let host = Host::InProcess(App::new(config, ports).unwrap());
        let (stop, stopping) = watch::channel(false);
        Self { stop, task: tokio::spawn(run(host, Oldest::default(), stopping)), dir }
    }

    async fn scripted(script: &Arc<Script>) -> (Self, Arc<NoPark>) {
        let queue = Arc::new(NoPark { down: AtomicBool::new(true), refused: AtomicUsize::new(0) });
        let polling =
            Self::of(|ports| (ports.source, ports.queue) = (script.clone(), queue.clone())).await;
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
        assert!(begun.elapsed() < Duration::from_secs(30), "the condition does not become true");
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
    // With pauses of 50, 100, 200, 400, 800 ms there are few tries, and fewer on a slow machine; a
    // busy loop would make thousands.
    assert!((1..=6).contains(&full.0.load(Ordering::SeqCst)), "{:?}", full.0);
}

#[tokio::test]
async fn messages_within_the_window_are_one_batch() {
    for (window_ms, batches) in [(0, 3), (1_000, 1)] {
        let script = Script::new(&[&[SOUND], &[SOUND, SOUND], &[SOUND]]);
        let polling = Polling::within(window_ms, |ports| ports.source = script.clone()).await;
        script.acked(&[0, 1, 2, 3]).await;
        polling.end().await;
        assert_eq!(script.acks.load(Ordering::SeqCst), batches, "{window_ms} ms");
    }
}
