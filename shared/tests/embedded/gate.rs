//! Suites of the gate ports on the embedded adapters.

#[path = "../property/gate.rs"]
mod property;

use std::sync::Arc;

use flashsale::{
    adapters::memory::{
        MemoryCache, MemoryConsumerReports, MemoryGate, MemoryLocks, MemoryPhoneCodes,
    },
    contract_tests,
    ports::{Cache, ConsumerReports, Locks, PhoneCodes},
    testing::contract::gate::GatePorts,
};
use tokio::runtime::Runtime;

async fn gate() -> ((), GatePorts) {
    ((), GatePorts::of(&Arc::new(MemoryGate::new())))
}

async fn locks() -> ((), Arc<dyn Locks>) {
    ((), Arc::new(MemoryLocks::new()))
}

async fn cache() -> ((), Arc<dyn Cache>) {
    ((), Arc::new(MemoryCache::new()))
}

async fn consumer_reports() -> ((), Arc<dyn ConsumerReports>) {
    ((), Arc::new(MemoryConsumerReports::new()))
}

async fn phone_codes() -> ((), Arc<dyn PhoneCodes>) {
    ((), Arc::new(MemoryPhoneCodes::new()))
}

mod gate_memory {
    use super::*;
    contract_tests! { gate [] gate() }
    contract_tests! { locks [] locks() }
    contract_tests! { cache [] cache() }
    contract_tests! { consumer_reports [] consumer_reports() }
    contract_tests! { phone_codes [] phone_codes() }
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
