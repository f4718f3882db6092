//! The time up to which the queue is known to be worked off. The leader publishes it to every
//! instance through the shared cache, because instances that answer status requests may not reach
//! the queue.

use crate::app::App;
use crate::{
    domain::{CacheEntry, Timestamp},
    ports::Stored,
};

/// The key in the shared cache; the value is milliseconds since the epoch, in digits.
const KEY: &str = "queue:worked-off";

impl App {
    /// One look of the leader at the queue.
    pub(in crate::app) async fn watch_queue(&self) -> Stored<()> {
        let (now, now_ms) = (self.now(), self.monotonic_ms());
        let mut looks = self.sweep.queue_looks().take();
        let until_ms = self.worked_off_until(&mut looks).await?;
        // Wait no longer than a rebuild does for consumers that do not report what they hold.
        let longest = looks.as_ref().map(|looks| looks.begun_ms());
        let longest = longest.filter(|begun_ms| {
            now_ms.saturating_sub(*begun_ms) >= self.config.sweeper.rebuild_wait_max_ms
        });
        let Some(until_ms) = until_ms.or(longest) else {
            *self.sweep.queue_looks() = looks;
            return Ok(());
        };
        // An operator may put a parked message back.
        if self.ports.queue.depth().await?.parked > 0 {
            return Ok(());
        }
        let until = now.minus_ms(now_ms.saturating_sub(until_ms)).epoch_ms();
        let entry = CacheEntry {
            key: KEY.to_owned(),
            version: u64::try_from(until).unwrap_or_default(),
            value: until.to_string().into_bytes(),
            ttl_ms: self.config.cache.order_ms,
        };
        self.ports.cache.put(&[entry], now).await
    }

    /// The time before which every published order is in the ledger. `None`: the leader has not
    /// published one lately.
    pub(in crate::app) async fn read_worked_off(&self) -> Option<Timestamp> {
        match self.ports.cache.get(KEY, self.now()).await {
            Ok(bytes) => {
                std::str::from_utf8(&bytes?).ok()?.parse().ok().map(Timestamp::from_epoch_ms)
            }
            Err(error) => {
                tracing::warn!(%error, "shared cache");
                None
            }
        }
    }
}
