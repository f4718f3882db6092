//! Suites of the admission ports on real servers.

#[path = "../property/admission/mod.rs"]
mod property;

use std::sync::Arc;

use flashsale::{adapters::redis::Redis, contract::admission, domain::SaleId, ports::Admission};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use crate::support::{servers, unique};
use property::Subject;

/// The single server and the cluster, as each test runs on both.
fn redis_urls() -> [String; 2] {
    [servers().redis_url().expect("a Redis was started"), servers().redis_cluster_url().expect("a Redis cluster was started")]
}

/// Stores of their own on the single server and on the cluster.
fn stores() -> [Redis; 2] {
    redis_urls().map(|url| Redis::new(&url, &format!("{}:", unique("admission"))).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_reserves() {
    for redis in stores() {
        admission::reserve(&redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_keeps_orders() {
    for redis in stores() {
        admission::orders(&redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_is_rebuilt() {
    for redis in stores() {
        admission::rebuild(&redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_bears_a_crowd() {
    for redis in stores() {
        let port: Arc<dyn Admission> = Arc::new(redis);
        admission::crowd(&port).await;
    }
}

fn subjects() -> [Subject; 2] {
    redis_urls().map(|url| {
        let prefix = format!("{}:", unique("admission"));
        let port = Arc::new(Redis::new(&url, &prefix).unwrap());
        // The cluster has one node, which takes commands as a single server does.
        let client = redis::Client::open(url.replace("redis+cluster://", "redis://")).unwrap();
        let lose = Box::new(move |sale_id: SaleId| -> BoxFuture<'static, ()> {
            let client = client.clone();
            let sale = format!("{prefix}admission:{{{sale_id}}}");
            Box::pin(async move {
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                // FLUSHALL would take the other tests' keys too.
                let keys = [sale.clone(), format!("{sale}:held"), format!("{sale}:overdue")];
                redis::cmd("DEL").arg(&keys).exec_async(&mut connection).await.unwrap();
            })
        });
        Subject { port, lose }
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
