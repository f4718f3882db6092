//! Suites of the gate ports on real servers: a single Redis and a cluster.

use std::sync::Arc;

use flashsale::{
    adapters::redis::Redis,
    contract::gate::{self, Doors},
    ports::{Health as _, StoreError},
};

use crate::support::{servers, unique};

fn single() -> Arc<Redis> {
    let servers = servers();
    let url = servers.redis_url().expect("redis was chosen");
    Arc::new(Redis::new(&url, &format!("{}:", unique("gate"))).unwrap())
}

fn cluster() -> Arc<Redis> {
    let servers = servers();
    let url = servers.redis_cluster_url().expect("the cluster was chosen");
    Arc::new(Redis::new(&url, &format!("{}:", unique("gate"))).unwrap())
}

fn doors(redis: &Arc<Redis>) -> Doors {
    Doors { gate: redis.clone(), sessions: redis.clone(), blacklist: redis.clone() }
}

macro_rules! on_redis {
    ($($name:ident: |$redis:ident| $call:expr;)*) => {
        mod gate_single {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs servers: infra/test runs it"]
                async fn $name() {
                    let $redis = single();
                    $call.await;
                }
            )*
        }

        mod gate_cluster {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs servers: infra/test runs it"]
                async fn $name() {
                    let $redis = cluster();
                    $call.await;
                }
            )*
        }
    };
}

on_redis! {
    order_of_checks: |redis| gate::order_of_checks(&doors(&redis));
    burst_and_rate: |redis| gate::burst_and_rate(&*redis);
    exact_retry: |redis| gate::exact_retry(&*redis);
    quota_under_contention: |redis| gate::quota_under_contention(redis);
    charges_all_or_none: |redis| gate::charges_all_or_none(&*redis);
    clock_set_back: |redis| gate::clock_set_back(&*redis);
    strikes: |redis| gate::strikes(&doors(&redis));
    sessions: |redis| gate::sessions(&doors(&redis));
    many_sessions: |redis| gate::many_sessions(&doors(&redis));
    blacklist: |redis| gate::blacklist(&doors(&redis));
    failures: |redis| gate::failures(redis);
    captchas: |redis| gate::captchas(redis);
    locks: |redis| gate::locks(&*redis);
    lock_exclusion: |redis| gate::lock_exclusion(redis);
    cache: |redis| gate::cache(redis);
    health: |redis| async move {
        assert_eq!(redis.name(), "redis");
        redis.check().await.unwrap();
    };
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn gate_says_that_redis_is_down() {
    // Nobody listens on port 1.
    for url in ["redis://:secret@127.0.0.1:1", "redis+cluster://:secret@127.0.0.1:1"] {
        let error = Redis::new(url, "x:").unwrap().check().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
