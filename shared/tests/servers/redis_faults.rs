//! Calls while the network to Redis, or the server itself, fails: service is back within five
//! seconds of the moment at which a good server is reachable again.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use flashsale::{
    adapters::redis::Redis,
    domain::CacheEntry,
    ports::{Cache, Health as _, StoreError},
    testing::{Fault, FaultProxy, START},
};
use flashsale_servers::{ServerKind, Servers};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{servers, unique};

const BACK_WITHIN: Duration = Duration::from_secs(5);
/// Longest time of a call that waits for a connection and then for its answer.
const CALL_MAX: Duration = Duration::from_millis(4_500);

fn address_of(url: &str) -> SocketAddr {
    url.rsplit_once('/').unwrap().1.parse().unwrap()
}

/// Servers that this test may break.
fn own() -> flashsale_servers::Builder {
    let dir: PathBuf = std::env::temp_dir().join(unique("fs-redis"));
    Servers::builder(dir)
}

/// Runs one command on a server, without the adapter.
async fn tell(address: SocketAddr, words: &[&str]) {
    let client = redis::Client::open(format!("redis://{address}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async::<()>(&mut connection).await.unwrap();
}

/// Waits until a node of a cluster announces this address.
async fn announced(node: SocketAddr, address: &str) {
    let client = redis::Client::open(format!("redis://{node}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let begun = Instant::now();
    loop {
        let nodes: String =
            redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.unwrap();
        if nodes.contains(&format!(" {address}@")) {
            return;
        }
        assert!(begun.elapsed() < BACK_WITHIN, "{nodes}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn put(redis: &Redis, key: &str) -> Result<(), StoreError> {
    let (key, value) = (key.to_owned(), b"v".to_vec());
    Cache::put(redis, &[CacheEntry { key, version: 1, value, ttl_ms: 60_000 }], START).await
}

async fn writes(redis: &Redis) -> Result<(), StoreError> {
    put(redis, "k").await
}

/// Waits until a write succeeds, retrying as callers do.
async fn comes_back(redis: &Redis, since: Instant) {
    while let Err(error) = writes(redis).await {
        assert!(since.elapsed() < BACK_WITHIN, "not back after {:?}: {error}", since.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(since.elapsed() < BACK_WITHIN, "back only after {:?}", since.elapsed());
}

/// A cluster of one node that is reached through the proxy only: it announces the proxy's host. The
/// port is the same, because Redis 6.0 changes its announced port only at start.
async fn cluster_behind_a_proxy() -> (Servers, FaultProxy, Redis) {
    let servers = own().redis_cluster().start().unwrap();
    let node = address_of(&servers.redis_cluster_url().unwrap());
    let proxy = FaultProxy::start_at(SocketAddr::from(([127, 0, 0, 2], node.port())), node).await;
    tell(node, &["CONFIG", "SET", "cluster-announce-ip", "127.0.0.2"]).await;
    announced(node, &format!("127.0.0.2:{}", node.port())).await;
    let redis = Redis::new(&format!("redis+cluster://{}", proxy.address()), "x:").unwrap();
    (servers, proxy, redis)
}

async fn single_behind_a_proxy() -> (FaultProxy, Redis) {
    let url = servers().redis_url().unwrap();
    let proxy = FaultProxy::start(address_of(&url)).await;
    let redis = Redis::new(&proxy.through(&url), &format!("{}:", unique("faults"))).unwrap();
    (proxy, redis)
}

/// The host vanishes and another answers under the same name, repeatedly.
async fn a_silent_connection_is_replaced(proxy: &FaultProxy, redis: &Redis) {
    writes(redis).await.unwrap();
    for _ in 0..2 {
        let since = Instant::now();
        proxy.silence();
        let answer = writes(redis).await;
        assert!(
            matches!(answer, Err(StoreError::Unknown { .. })),
            "the command may have arrived: {answer:?}"
        );
        comes_back(redis, since).await;
    }
}

/// The network fails for a while: every call ends, none queues behind others, and then service is
/// back.
async fn an_outage_is_borne(proxy: &FaultProxy, redis: &Redis) {
    writes(redis).await.unwrap();
    proxy.set(Fault::BlackHole).await;
    calls_end(redis).await;
    // Existing connections are cut; then connecting is impossible for longer than one attempt
    // takes.
    proxy.cut();
    calls_end(redis).await;
    sleep(Duration::from_secs(3)).await;
    assert!(writes(redis).await.is_err());
    let since = Instant::now();
    proxy.set(Fault::None).await;
    comes_back(redis, since).await;
}

async fn calls_end(redis: &Redis) {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..500 {
        let redis = redis.clone();
        callers.spawn(async move { writes(&redis).await });
    }
    for answer in callers.join_all().await {
        assert!(
            matches!(answer, Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. })),
            "{answer:?}"
        );
    }
    assert!(begun.elapsed() < CALL_MAX, "{:?}", begun.elapsed());
}

/// The server does not answer from the first call on: callers share the wait for one attempt; after
/// it no call waits.
async fn an_unreachable_start_is_not_waited_for(proxy: &FaultProxy, redis: &Redis) {
    proxy.set(Fault::BlackHole).await;
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..500 {
        let redis = redis.clone();
        callers.spawn(async move { writes(&redis).await });
    }
    for answer in callers.join_all().await {
        assert!(
            matches!(answer, Err(StoreError::Unavailable { .. })),
            "nothing was sent: {answer:?}"
        );
    }
    assert!(begun.elapsed() < CALL_MAX, "{:?}", begun.elapsed());
    // Until the attempt itself has failed.
    while begun.elapsed() < CALL_MAX {
        assert!(writes(redis).await.is_err());
        sleep(Duration::from_millis(50)).await;
    }
    let second = Instant::now();
    for _ in 0..20 {
        assert!(redis.check().await.is_err());
    }
    assert!(second.elapsed() < Duration::from_millis(500), "{:?}", second.elapsed());
    let since = Instant::now();
    proxy.set(Fault::None).await;
    comes_back(redis, since).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_replaces_a_silent_connection() {
    let (proxy, redis) = single_behind_a_proxy().await;
    a_silent_connection_is_replaced(&proxy, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_cluster_replaces_a_silent_connection() {
    let (_servers, proxy, redis) = cluster_behind_a_proxy().await;
    a_silent_connection_is_replaced(&proxy, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_bears_an_outage() {
    let (proxy, redis) = single_behind_a_proxy().await;
    an_outage_is_borne(&proxy, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_cluster_bears_an_outage() {
    let (_servers, proxy, redis) = cluster_behind_a_proxy().await;
    an_outage_is_borne(&proxy, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_unreachable_at_start_is_not_waited_for() {
    let (proxy, redis) = single_behind_a_proxy().await;
    an_unreachable_start_is_not_waited_for(&proxy, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_cluster_unreachable_at_start_is_not_waited_for() {
    let (_servers, proxy, redis) = cluster_behind_a_proxy().await;
    an_unreachable_start_is_not_waited_for(&proxy, &redis).await;
}

/// The primary becomes a replica, and another server is promoted behind the same name. The
/// connection stays open throughout.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_leaves_a_demoted_primary() {
    let old = own().redis().start().unwrap();
    let demoted = address_of(&old.redis_url().unwrap());
    let proxy = FaultProxy::start(demoted).await;
    let redis =
        Redis::new(&format!("redis://{}", proxy.address()), &format!("{}:", unique("demoted")))
            .unwrap();
    writes(&redis).await.unwrap();
    tell(demoted, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let answer = writes(&redis).await;
    assert!(
        matches!(answer, Err(StoreError::Unavailable { .. })),
        "nothing was written: {answer:?}"
    );
    // The name still leads to the demoted server for a while.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(writes(&redis).await.is_err());
        sleep(Duration::from_millis(20)).await;
    }
    let since = Instant::now();
    proxy.retarget(address_of(&servers().redis_url().unwrap()));
    comes_back(&redis, since).await;
}

/// The password is wrong for a while, as during a change of passwords.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_tries_a_refused_handshake_again() {
    for cluster in [false, true] {
        let (own, scheme) = if cluster {
            (own().redis_cluster(), "redis+cluster")
        } else {
            (own().redis(), "redis")
        };
        let own = own.start().unwrap();
        let address = address_of(&own.redis_url().or_else(|| own.redis_cluster_url()).unwrap());
        let redis = Redis::new(&format!("{scheme}://:hunter2@{address}"), "x:").unwrap();
        let answer = writes(&redis).await;
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
        assert!(!format!("{answer:?}").contains("hunter2"), "{answer:?}");
        let since = Instant::now();
        tell(address, &["CONFIG", "SET", "requirepass", "hunter2"]).await;
        comes_back(&redis, since).await;
    }
}

/// A process that starts while a node of the cluster is down serves the keys of the other nodes:
/// commands and scripts it has not sent before go only to the node that needs them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_cluster_is_used_from_the_start_while_one_of_its_nodes_is_down() {
    const HALF: u16 = 8_192;
    let start = || tokio::task::spawn_blocking(|| own().redis_cluster().start().unwrap());
    let (low, high) = (start().await.unwrap(), start().await.unwrap());
    let [low_address, high_address] =
        [&low, &high].map(|servers| address_of(&servers.redis_cluster_url().unwrap()));
    // Two clusters of one node with all slots each become one cluster with half of the slots per
    // node.
    for (address, given_up) in [(low_address, HALF..2 * HALF), (high_address, 0..HALF)] {
        let slots: Vec<String> = given_up.map(|slot| slot.to_string()).collect();
        let words: Vec<&str> =
            ["CLUSTER", "DELSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
        tell(address, &words).await;
        tell(address, &["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    }
    tell(high_address, &["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
    tell(low_address, &["CLUSTER", "MEET", "127.0.0.1", &high_address.port().to_string()]).await;
    let url = format!("redis+cluster://{low_address}");
    let writes_of = async |redis: &Redis| {
        let mut writes = JoinSet::new();
        for key in 0..16 {
            let redis = redis.clone();
            writes.spawn(async move { put(&redis, &format!("k{key}")).await });
        }
        writes.join_all().await.iter().filter(|answer| answer.is_ok()).count()
    };
    let whole = Redis::new(&url, "x:").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while writes_of(&whole).await < 16 {
        assert!(Instant::now() < deadline, "the two have become one cluster");
        sleep(Duration::from_millis(100)).await;
    }
    drop(whole);
    high.stop_hard(ServerKind::RedisCluster).unwrap();
    tell(low_address, &["SCRIPT", "FLUSH"]).await;
    let written = writes_of(&Redis::new(&url, "x:").unwrap()).await;
    assert!((1..16).contains(&written), "only the keys of the remaining node: {written} of 16");
}
