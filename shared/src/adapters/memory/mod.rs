//! The fast stores of the embedded backend, in the memory of its single process.
//!
//! All of them start empty, like a Redis that lost its data. Sessions and the operators' bans are
//! restored from the ledger; limits, strikes, automatic bans, failures, captchas, locks and the
//! cache start anew.
//!
//! Each insertion into a map also removes a few expired entries. Critical sections are short and
//! never held across an await.
mod admission;
mod blacklist;
mod cache;
mod captchas;
mod consumer_reports;
mod expiring_map;
mod failures;
mod gate;
mod line;
mod locks;
mod phone_codes;
mod sessions;
mod shard;
pub use admission::MemoryAdmission;
pub use cache::MemoryCache;
pub use consumer_reports::MemoryConsumerReports;
pub use locks::MemoryLocks;
pub use phone_codes::MemoryPhoneCodes;
use std::sync::Mutex;
/// Gate, sessions, blacklist, failures and captchas of one process.
#[derive(Default)]
pub struct MemoryGate {
    shards: shard::Shards,
    loading: Mutex<blacklist::Loading>,
}
impl MemoryGate {
    /// Creates an empty gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
