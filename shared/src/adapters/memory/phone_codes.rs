//! Codes sent to phones, and the count of messages. A restart loses both: users ask for new codes,
//! and the day's count starts anew.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::expiring_map::ExpiringMap;
use crate::{
    domain::{CodeDigest, KeptCode, Phone, Timestamp},
    ports::{PhoneCodes, Stored},
};

/// Most codes kept. Beyond it the oldest are evicted. Limits on messages end earlier.
const ENTRIES_MAX: usize = 262_144;

/// The codes of one process. One lock is enough: a text message costs far more than waiting for it.
pub struct MemoryPhoneCodes(Mutex<State>);

struct State {
    codes: ExpiringMap<Phone, KeptCode>,
    /// The latest day with a message, and how many it has had.
    messages: (u32, u32),
}

impl MemoryPhoneCodes {
    /// Creates an empty store.
    #[expect(clippy::new_without_default, reason = "as with the other stores in memory")]
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(State { codes: ExpiringMap::new(ENTRIES_MAX), messages: (0, 0) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A critical section only moves plain values, so a panic leaves none of them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PhoneCodes for MemoryPhoneCodes {
    async fn put(&self, code: &KeptCode, now: Timestamp) -> Stored<()> {
        self.state().codes.put(code.phone.clone(), code.clone(), |kept| kept.expires_at <= now);
        Ok(())
    }

    async fn attempt(&self, phone: &Phone, now: Timestamp) -> Stored<Option<CodeDigest>> {
        let mut state = self.state();
        let code = state
            .codes
            .get_mut(phone)
            .filter(|code| now < code.expires_at && code.attempts_left > 0);
        Ok(code.map(|code| {
            code.attempts_left -= 1;
            code.digest
        }))
    }

    async fn redeem(&self, phone: &Phone, digest: CodeDigest, now: Timestamp) -> Stored<bool> {
        let mut state = self.state();
        let same = state
            .codes
            .get(phone)
            .is_some_and(|code| code.digest == digest && now < code.expires_at);
        Ok(same && state.codes.remove(phone).is_some())
    }

    async fn count_message(&self, day: u32, per_day_max: u32) -> Stored<bool> {
        let mut state = self.state();
        let sent = if state.messages.0 == day { state.messages.1 } else { 0 };
        if sent >= per_day_max {
            return Ok(false);
        }
        state.messages = (day, sent + 1);
        Ok(true)
    }

    async fn uncount_message(&self, day: u32) -> Stored<()> {
        let mut state = self.state();
        if state.messages.0 == day {
            state.messages.1 = state.messages.1.saturating_sub(1);
        }
        Ok(())
    }
}
