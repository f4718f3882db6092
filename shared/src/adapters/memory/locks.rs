//! Locks between the tasks of one process.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::expiring_map::ExpiringMap;
use crate::{
    domain::{Lease, Timestamp},
    ports::{Locks, Stored},
};

#[derive(Clone, Copy)]
struct Held {
    token: u128,
    fence: u64,
    expires_at: Timestamp,
}

impl Held {
    fn holds(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    fn is(&self, lease: &Lease) -> bool {
        self.token == lease.token && self.fence == lease.fence
    }
}

struct State {
    held: ExpiringMap<String, Held>,
    /// The last fence given out, across all names.
    fence: u64,
}

/// Locks of one process. Fences start at the current time, so that they keep growing after a
/// restart.
pub struct MemoryLocks(Mutex<State>);

impl MemoryLocks {
    /// Creates a store without locks.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(State { held: ExpiringMap::new(usize::MAX), fence: 0 }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A critical section only moves plain values, so a panic leaves none of them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryLocks {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Locks for MemoryLocks {
    async fn acquire(
        &self,
        name: &str,
        token: u128,
        lease_ms: u64,
        now: Timestamp,
    ) -> Stored<Option<Lease>> {
        let mut state = self.state();
        let earlier = state.held.get(&name.to_owned()).copied().filter(|held| held.holds(now));
        let fence = match earlier {
            Some(held) if held.token != token => return Ok(None),
            Some(held) => held.fence,
            None => {
                state.fence = (state.fence + 1).max(now.epoch_ms().unsigned_abs());
                state.fence
            }
        };
        let held = Held { token, fence, expires_at: now.plus_ms(lease_ms.max(1)) };
        state.held.put(name.to_owned(), held, |held| !held.holds(now));
        Ok(Some(Lease { name: name.to_owned(), token, fence }))
    }

    async fn renew(&self, lease: &Lease, lease_ms: u64, now: Timestamp) -> Stored<bool> {
        let mut state = self.state();
        let held = state.held.get_mut(&lease.name).filter(|held| held.is(lease) && held.holds(now));
        Ok(held.map(|held| held.expires_at = now.plus_ms(lease_ms.max(1))).is_some())
    }

    async fn release(&self, lease: &Lease) -> Stored<()> {
        let mut state = self.state();
        if state.held.get(&lease.name).is_some_and(|held| held.is(lease)) {
            state.held.remove(&lease.name);
        }
        Ok(())
    }
}
