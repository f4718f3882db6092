//! The embedded backend's fast parts, in the memory of the one process there is.
//!
//! All of it starts empty with the process, as a Redis that was emptied: sessions and the operators' bans come back from
//! the ledger, limits, strikes, automatic bans, failures, captchas, locks and the cache start anew.
//!
//! Every map forgets what is over, a little at every insertion; no section is long or held across an await.
mod admission;
mod blacklist;
mod cache;
mod captchas;
mod consumer_reports;
mod expiring_map;
mod failures;
mod gate;
mod locks;
mod sessions;
mod shard;
pub use admission::MemoryAdmission;
pub use cache::MemoryCache;
pub use consumer_reports::MemoryConsumerReports;
pub use locks::MemoryLocks;
use std::sync::Mutex;
/// Gate, sessions, blacklist, failures and captchas of one process.
#[derive(Default)]
pub struct MemoryGate {
    shards: shard::Shards,
    loading: Mutex<blacklist::Loading>,
}
impl MemoryGate {
    /// An empty gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
