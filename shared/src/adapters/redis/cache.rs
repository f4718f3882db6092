//! The shared cache. Redis itself counts the times to live: a cache may lose an entry at any time.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Cmd;

use super::{Redis, keys::arg, script::Script};
use crate::{
    domain::Timestamp,
    ports::{Cache, Stored},
};

static PUT: LazyLock<Script> =
    LazyLock::new(|| Script::new("cache_put", include_str!("lua/cache_put.lua")));

#[async_trait]
impl Cache for Redis {
    async fn get(&self, key: &str, _now: Timestamp) -> Stored<Option<Vec<u8>>> {
        self.command(&Cmd::hget(self.cache_key(key), "value")).await
    }

    async fn put(
        &self,
        key: &str,
        version: u64,
        value: &[u8],
        ttl_ms: u64,
        _now: Timestamp,
    ) -> Stored<()> {
        let arguments = [format!("{version:020}").into_bytes(), value.to_vec(), arg(ttl_ms.max(1))];
        self.run(&PUT, &[self.cache_key(key)], &arguments).await
    }
}
