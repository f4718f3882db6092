//! Suites of the gate ports on real servers: a single Redis and a cluster.

#[path = "../property/gate.rs"]
mod property;

use std::sync::Arc;

use flashsale::{
    adapters::redis::Redis,
    contract_tests,
    domain::{Ban, Subject, Timestamp},
    ports::{Blacklist, Cache, ConsumerReports, Health as _, Locks, PhoneCodes, StoreError},
    testing::{
        START,
        contract::{self, gate::GatePorts},
        user_id,
    },
};

use tokio::runtime::Runtime;

use crate::support::{servers, unique};

fn single() -> Arc<Redis> {
    let servers = servers();
    let url = servers.redis_url().expect("redis was chosen");
    Arc::new(Redis::new(&url, &format!("{}:", unique("gate"))).expect("the address is well-formed"))
}

fn cluster() -> Arc<Redis> {
    let servers = servers();
    let url = servers.redis_cluster_url().expect("the cluster was chosen");
    Arc::new(Redis::new(&url, &format!("{}:", unique("gate"))).expect("the address is well-formed"))
}

async fn gate(redis: Arc<Redis>) -> ((), GatePorts) {
    ((), GatePorts::of(&redis))
}

async fn locks(redis: Arc<Redis>) -> ((), Arc<dyn Locks>) {
    ((), redis)
}

async fn cache(redis: Arc<Redis>) -> ((), Arc<dyn Cache>) {
    ((), redis)
}

async fn consumer_reports(redis: Arc<Redis>) -> ((), Arc<dyn ConsumerReports>) {
    ((), redis)
}

async fn phone_codes(redis: Arc<Redis>) -> ((), Arc<dyn PhoneCodes>) {
    ((), redis)
}

mod gate_single {
    use super::*;
    contract_tests! { gate [#[ignore = "needs servers: infra/test runs it"]] gate(single()) }
    contract_tests! { locks [#[ignore = "needs servers: infra/test runs it"]] locks(single()) }
    contract_tests! { cache [#[ignore = "needs servers: infra/test runs it"]] cache(single()) }
    contract_tests! {
        consumer_reports [#[ignore = "needs servers: infra/test runs it"]] consumer_reports(single())
    }
    contract_tests! {
        phone_codes [#[ignore = "needs servers: infra/test runs it"]] phone_codes(single())
    }
}

mod gate_cluster {
    use super::*;
    contract_tests! { gate [#[ignore = "needs servers: infra/test runs it"]] gate(cluster()) }
    contract_tests! { locks [#[ignore = "needs servers: infra/test runs it"]] locks(cluster()) }
    contract_tests! { cache [#[ignore = "needs servers: infra/test runs it"]] cache(cluster()) }
    contract_tests! {
        consumer_reports [#[ignore = "needs servers: infra/test runs it"]] consumer_reports(cluster())
    }
    contract_tests! {
        phone_codes [#[ignore = "needs servers: infra/test runs it"]] phone_codes(cluster())
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn redis_is_healthy() {
    for redis in [single(), cluster()] {
        assert_eq!(redis.name(), "redis");
        redis.check().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn gate_lists_many_bans() {
    for redis in [single(), cluster()] {
        put_and_list_many_bans(&*redis).await;
    }
}

/// The script implements the domain's rules: who may enter, the order of the checks, and GCRA.
#[test]
#[ignore = "needs servers: infra/test runs it"]
fn gate_script_agrees_with_the_rules() {
    let runtime = Runtime::new().unwrap();
    for (store, cases) in [(single as fn() -> Arc<Redis>, 150), (cluster, 60)] {
        // Created inside the runtime, because its connections need it.
        let redis = runtime.block_on(async { store() });
        let store = property::Store {
            gate: redis.clone(),
            sessions: redis.clone(),
            blacklist: redis,
            forgets: false,
        };
        property::against_the_rules(&runtime, &store, cases);
    }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn gate_says_that_redis_is_down() {
    // Port 1 is closed.
    for url in ["redis://:secret@127.0.0.1:1", "redis+cluster://:secret@127.0.0.1:1"] {
        let error = Redis::new(url, "x:").unwrap().check().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

fn ban(created_at: Timestamp, expires_at: Option<Timestamp>) -> Ban {
    Ban { subject: Subject::User(user_id()), reason: "test".to_owned(), created_at, expires_at }
}

/// A list that is longer than one read from Redis.
async fn put_and_list_many_bans(blacklist: &dyn Blacklist) {
    let mut subjects = Vec::new();
    for n in 0..450 {
        let ban = ban(START.plus_ms(n), if n % 3 == 0 { Some(START.plus_ms(1_000)) } else { None });
        blacklist.ban(&ban).await.expect("a ban is put");
        subjects.push(ban.subject);
    }
    let listed = blacklist.list(START.plus_ms(500), 0, 1_000).await.expect("bans are listed");
    let newest_first: Vec<_> = subjects.iter().rev().collect();
    assert_eq!(listed.iter().map(|ban| &ban.subject).collect::<Vec<_>>(), newest_first);
    let holding: Vec<_> = subjects
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 3 != 0)
        .map(|(_, subject)| subject)
        .rev()
        .collect();
    let page = blacklist.list(START.plus_ms(1_000), 190, 60).await.expect("bans are listed");
    assert_eq!(page.iter().map(|ban| &ban.subject).collect::<Vec<_>>(), holding[190..250]);
}

/// A subject that a crash left listed without a ban is skipped, and removed once it is too old to
/// be a ban in progress. Bans that ended long ago are removed when others are created.
#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn gate_bans_are_listed_as_they_hold() {
    let servers = servers();
    let url = servers.redis_url().unwrap();
    let prefix = format!("{}:", unique("gate"));
    let redis = Redis::new(&url, &prefix).unwrap();
    let mut raw =
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let lists = raw.clone();
    let listed = async |key: &str| -> Vec<String> {
        redis::cmd("ZRANGE")
            .arg(format!("{prefix}{key}"))
            .arg(0)
            .arg(-1)
            .query_async(&mut lists.clone())
            .await
            .unwrap()
    };
    let member = |ban: &Ban| format!("user:{}", ban.subject.value());

    let mut bans: Vec<Ban> = (0..230).map(|n| ban(START.plus_ms(n), None)).collect();
    bans[229].expires_at = Some(START.plus_ms(5_000));
    for ban in &bans {
        redis.ban(ban).await.unwrap();
    }
    for lost in bans.iter().take(220).skip(10) {
        let key = format!("{prefix}ban:{{{}}}", member(lost));
        redis::cmd("DEL").arg(key).query_async::<u32>(&mut raw).await.unwrap();
    }
    let expected: Vec<&Ban> = bans[220..].iter().rev().chain(bans[..10].iter().rev()).collect();
    let now = START.plus_ms(300);
    assert_eq!(redis.list(now, 0, 100).await.unwrap().iter().collect::<Vec<_>>(), expected);
    assert_eq!(listed("bans:put:{bans}").await.len(), 230, "their bans may be on their way");
    let now = START.plus_ms(61_000);
    assert_eq!(redis.list(now, 0, 100).await.unwrap().iter().collect::<Vec<_>>(), expected[1..]);
    assert_eq!(listed("bans:put:{bans}").await.len(), 20);

    // The ended ban is removed a day later, when another is created.
    let ended = member(&bans[229]);
    assert_eq!(listed("bans:ending:{bans}").await, std::slice::from_ref(&ended));
    redis.ban(&ban(START.plus_ms(5_000 + 86_399_999), None)).await.unwrap();
    assert!(listed("bans:put:{bans}").await.contains(&ended));
    redis.ban(&ban(START.plus_ms(5_000 + 86_400_000), None)).await.unwrap();
    assert!(!listed("bans:put:{bans}").await.contains(&ended));
    assert_eq!(listed("bans:ending:{bans}").await, Vec::<String>::new());
}

/// Every key whose content ends has an expiry.
#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn gate_leaves_nothing_behind() {
    let servers = servers();
    let url = servers.redis_url().unwrap();
    let prefix = format!("{}:", unique("gate"));
    let redis = Arc::new(Redis::new(&url, &prefix).unwrap());
    let ports = GatePorts::of(&redis);
    contract::gate::sessions(&ports).await;
    contract::gate::exact_retry(&ports).await;
    contract::gate::strikes(&ports).await;
    contract::gate::failures(&ports).await;
    contract::gate::captchas(&ports).await;
    contract::gate::spent_tokens(&ports).await;
    contract::locks::one_holder(&locks(redis.clone()).await.1).await;
    contract::cache::newest_version(&cache(redis.clone()).await.1).await;
    let mut raw =
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut raw).await.unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for key in keys {
        let life_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut raw).await.unwrap();
        let kind = key[prefix.len()..].split(':').next().unwrap().to_owned();
        let endless = ["bans", "fence"].contains(&kind.as_str())
            || (kind == "ban" && {
                let kept: String = redis::cmd("GET").arg(&key).query_async(&mut raw).await.unwrap();
                kept.starts_with("never ")
            });
        assert_eq!(life_ms == -1, endless, "{key} {life_ms}");
        kinds.insert(kind);
    }
    let expected =
        ["ban", "bans", "cached", "failures", "fence", "limit", "sessions", "spent", "strikes"];
    assert_eq!(
        kinds.into_iter().filter(|kind| kind != "lock" && kind != "challenge").collect::<Vec<_>>(),
        expected
    );
}
