//! Locks with a lease. A lease is about real time, so the server's own clock decides when it ends.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::{Redis, keys::arg, script::Script};
use crate::{
    domain::{Lease, Timestamp},
    ports::{Locks, StoreError, Stored},
};

static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new("lock_acquire", include_str!("lua/lock_acquire.lua")));
static RENEW: LazyLock<Script> =
    LazyLock::new(|| Script::new("lock_renew", include_str!("lua/lock_renew.lua")));
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new("lock_release", include_str!("lua/lock_release.lua")));

#[async_trait]
impl Locks for Redis {
    async fn acquire(
        &self,
        name: &str,
        token: u128,
        lease_ms: u64,
        now: Timestamp,
    ) -> Stored<Option<Lease>> {
        let keys = [self.lock_key(name), self.fence_key(name)];
        let arguments =
            [format!("{token:032x}").into_bytes(), arg(lease_ms.max(1)), arg(now.epoch_ms())];
        let fence: Option<String> = self.run(&ACQUIRE, &keys, &arguments).await?;
        let fence = fence.map(|text| text.parse()).transpose();
        let fence = fence.map_err(|_| StoreError::Corrupt {
            store: "Redis",
            cause: format!("lock {name} has no fence"),
        })?;
        Ok(fence.map(|fence| Lease { name: name.to_owned(), token, fence }))
    }

    async fn renew(&self, lease: &Lease, lease_ms: u64, _now: Timestamp) -> Stored<bool> {
        self.run(&RENEW, &[self.lock_key(&lease.name)], &[held_by(lease), arg(lease_ms.max(1))])
            .await
    }

    async fn release(&self, lease: &Lease) -> Stored<()> {
        self.run(&RELEASE, &[self.lock_key(&lease.name)], &[held_by(lease)]).await
    }
}

fn held_by(lease: &Lease) -> Vec<u8> {
    format!("{:032x}:{}", lease.token, lease.fence).into_bytes()
}
