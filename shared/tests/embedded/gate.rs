//! Suites of the gate ports on the embedded adapters.

#[path = "../property/gate.rs"]
mod property;

use std::sync::Arc;

use flashsale::{
    adapters::memory::{MemoryCache, MemoryGate, MemoryLocks},
    testing::contract::gate::{self, GatePorts},
};
use tokio::runtime::Runtime;

fn ports(memory: &Arc<MemoryGate>) -> GatePorts {
    GatePorts { gate: memory.clone(), sessions: memory.clone(), blacklist: memory.clone() }
}

macro_rules! in_memory {
    ($($name:ident: |$memory:ident| $call:expr;)*) => {
        mod gate_memory {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let $memory = Arc::new(MemoryGate::new());
                    $call.await;
                }
            )*
        }
    };
}

in_memory! {
    order_of_checks: |memory| gate::order_of_checks(&ports(&memory));
    burst_and_rate: |memory| gate::burst_and_rate(&*memory);
    exact_retry: |memory| gate::exact_retry(&*memory);
    quota_under_contention: |memory| gate::quota_under_contention(memory);
    charges_all_or_none: |memory| gate::charges_all_or_none(&*memory);
    clock_set_back: |memory| gate::clock_set_back(&*memory);
    strikes: |memory| gate::strikes(&ports(&memory));
    sessions: |memory| gate::sessions(&ports(&memory));
    many_sessions: |memory| gate::many_sessions(&ports(&memory));
    session_roles: |memory| gate::session_roles(&ports(&memory));
    blacklist: |memory| gate::blacklist(&ports(&memory));
    bans_put_back: |memory| gate::bans_put_back(&ports(&memory));
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

#[test]
fn memory_gate_agrees_with_the_rules() {
    let memory = Arc::new(MemoryGate::new());
    let store = property::Store {
        gate: memory.clone(),
        sessions: memory.clone(),
        blacklist: memory,
        forgets: true,
    };
    property::against_the_rules(&Runtime::new().unwrap(), &store, 500);
}
