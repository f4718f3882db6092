//! Suites of the gate ports on the embedded adapters.

use std::sync::Arc;

use flashsale::{
    adapters::memory::{MemoryCache, MemoryGate, MemoryLocks},
    contract::{
        START,
        gate::{self, Doors},
        session_id, user_id,
    },
    domain::{Ban, Quota, Subject, Timestamp},
    ports::{AbusePolicy, Blacklist as _, Entered, Entry, Gate as _, Journal, Limit, SESSIONS_PER_USER_MAX, Session, Sessions as _},
};

use crate::support::TempDir;

fn doors(memory: &Arc<MemoryGate>) -> Doors {
    Doors { gate: memory.clone(), sessions: memory.clone(), blacklist: memory.clone() }
}

macro_rules! in_memory {
    ($($name:ident: |$memory:ident| $call:expr;)*) => {
        mod gate_memory {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let $memory = Arc::new(MemoryGate::new(None));
                    $call.await;
                }
            )*
        }

        mod gate_memory_with_journal {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let dir = TempDir::new();
                    let $memory = Arc::new(MemoryGate::new(Some(Arc::new(dir.sqlite().await))));
                    $memory.load(START).await.unwrap();
                    $call.await;
                }
            )*
        }
    };
}

in_memory! {
    order_of_checks: |memory| gate::order_of_checks(&doors(&memory));
    burst_and_rate: |memory| gate::burst_and_rate(&*memory);
    exact_retry: |memory| gate::exact_retry(&*memory);
    quota_under_contention: |memory| gate::quota_under_contention(memory);
    charges_all_or_none: |memory| gate::charges_all_or_none(&*memory);
    clock_set_back: |memory| gate::clock_set_back(&*memory);
    strikes: |memory| gate::strikes(&doors(&memory));
    sessions: |memory| gate::sessions(&doors(&memory));
    many_sessions: |memory| gate::many_sessions(&doors(&memory));
    blacklist: |memory| gate::blacklist(&doors(&memory));
    failures: |memory| gate::failures(memory);
    captchas: |memory| gate::captchas(memory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_locks() {
    gate::locks(&MemoryLocks::new()).await;
    gate::lock_exclusion(Arc::new(MemoryLocks::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_cache() {
    gate::cache(Arc::new(MemoryCache::new())).await;
}

#[tokio::test]
async fn gate_journal() {
    let dir = TempDir::new();
    gate::journal(&dir.sqlite().await).await;
}

/// What the gate said before a restart, it says after it.
#[tokio::test]
async fn gate_survives_a_restart() {
    let dir = TempDir::new();
    let (user, other) = (user_id(), user_id());
    let (offender, address) = (Subject::User(user_id()), Subject::address([192, 0, 2, 7].into()));
    let end = START.plus_ms(60_000);
    let session = |user_id, expires_at| Session { session_id: session_id(), user_id, expires_at };
    let (kept, ended, of_other) = (session(user, end), session(user, end), session(other, end));
    let crowd: Vec<Session> = (1..=SESSIONS_PER_USER_MAX as u64 + 1).map(|n| session(offender_id(&offender), end.plus_ms(n))).collect();
    let lifted = Subject::User(other);
    let refused = Entry {
        session: None,
        not_banned: Vec::new(),
        limits: vec![Limit { name: "test", subject: offender.clone(), quota: Quota::per(1, 60_000) }],
        abuse: Some(AbusePolicy { refusals_max: 0, window_ms: 1_000, ban_ms: 30_000 }),
        now: START,
    };
    let operators =
        |subject: &Subject, expires_at| Ban { subject: subject.clone(), reason: "test".to_owned(), created_at: START, expires_at };

    {
        let journal: Arc<dyn Journal> = Arc::new(dir.sqlite().await);
        let gate = MemoryGate::new(Some(journal));
        gate.load(START).await.unwrap();
        gate.open(&[kept.clone(), ended.clone(), of_other.clone()], START).await.unwrap();
        gate.open(&crowd, START).await.unwrap();
        gate.end(user, ended.session_id).await.unwrap();
        gate.end_all(other, None).await.unwrap();
        gate.ban(&operators(&address, None)).await.unwrap();
        gate.ban(&operators(&lifted, None)).await.unwrap();
        assert!(gate.lift(&lifted).await.unwrap());
        assert_eq!(gate.enter(&refused).await.unwrap(), Entered::Entered);
        assert!(matches!(gate.enter(&refused).await.unwrap(), Entered::Limited { .. }));
    }

    let gate = MemoryGate::new(Some(Arc::new(dir.sqlite().await)));
    let now = START.plus_ms(1_000);
    gate.load(now).await.unwrap();
    let asks = |session: Option<&Session>, not_banned: Option<&Subject>| Entry {
        session: session.map(|session| (session.user_id, session.session_id)),
        not_banned: not_banned.into_iter().cloned().collect(),
        limits: Vec::new(),
        abuse: None,
        now,
    };
    let alive = async |session| gate.enter(&asks(Some(session), None)).await.unwrap() == Entered::Entered;
    assert!(alive(&kept).await);
    assert!(!alive(&ended).await);
    assert!(!alive(&of_other).await);
    assert!(!alive(&crowd[0]).await, "the one too many was ended before the restart");
    assert!(alive(&crowd[1]).await);
    let until = async |subject| match gate.enter(&asks(None, Some(subject))).await.unwrap() {
        Entered::Banned { until } => Some(until),
        _ => None,
    };
    assert_eq!(until(&address).await, Some(None));
    assert_eq!(until(&lifted).await, None);
    assert_eq!(until(&offender).await, Some(Some(START.plus_ms(30_000))), "automatic bans are kept too");
    assert_eq!(gate.list(now, 0, 10).await.unwrap().len(), 2);

    // What is over by the time of the start is not read back.
    drop(gate);
    let gate = MemoryGate::new(Some(Arc::new(dir.sqlite().await)));
    gate.load(Timestamp::MAX).await.unwrap();
    assert_eq!(gate.enter(&asks(Some(&kept), None)).await.unwrap(), Entered::NoSession);
    assert_eq!(gate.enter(&asks(None, Some(&offender))).await.unwrap(), Entered::Entered);
}

fn offender_id(offender: &Subject) -> flashsale::domain::UserId {
    match offender {
        Subject::User(user_id) => *user_id,
        other => panic!("{other:?} is no user"),
    }
}
