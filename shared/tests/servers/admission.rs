//! Suites of the admission ports on real servers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../property/admission/mod.rs"]
mod property;

use std::sync::Arc;

use flashsale::{
    adapters::{redis::Redis, system::SystemClock},
    contract_tests,
    domain::{AdmissionDecision, AdmissionState, Invitation, LineKey, Sale, SaleId},
    ports::{Admission, Clock as _, Line as _},
    testing::{
        self, Claim, START, Shop,
        contract::{checkout::CheckoutPorts, line::LinePorts},
    },
};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use crate::support::{servers, unique};
use property::Subject;

/// The single server and the cluster; each test runs on both.
fn redis_urls() -> [String; 2] {
    [
        servers().redis_url().expect("a Redis was started"),
        servers().redis_cluster_url().expect("a Redis cluster was started"),
    ]
}

/// A store of its own on the server at `url`.
async fn admission(url: String) -> ((), Arc<dyn Admission>) {
    ((), Arc::new(Redis::new(&url, &format!("{}:", unique("admission"))).unwrap()))
}

/// Gate and admission of the server at `url`, asked as the product asks them.
async fn checkout(url: String) -> (Shop, Arc<CheckoutPorts>) {
    let shop = Shop::without_captchas().await;
    let redis = Arc::new(Redis::new(&url, &format!("{}:", unique("checkout"))).unwrap());
    let in_one_trip = redis.single().map(|single| Arc::new(single) as _);
    assert_eq!(in_one_trip.is_none(), url.starts_with("redis+cluster"));
    let ports = CheckoutPorts::of(&redis, in_one_trip, shop.app.ports.clone());
    (shop, Arc::new(ports))
}

mod admission_single {
    use super::*;
    contract_tests! {
        admission [#[ignore = "needs servers: infra/test runs it"]]
        admission(servers().redis_url().expect("a Redis was started"))
    }
    contract_tests! {
        checkout [#[ignore = "needs servers: infra/test runs it"]]
        checkout(servers().redis_url().expect("a Redis was started"))
    }
}

mod admission_cluster {
    use super::*;
    contract_tests! {
        admission [#[ignore = "needs servers: infra/test runs it"]]
        admission(servers().redis_cluster_url().expect("a Redis cluster was started"))
    }
    contract_tests! {
        checkout [#[ignore = "needs servers: infra/test runs it"]]
        checkout(servers().redis_cluster_url().expect("a Redis cluster was started"))
    }
}

/// The line of a store of its own.
async fn line(url: String) -> ((), LinePorts) {
    let store = Redis::new(&url, &format!("{}:", unique("line"))).unwrap();
    ((), LinePorts::of(Arc::new(store)))
}

mod line_single {
    use super::*;
    contract_tests! {
        line [#[ignore = "needs servers: infra/test runs it"]]
        line(servers().redis_url().expect("a Redis was started"))
    }
}

mod line_cluster {
    use super::*;
    contract_tests! {
        line [#[ignore = "needs servers: infra/test runs it"]]
        line(servers().redis_cluster_url().expect("a Redis cluster was started"))
    }
}

/// A store, and direct access to its server.
struct Behind {
    port: Arc<Redis>,
    client: redis::Client,
    prefix: String,
}

impl Behind {
    fn all() -> [Self; 2] {
        redis_urls().map(|url| {
            let prefix = format!("{}:", unique("admission"));
            let port = Arc::new(Redis::new(&url, &prefix).unwrap());
            // The cluster has one node, which accepts commands like a single server.
            let client = redis::Client::open(url.replace("redis+cluster://", "redis://")).unwrap();
            Self { port, client, prefix }
        })
    }

    /// The keys of a sale: sale, held, overdue.
    fn keys(&self, sale_id: SaleId) -> [String; 3] {
        self.named(sale_id, ["", ":held", ":overdue"])
    }

    /// Further keys of a sale by draw: invited, line.
    fn line_keys(&self, sale_id: SaleId) -> [String; 2] {
        self.named(sale_id, [":invited", ":line"])
    }

    fn named<const N: usize>(&self, sale_id: SaleId, parts: [&str; N]) -> [String; N] {
        parts.map(|part| format!("{}admission:{{{sale_id}}}{part}", self.prefix))
    }

    async fn command<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let mut connection = self.client.get_multiplexed_async_connection().await.unwrap();
        command.query_async(&mut connection).await.unwrap()
    }

    /// Has the effect of FLUSHALL on one sale; FLUSHALL itself would delete other tests' keys too.
    async fn lose(&self, sale_id: SaleId) {
        let keys = [self.keys(sale_id).as_slice(), &self.line_keys(sale_id)].concat();
        let _: u32 = self.command(redis::cmd("DEL").arg(&keys)).await;
    }

    /// The keys that exist, and when they expire, in ms from now by the server's clock.
    async fn lives(&self, sale_id: SaleId) -> Vec<Option<i64>> {
        let mut lives = Vec::new();
        for key in self.keys(sale_id) {
            let ms: i64 = self.command(redis::cmd("PTTL").arg(key)).await;
            assert_ne!(ms, -1, "no key is kept for ever");
            lives.push((ms >= 0).then_some(ms));
        }
        lives
    }
}

fn subjects() -> [Subject; 2] {
    Behind::all().map(|behind| {
        let (port, line) = (Arc::clone(&behind.port), Arc::clone(&behind.port));
        let behind = Arc::new(behind);
        let lose = Box::new(move |sale_id| -> BoxFuture<'static, ()> {
            let behind = Arc::clone(&behind);
            Box::pin(async move { behind.lose(sale_id).await })
        });
        Subject { line, port, lose }
    })
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn redis_agrees_with_the_model() {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    for subject in subjects() {
        property::against_model(&runtime, &subject, 64);
    }
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn redis_holds_when_tasks_interleave() {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    for subject in subjects() {
        property::at_once(&runtime, &subject, 100);
    }
}

const DAY_MS: i64 = 86_400_000;
/// Tolerance for the time that passes between two reads of a key's time to live.
const SLACK_MS: i64 = DAY_MS / 24;

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_collects_every_key_in_the_end() {
    for behind in Behind::all() {
        let port = &*behind.port;
        let now = SystemClock.now();
        let days = |days: i64| now.plus_ms((days * DAY_MS).unsigned_abs());
        let mut sale = Sale { starts_at: now, ends_at: days(30), ..testing::sale(9) };
        let close = |lives: &[Option<i64>], expected: [Option<i64>; 3]| {
            for (life, days) in lives.iter().zip(expected) {
                let agree = match (life, days) {
                    (Some(ms), Some(days)) => (ms - days * DAY_MS).abs() < SLACK_MS,
                    (life, days) => life.is_none() && days.is_none(),
                };
                assert!(agree, "{lives:?} ms, not {expected:?} days");
            }
        };
        // An order that ended in a sale that is not loaded.
        port.release(sale.sale_id, &[testing::order_id()].map(testing::ended)).await.unwrap();
        close(&behind.lives(sale.sale_id).await, [Some(8), None, None]);
        assert!(port.begin_rebuild(&sale.terms(), 1, now).await.unwrap());
        close(&behind.lives(sale.sale_id).await, [Some(38), None, None]);
        port.settle(sale.sale_id, &[testing::request(&sale, testing::user_id())]).await.unwrap();
        close(&behind.lives(sale.sale_id).await, [Some(38), Some(38), None]);
        assert!(port.finish_rebuild(sale.sale_id, 1).await.unwrap());
        let reserve = async || {
            let (order_id, user_id) = (testing::order_id(), testing::user_id());
            let claim = Claim::new(sale.sale_id, order_id, user_id, now);
            assert!(matches!(
                port.reserve(&claim.request(), claim.now).await.unwrap(),
                AdmissionDecision::Reserved(_)
            ));
            order_id
        };
        let orders = [reserve().await, reserve().await];
        close(&behind.lives(sale.sale_id).await, [Some(38), Some(38), Some(38)]);
        // Keys that became empty get their expiry again.
        let held = port.reservations(sale.sale_id, 0, 10).await.unwrap().reservations;
        port.release(
            sale.sale_id,
            &held.iter().map(|held| testing::ended(held.order.order_id)).collect::<Vec<_>>(),
        )
        .await
        .unwrap();
        assert!(
            held.len() == 3
                && orders.iter().all(|id| held.iter().any(|held| held.order.order_id == *id))
        );
        close(&behind.lives(sale.sale_id).await, [Some(38), None, None]);
        reserve().await;
        close(&behind.lives(sale.sale_id).await, [Some(38), Some(38), Some(38)]);
        // New terms move the expiry; the keys of an ended sale expire eight days from now.
        for (ends, expected) in [(50, 58), (20, 28), (-20, 8)] {
            (sale.ends_at, sale.version) =
                (if ends < 0 { now.minus_ms(1) } else { days(ends) }, sale.version + 1);
            assert!(port.set_terms(&sale.terms()).await.unwrap());
            close(&behind.lives(sale.sale_id).await, [Some(expected); 3]);
        }
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_line_expires_with_its_sale() {
    for behind in Behind::all() {
        let (port, mut sale) = (&*behind.port, testing::sale(3));
        let now = SystemClock.now();
        (sale.starts_at, sale.ends_at) = (now, now.plus_ms(30 * 86_400_000));
        assert!(port.begin_rebuild(&sale.terms(), 1, now).await.unwrap());
        assert!(port.finish_rebuild(sale.sale_id, 1).await.unwrap());
        let user_id = testing::user_id();
        port.add(sale.sale_id, &[(user_id, LineKey::late(0))]).await.unwrap();
        let until = now.plus_ms(60_000);
        let next = Invitation { place: 0, user_id, invited_at: now, until };
        port.invite(sale.sale_id, &[next], 1).await.unwrap();
        for (ends, expected) in [(None, 38), (Some(50), 58)] {
            if let Some(days) = ends {
                (sale.ends_at, sale.version) = (now.plus_ms(days * 86_400_000), sale.version + 1);
                assert!(port.set_terms(&sale.terms()).await.unwrap());
            }
            for key in behind.line_keys(sale.sale_id) {
                let ms: i64 = behind.command(redis::cmd("PTTL").arg(key)).await;
                assert!((ms - expected * DAY_MS).abs() < SLACK_MS, "{ms} for {expected} days");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_may_be_lost_at_any_moment_of_a_rebuild() {
    for behind in Behind::all() {
        let (port, sale) = (&*behind.port, testing::sale(3));
        let order = testing::request(&sale, testing::user_id());
        let active = std::slice::from_ref(&order);
        assert!(port.begin_rebuild(&sale.terms(), 1, START).await.unwrap());
        behind.lose(sale.sale_id).await;
        assert!(!port.restore(sale.sale_id, 1, active).await.unwrap());
        assert!(!port.finish_rebuild(sale.sale_id, 1).await.unwrap());
        assert!(port.begin_rebuild(&sale.terms(), 2, START).await.unwrap());
        assert!(port.restore(sale.sale_id, 2, active).await.unwrap());
        behind.lose(sale.sale_id).await;
        assert!(!port.finish_rebuild(sale.sale_id, 2).await.unwrap());
        port.settle(sale.sale_id, active).await.unwrap();
        assert!(!port.set_terms(&sale.terms()).await.unwrap());
        assert_eq!(port.state(sale.sale_id).await.unwrap(), AdmissionState::Missing);
        assert_eq!(behind.lives(sale.sale_id).await, [None, None, None], "nothing was written");
        assert!(port.begin_rebuild(&sale.terms(), 3, START).await.unwrap());
        assert!(port.restore(sale.sale_id, 3, active).await.unwrap());
        assert!(port.finish_rebuild(sale.sale_id, 3).await.unwrap());
        let open = AdmissionState::Open { epoch: 3, version: 1, stock: 3, reserved: 0, settled: 1 };
        assert_eq!(port.state(sale.sale_id).await.unwrap(), open);
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_may_fall_back_to_an_older_state() {
    for behind in Behind::all() {
        let (port, sale) = (&*behind.port, testing::sale(2));
        assert!(port.begin_rebuild(&sale.terms(), 1, START).await.unwrap());
        assert!(port.finish_rebuild(sale.sale_id, 1).await.unwrap());
        let claims = [(); 3].map(|()| {
            let (order_id, user_id) = (testing::order_id(), testing::user_id());
            Claim::new(sale.sale_id, order_id, user_id, START)
        });
        assert!(matches!(
            port.reserve(&claims[0].request(), claims[0].now).await.unwrap(),
            AdmissionDecision::Reserved(_)
        ));
        let mut older = Vec::new();
        for key in behind.keys(sale.sale_id) {
            let value: Vec<u8> = behind.command(redis::cmd("DUMP").arg(&key)).await;
            older.push((key, value));
        }
        // After this the replica takes over that has seen none of it.
        let AdmissionDecision::Reserved(lost) =
            port.reserve(&claims[1].request(), claims[1].now).await.unwrap()
        else {
            panic!("a unit is left");
        };
        behind.lose(sale.sale_id).await;
        assert!(port.begin_rebuild(&sale.terms(), 2, START).await.unwrap());
        for (key, value) in &older {
            let _: String = behind
                .command(redis::cmd("RESTORE").arg(key).arg(0).arg(value.as_slice()).arg("REPLACE"))
                .await;
        }
        assert!(!port.restore(sale.sale_id, 2, std::slice::from_ref(&lost)).await.unwrap());
        assert!(!port.finish_rebuild(sale.sale_id, 2).await.unwrap());
        // The gate lets one more in than there are units; the ledger will not. What the ledger holds comes back.
        assert!(matches!(
            port.reserve(&claims[2].request(), claims[2].now).await.unwrap(),
            AdmissionDecision::Reserved(_)
        ));
        port.settle(sale.sale_id, std::slice::from_ref(&lost)).await.unwrap();
        let open = AdmissionState::Open { epoch: 1, version: 1, stock: 2, reserved: 2, settled: 1 };
        assert_eq!(port.state(sale.sale_id).await.unwrap(), open);
        assert!(matches!(
            port.reserve(&claims[1].request(), claims[1].now).await.unwrap(),
            AdmissionDecision::Again(_)
        ));
        port.release(sale.sale_id, &[claims[2].order_id].map(testing::ended)).await.unwrap();
        assert_eq!(
            port.look(sale.sale_id, claims[1].user_id, None).await.unwrap().unwrap().available,
            0
        );
    }
}
