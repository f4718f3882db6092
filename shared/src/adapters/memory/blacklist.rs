//! Bans.

use std::{cmp::Reverse, sync::PoisonError};

use async_trait::async_trait;

use super::MemoryGate;
use crate::{
    domain::{Ban, Subject, Timestamp},
    ports::{Blacklist, Stored},
};

/// Whether the operators' bans were restored since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Loading {
    #[default]
    Missing,
    Begun(u128),
    Loaded,
}

#[async_trait]
impl Blacklist for MemoryGate {
    async fn ban(&self, ban: &Ban) -> Stored<()> {
        self.keep_ban(ban);
        Ok(())
    }

    async fn lift(&self, subject: &Subject) -> Stored<bool> {
        Ok(self.shards.of(subject).bans.remove(subject).is_some())
    }

    async fn lift_older(&self, subject: &Subject, put_until: Timestamp) -> Stored<bool> {
        let mut shard = self.shards.of(subject);
        let older = shard.bans.get(subject).is_some_and(|ban| ban.created_at <= put_until);
        Ok(older && shard.bans.remove(subject).is_some())
    }

    async fn list(&self, now: Timestamp, offset: u32, limit: u32) -> Stored<Vec<Ban>> {
        let mut all: Vec<Ban> = Vec::new();
        for shard in self.shards.each() {
            all.extend(shard.bans.values().filter(|ban| ban.holds(now)).cloned());
        }
        all.sort_by_cached_key(|ban| {
            Reverse((ban.created_at, ban.subject.kind(), ban.subject.value()))
        });
        Ok(all.into_iter().skip(offset as usize).take(limit as usize).collect())
    }

    async fn restore(&self, bans: &[Ban]) -> Stored<()> {
        for ban in bans {
            let known = self
                .shards
                .of(&ban.subject)
                .bans
                .get(&ban.subject)
                .is_some_and(|earlier| earlier.lasts_as_long_as(ban));
            if !known {
                self.keep_ban(ban);
            }
        }
        Ok(())
    }

    async fn begin_loading(&self, token: u128) -> Stored<bool> {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if *loading == Loading::Loaded {
            return Ok(false);
        }
        *loading = Loading::Begun(token);
        Ok(true)
    }

    async fn finish_loading(&self, token: u128) -> Stored<()> {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if *loading == Loading::Begun(token) {
            *loading = Loading::Loaded;
        }
        Ok(())
    }
}

impl MemoryGate {
    /// Clears the subject's strikes: counting starts anew when the ban ends.
    fn keep_ban(&self, ban: &Ban) {
        let mut shard = self.shards.of(&ban.subject);
        shard.strikes.remove(&ban.subject);
        shard.bans.put(ban.subject.clone(), ban.clone(), |earlier| !earlier.holds(ban.created_at));
    }
}
