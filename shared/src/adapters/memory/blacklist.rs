//! Bans. Whoever writes a ban to the journal holds `journaled_bans`, so that the journal ends as memory does.

use std::cmp::Reverse;

use async_trait::async_trait;

use super::MemoryGate;
use crate::{
    domain::{Ban, Subject, Timestamp},
    ports::{Blacklist, Stored},
};

#[async_trait]
impl Blacklist for MemoryGate {
    async fn ban(&self, ban: &Ban) -> Stored<()> {
        let _turn = self.journaled_bans.lock().await;
        if let Some(journal) = &self.journal {
            journal.save_ban(ban).await?;
        }
        self.keep_ban(ban);
        Ok(())
    }

    async fn lift(&self, subject: &Subject) -> Stored<bool> {
        let _turn = self.journaled_bans.lock().await;
        if let Some(journal) = &self.journal {
            journal.remove_ban(subject).await?;
        }
        Ok(self.shards.of(subject).bans.remove(subject).is_some())
    }

    async fn list(&self, now: Timestamp, offset: u32, limit: u32) -> Stored<Vec<Ban>> {
        let mut all: Vec<Ban> = Vec::new();
        for shard in self.shards.each() {
            all.extend(shard.bans.values().filter(|ban| ban.holds(now)).cloned());
        }
        all.sort_by_cached_key(|ban| Reverse((ban.created_at, ban.subject.kind(), ban.subject.value())));
        Ok(all.into_iter().skip(offset as usize).take(limit as usize).collect())
    }
}

impl MemoryGate {
    /// The subject's strikes are forgotten: it starts anew when the ban is over.
    pub(super) fn keep_ban(&self, ban: &Ban) {
        let mut shard = self.shards.of(&ban.subject);
        shard.strikes.remove(&ban.subject);
        shard.bans.put(ban.subject.clone(), ban.clone(), |earlier| !earlier.holds(ban.created_at));
    }

    /// Brings the journal in line with a ban that memory has decided on.
    pub(super) async fn write_through(&self, subject: &Subject) -> Stored<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let _turn = self.journaled_bans.lock().await;
        // Read again: it may have been lifted or replaced while this one waited for its turn.
        let ban = self.shards.of(subject).bans.get(subject).cloned();
        match ban {
            Some(ban) => journal.save_ban(&ban).await,
            None => journal.remove_ban(subject).await,
        }
    }
}
