//! The gate's state, sharded by subject with one lock per shard: when a map grows, only a fraction
//! of the callers wait, for a fraction of the time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::expiring_map::ExpiringMap;
use crate::domain::{
    Ban, Captcha, CaptchaId, CountWindow, Role, SessionId, Subject, Timestamp, UserId,
};

/// Number of shards; one bit each in a `u64`.
const SHARDS: usize = 64;
/// Limit on the entries of each limit, and on strikes, failures and captchas. Beyond it the oldest
/// are evicted and start anew. Sessions and bans are never evicted before they end: the number of
/// users bounds them.
const ENTRIES_MAX: usize = 262_144;

/// What is stored about the subjects of one shard.
pub(super) struct Shard {
    /// Per user, ordered by end and id, the earliest end first.
    pub(super) sessions: ExpiringMap<UserId, Vec<(Timestamp, SessionId, Role)>>,
    pub(super) bans: ExpiringMap<Subject, Ban>,
    /// By the limit's name (the code has a few): the theoretical arrival time, in microseconds.
    limits: Vec<(&'static str, ExpiringMap<Subject, u64>)>,
    pub(super) strikes: ExpiringMap<Subject, CountWindow>,
    pub(super) failures: ExpiringMap<Subject, CountWindow>,
    pub(super) captchas: ExpiringMap<CaptchaId, Captcha>,
    /// Providers' tokens by digest: which captcha each answered, and until when that is known.
    pub(super) spent: ExpiringMap<[u8; 32], (CaptchaId, Timestamp)>,
}

impl Shard {
    fn new() -> Self {
        let most = ENTRIES_MAX / SHARDS;
        Self {
            sessions: ExpiringMap::new(usize::MAX),
            bans: ExpiringMap::new(usize::MAX),
            limits: Vec::new(),
            strikes: ExpiringMap::new(most),
            failures: ExpiringMap::new(most),
            captchas: ExpiringMap::new(most),
            spent: ExpiringMap::new(most),
        }
    }

    pub(super) fn limit(&mut self, name: &'static str) -> &mut ExpiringMap<Subject, u64> {
        let index = self.limits.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.limits.push((name, ExpiringMap::new(ENTRIES_MAX / SHARDS)));
            self.limits.len() - 1
        });
        &mut self.limits[index].1
    }
}

/// All shards.
pub(super) struct Shards(Vec<Mutex<Shard>>);

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(Shard::new())).collect())
    }
}

impl Shards {
    pub(super) fn at(&self, place: usize) -> MutexGuard<'_, Shard> {
        // A critical section only moves plain values, so a panic leaves none of them half-changed.
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, subject: &Subject) -> MutexGuard<'_, Shard> {
        self.at(place(subject))
    }

    /// Locks the shards whose bits are set, in ascending order, so that two callers can't deadlock.
    pub(super) fn all(&self, places: u64) -> LockedShards<'_> {
        let mut guards = Vec::with_capacity(places.count_ones() as usize);
        let mut left = places;
        while left != 0 {
            guards.push(self.at(left.trailing_zeros() as usize));
            left &= left - 1;
        }
        LockedShards { places, guards }
    }

    /// Visits all shards, one at a time.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..SHARDS).map(|place| self.at(place))
    }
}

/// Several shards, locked together.
pub(super) struct LockedShards<'s> {
    places: u64,
    guards: Vec<MutexGuard<'s, Shard>>,
}

impl LockedShards<'_> {
    /// The shard of a subject whose bit was set.
    pub(super) fn of(&mut self, subject: &Subject) -> &mut Shard {
        let below = self.places & ((1 << place(subject)) - 1);
        &mut self.guards[below.count_ones() as usize]
    }
}

/// The shard of a subject. Needs no secret: an attacker who directs all subjects to one shard only
/// shares that shard's bounds.
pub(super) fn place(subject: &Subject) -> usize {
    fn fold(bytes: &[u8]) -> usize {
        bytes
            .iter()
            .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)))
    }
    fn ip(ip: &std::net::IpAddr) -> usize {
        match ip {
            std::net::IpAddr::V4(v4) => fold(&v4.octets()),
            std::net::IpAddr::V6(v6) => fold(&v6.octets()[..8]),
        }
    }
    let hash = match subject {
        Subject::User(user_id) => return place_of_id(user_id.as_bytes()),
        Subject::Address(address) => ip(address),
        Subject::Network(prefix) => ip(&prefix.network()),
        Subject::Phone(phone) => fold(phone.as_str().as_bytes()),
        Subject::PhoneAt(phone, address) => {
            fold(phone.as_str().as_bytes()).wrapping_add(ip(address))
        }
        Subject::PhoneRange(range) => fold(range.as_str().as_bytes()),
    };
    hash % SHARDS
}

/// The shard of an id, from its last byte, which is random.
pub(super) fn place_of_id(id: &[u8; 16]) -> usize {
    usize::from(id[15]) % SHARDS
}

/// The shard of a digest.
pub(super) fn place_of_digest(digest: &[u8; 32]) -> usize {
    usize::from(digest[31]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_spread_over_all_parts() {
        let mut per_part = [0; SHARDS];
        for last in 0..=255_u8 {
            for third in 0..16_u8 {
                let ip = std::net::Ipv4Addr::new(10, 0, third, last);
                per_part[place(&Subject::address(ip.into()))] += 1;
            }
        }
        assert!(per_part.iter().all(|count| (32..=128).contains(count)), "{per_part:?}");
    }
}
