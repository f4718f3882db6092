//! The rebuild of an admission store while other processes hold messages of a real RabbitMQ and
//! report to a real Redis.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flashsale::{
    adapters::{
        memory::{MemoryAdmission, MemoryCache, MemoryGate, MemoryLocks},
        rabbitmq::RabbitMq,
        redis::Redis,
        sqlite::Sqlite,
        system::{Artist, SystemRandom},
    },
    app::App,
    config::Config,
    domain::{AdmissionState, AdmittedOrder, Delivery, Sale},
    ports::{Admission as _, Clock, LedgerClock, OrderSource as _, Ports, Sales as _},
    private_files::Loose,
    testing::{ManualClock, START, SmsBox, request, sale, user_id},
};
use tokio::{task::JoinHandle, time::sleep};

use crate::support::{servers, unique};

const PATIENCE: Duration = Duration::from_secs(30);

/// Two processes on the same stores, one that sweeps and one that consumes, and their shared parts.
struct Two {
    clock: Arc<ManualClock>,
    admission: Arc<MemoryAdmission>,
    queue: String,
    leader: App,
    worker: App,
    sale: Sale,
    dir: std::path::PathBuf,
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Two {
    async fn open() -> Self {
        let dir = std::env::temp_dir().join(unique("flashsale-rebuild"));
        std::fs::create_dir_all(&dir).unwrap();
        let ledger = Arc::new(Sqlite::open(&dir, Loose::Tighten).await.unwrap());
        let clock = Arc::new(ManualClock::at(START));
        let (admission, gate) = (Arc::new(MemoryAdmission::default()), Arc::new(MemoryGate::new()));
        let queue = unique("q");
        let redis = Arc::new(
            Redis::new(&servers().redis_url().unwrap(), &format!("{}:", unique("rebuild")))
                .unwrap(),
        );
        let locks = Arc::new(MemoryLocks::new());
        let ports = || {
            let rabbit = Arc::new(RabbitMq::new(&servers().amqp_url().unwrap(), &queue).unwrap());
            Ports {
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                ledger_clock: Arc::clone(&clock) as Arc<dyn LedgerClock>,
                random: Arc::new(SystemRandom),
                users: ledger.clone(),
                session_ledger: ledger.clone(),
                ban_ledger: ledger.clone(),
                sales: ledger.clone(),
                orders: ledger.clone(),
                draws: ledger.clone(),
                admin_ledger: ledger.clone(),
                signing_keys: ledger.clone(),
                challenge_levels: ledger.clone(),
                gate: gate.clone(),
                sessions: gate.clone(),
                blacklist: gate.clone(),
                failures: gate.clone(),
                captchas: gate.clone(),
                phone_codes: redis.clone(),
                sms: Arc::new(SmsBox::default()),
                admission: admission.clone(),
                checkout: None,
                line: admission.clone(),
                queue: rabbit.clone(),
                source: rabbit.clone(),
                consumer_reports: redis.clone(),
                dead_letters: rabbit,
                locks: locks.clone(),
                cache: Arc::new(MemoryCache::new()),
                artist: Arc::new(Artist),
                captcha_provider: None,
                health: Vec::new(),
                background: None,
            }
        };
        let config = || {
            // The longest wait must not affect these tests.
            let env = [
                ("FLASHSALE_CAPTCHA", "off"),
                ("FLASHSALE_SWEEPER__REBUILD_WAIT_MAX_MS", "600000"),
            ];
            Config::load(None, env.map(|(name, value)| (name.to_owned(), value.to_owned())), [])
                .unwrap()
        };
        let (leader, worker) =
            (App::new(config(), ports()).unwrap(), App::new(config(), ports()).unwrap());
        let sale = sale(5);
        ledger.create(&sale).await.unwrap();
        Self { clock, admission, queue, leader, worker, sale, dir }
    }

    /// A separate consumer, like that of another process.
    fn consumer(&self) -> RabbitMq {
        RabbitMq::new(&servers().amqp_url().unwrap(), &self.queue).unwrap()
    }

    /// Admits and publishes an order.
    async fn publish(&self) -> AdmittedOrder {
        let order = request(&self.sale, user_id());
        self.leader.ports.queue.publish(std::slice::from_ref(&order)).await.unwrap();
        order
    }

    /// Does what the worker's process does about twice a second, but faster.
    fn reporting(&self) -> JoinHandle<()> {
        let worker = self.worker.clone();
        tokio::spawn(async move {
            loop {
                worker.report_held().await.unwrap();
                sleep(Duration::from_millis(50)).await;
            }
        })
    }

    async fn receive(&self) -> Vec<Delivery> {
        let given = self.worker.ports.source.receive(10, 10_000).await.unwrap();
        assert!(!given.is_empty());
        given
    }

    async fn record(&self, given: &[Delivery]) {
        let bodies: Vec<_> = given.iter().map(|delivery| delivery.body.clone()).collect();
        self.worker.record_messages(&bodies).await.unwrap();
        self.worker
            .ports
            .source
            .ack(&given.iter().map(|delivery| delivery.tag).collect::<Vec<_>>())
            .await
            .unwrap();
    }

    /// Begins the rebuild of the empty admission store, and lets enough time pass for every publish
    /// to have ended.
    async fn begin(&self) {
        self.leader.sweep().await.unwrap();
        assert!(matches!(self.state().await, AdmissionState::Rebuilding { .. }));
        self.clock.advance_ms(8_500);
    }

    async fn state(&self) -> AdmissionState {
        self.admission.state(self.sale.sale_id).await.unwrap()
    }

    async fn sweep(&self) {
        let swept = self.leader.sweep().await.unwrap();
        assert_eq!(swept.failed, 0);
        self.clock.advance_ms(500);
        sleep(Duration::from_millis(50)).await;
    }

    /// Sweeps until the store is open.
    async fn opens(&self) {
        let begun = Instant::now();
        while !matches!(self.state().await, AdmissionState::Open { .. }) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{:?}",
                self.leader.ports.consumer_reports.reports().await
            );
            self.sweep().await;
        }
    }

    /// Sweeps until the worker has reported often enough for every look. Checks that the store
    /// stays closed.
    async fn stays_closed(&self) {
        let beat = async || {
            self.leader
                .ports
                .consumer_reports
                .reports()
                .await
                .unwrap()
                .iter()
                .map(|report| report.beat)
                .max()
                .unwrap_or(0)
        };
        let (first, begun) = (beat().await, Instant::now());
        let mut sweeps = 0;
        while beat().await < first + 15 || sweeps < 15 {
            assert!(begun.elapsed() < PATIENCE, "the worker reports");
            self.sweep().await;
            assert!(
                matches!(self.state().await, AdmissionState::Rebuilding { .. }),
                "after {sweeps} sweeps"
            );
            sweeps += 1;
        }
    }

    /// Checks that the reopened store knows the order.
    async fn knows(&self, order: &AdmittedOrder) {
        let found = self.admission.find(self.sale.sale_id, order.order_id).await.unwrap();
        assert!(
            found.is_some_and(|reservation| reservation.settled),
            "the order's unit was not sold again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_rebuild_waits_for_what_another_process_holds() {
    let two = Two::open().await;
    let order = two.publish().await;
    let held = two.receive().await;
    let reporting = two.reporting();
    two.begin().await;
    two.stays_closed().await;
    two.record(&held).await;
    two.opens().await;
    two.knows(&order).await;
    reporting.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_rebuild_does_not_believe_a_consumer_that_says_nothing() {
    let two = Two::open().await;
    // One process reports that it holds no message; another, such as Lambda's own consumer, holds
    // the order and sends no report.
    let silent = two.consumer();
    let order = two.publish().await;
    let held = silent.receive(10, 10_000).await.unwrap();
    assert_eq!(held.len(), 1);
    assert!(two.worker.ports.source.receive(10, 10).await.unwrap().is_empty());
    let reporting = two.reporting();
    two.begin().await;
    two.stays_closed().await;
    // That consumer ends, and the message goes to the one that reports.
    silent.close().await;
    let held = two.receive().await;
    two.stays_closed().await;
    two.record(&held).await;
    two.opens().await;
    two.knows(&order).await;
    reporting.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_rebuild_looks_anew_when_a_message_is_handed_back() {
    let two = Two::open().await;
    let order = two.publish().await;
    let held = two.receive().await;
    let reporting = two.reporting();
    two.begin().await;
    two.sweep().await;
    two.worker
        .ports
        .source
        .hand_back(&held.iter().map(|delivery| delivery.tag).collect::<Vec<_>>())
        .await
        .unwrap();
    // The consumer holds it again, under another number.
    let held = two.receive().await;
    two.stays_closed().await;
    two.record(&held).await;
    two.opens().await;
    two.knows(&order).await;
    reporting.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_rebuild_waits_its_longest_time_for_a_consumer_that_says_nothing() {
    let two = Two::open().await;
    let silent = two.consumer();
    two.publish().await;
    assert_eq!(silent.receive(10, 10_000).await.unwrap().len(), 1);
    two.begin().await;
    for _ in 0..5 {
        two.sweep().await;
        assert!(matches!(two.state().await, AdmissionState::Rebuilding { .. }));
    }
    two.clock.advance_ms(600_000);
    two.opens().await;
    silent.close().await;
}
