//! Failed sign-ins, counted within a window that starts at the first one.

use async_trait::async_trait;

use super::MemoryGate;
use crate::{
    domain::{CountWindow, Subject, Timestamp},
    ports::{Failures, Stored},
};

#[async_trait]
impl Failures for MemoryGate {
    async fn count(&self, subject: &Subject, now: Timestamp) -> Stored<u32> {
        let shard = self.shards.of(subject);
        Ok(shard
            .failures
            .get(subject)
            .filter(|window| !window.over(now))
            .map_or(0, |window| window.count))
    }

    async fn add(&self, subject: &Subject, window_ms: u64, now: Timestamp) -> Stored<u32> {
        let mut shard = self.shards.of(subject);
        let window = CountWindow::add(shard.failures.get(subject).copied(), window_ms, now);
        shard.failures.put(subject.clone(), window, |window| window.over(now));
        Ok(window.count)
    }

    async fn clear(&self, subject: &Subject) -> Stored<()> {
        self.shards.of(subject).failures.remove(subject);
        Ok(())
    }
}
