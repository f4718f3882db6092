//! The second cache level of a single process: a bounded map.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::expiring_map::ExpiringMap;
use crate::{
    domain::{CacheEntry, Timestamp},
    ports::{Cache, Stored},
};

/// Limit on the number of entries.
const ENTRIES_MAX: usize = 4_096;
/// Longest value kept, in bytes. With the limit on entries this bounds the cache at 256 MiB; in
/// practice it takes a few.
const VALUE_BYTES_MAX: usize = 65_536;

struct Kept {
    version: u64,
    value: Arc<[u8]>,
    expires_at: Timestamp,
}

impl Kept {
    fn over(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }
}

/// A bounded cache of one process.
pub struct MemoryCache(Mutex<ExpiringMap<String, Kept>>);

impl MemoryCache {
    /// Creates an empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(ExpiringMap::new(ENTRIES_MAX)))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, ExpiringMap<String, Kept>> {
        // A critical section only moves plain values, so a panic leaves none of them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>> {
        // Copy after the lock is released.
        let value = self
            .kept()
            .get(&key.to_owned())
            .filter(|kept| !kept.over(now))
            .map(|kept| Arc::clone(&kept.value));
        Ok(value.map(|value| value.to_vec()))
    }

    async fn put(&self, entries: &[CacheEntry], now: Timestamp) -> Stored<()> {
        let mut kept = self.kept();
        for CacheEntry { key, version, value, ttl_ms } in entries {
            let newer = |earlier: &Kept| !earlier.over(now) && earlier.version > *version;
            if kept.get(key).is_some_and(newer) {
                continue;
            }
            if value.len() > VALUE_BYTES_MAX {
                // Too long to keep. Remove the older value too, because readers would take it for
                // the new one.
                kept.remove(key);
                continue;
            }
            let new = Kept {
                version: *version,
                value: value.as_slice().into(),
                expires_at: now.plus_ms((*ttl_ms).max(1)),
            };
            kept.put(key.clone(), new, |kept| kept.over(now));
        }
        Ok(())
    }
}
