//! The embedded backend's fast parts, in the memory of the one process there is.
//!
//! What must not be lost when it ends, sessions and bans, is written through to a journal before a call returns and
//! read back by [`MemoryGate::load`]. Limits, strikes, failures, captchas, locks and the cache start anew.
//!
//! Every map forgets what is over, a little at every insertion; no section is long or held across an await.
mod admission;
mod blacklist;
mod cache;
mod captchas;
mod failures;
mod gate;
mod holders;
mod locks;
mod sessions;
mod shard;
mod swept;
use crate::{
    domain::Timestamp,
    ports::{Journal, Stored},
};
pub use admission::MemoryAdmission;
pub use cache::MemoryCache;
pub use holders::MemoryHolders;
pub use locks::MemoryLocks;
use std::sync::Arc;
/// A limit that is further ahead than it can be by this much is from a clock that was set back, in milliseconds.
const SLACK_MS: u64 = 60_000;
/// Gate, sessions, blacklist, failures and captchas of one process.
pub struct MemoryGate {
    shards: shard::Shards,
    journal: Option<Arc<dyn Journal>>,
    /// Whose turn it is to write a ban to the journal.
    journaled_bans: tokio::sync::Mutex<()>,
}
impl MemoryGate {
    /// An empty gate. Without a journal, all is gone when the process ends.
    #[must_use]
    pub fn new(journal: Option<Arc<dyn Journal>>) -> Self {
        Self { shards: shard::Shards::new(), journal, journaled_bans: tokio::sync::Mutex::new(()) }
    }
    /// Reads the sessions and bans back that hold at `now`. To be called once, before the first request.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn load(&self, now: Timestamp) -> Stored<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let sessions = journal.sessions(now).await?;
        let ended = self.keep_sessions(&sessions, now).await;
        if !ended.is_empty() {
            // One too many: the process ended before it had removed them.
            journal.remove_sessions(&ended).await?;
        }
        for ban in journal.bans(now).await? {
            self.keep_ban(&ban);
        }
        Ok(())
    }
}
