//! The shared cache. Redis itself counts the times to live: a cache may lose an entry at any time.

use std::sync::LazyLock;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::Cmd;

use super::{Redis, keys::arg, script::Script};
use crate::{
    domain::{CacheEntry, Timestamp},
    ports::{Cache, StoreError, Stored},
};

/// Entries per script: a script blocks every other client, and Lua's `unpack` is limited.
const BATCH_MAX: usize = 200;
/// Length of the version in front of a value.
const VERSION_BYTES: usize = 20;

static PUT: LazyLock<Script> =
    LazyLock::new(|| Script::new("cache_put", include_str!("lua/cache_put.lua")));

#[async_trait]
impl Cache for Redis {
    async fn get(&self, key: &str, _now: Timestamp) -> Stored<Option<Vec<u8>>> {
        let entry: Option<Vec<u8>> = self.command(&Cmd::get(self.cached_key(key))).await?;
        entry
            .map(|mut entry| {
                if entry.len() < VERSION_BYTES {
                    let cause = format!("cache entry {key} has no version");
                    return Err(StoreError::Corrupt { store: "Redis", cause });
                }
                Ok(entry.split_off(VERSION_BYTES))
            })
            .transpose()
    }

    /// A cluster runs one script per entry, all at once, because each key is in a slot of its own.
    async fn put(&self, entries: &[CacheEntry], _now: Timestamp) -> Stored<()> {
        let at_once = if self.is_cluster() { 1 } else { BATCH_MAX };
        let puts = entries.chunks(at_once).map(|batch| self.put_batch(batch));
        join_all(puts).await.into_iter().collect()
    }
}

impl Redis {
    async fn put_batch(&self, batch: &[CacheEntry]) -> Stored<()> {
        let keys: Vec<_> = batch.iter().map(|entry| self.cached_key(&entry.key)).collect();
        let mut arguments = Vec::with_capacity(2 * batch.len());
        for CacheEntry { key: _, version, value, ttl_ms } in batch {
            let mut content = format!("{version:0VERSION_BYTES$}").into_bytes();
            content.extend_from_slice(value);
            arguments.extend([content, arg((*ttl_ms).max(1))]);
        }
        self.run(&PUT, &keys, &arguments).await
    }
}
