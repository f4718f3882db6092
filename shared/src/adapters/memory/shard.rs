//! The gate's state, cut into parts by subject, each under a lock of its own: a part that grows stops a fraction of
//! the callers for a fraction of the time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::swept::Swept;
use crate::domain::{Ban, Captcha, CaptchaId, Role, SessionId, Subject, Timestamp, UserId};

/// Parts; one bit each in a `u64`.
const SHARDS: usize = 64;
/// Most entries kept of each limit, and of strikes, failures and captchas. With more subjects than that the oldest
/// start anew. Sessions and bans are never forgotten before they are over: they are bounded by the users.
const ENTRIES_MAX: usize = 262_144;

/// A count in a window that starts with the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) count: u32,
    pub(super) ends: Timestamp,
}

impl Window {
    /// One more than `earlier`, or the first of a new window.
    pub(super) fn add(earlier: Option<Self>, window_ms: u64, now: Timestamp) -> Self {
        let running = earlier.filter(|window| !window.over(now));
        let window = running.unwrap_or(Self { count: 0, ends: now.plus_ms(window_ms) });
        Self { count: window.count.saturating_add(1), ..window }
    }

    pub(super) fn over(&self, now: Timestamp) -> bool {
        self.ends <= now
    }
}

/// What is known of the subjects of one part.
pub(super) struct Shard {
    /// Per user, by end and id, the first to be over first.
    pub(super) sessions: Swept<UserId, Vec<(Timestamp, SessionId, Role)>>,
    pub(super) bans: Swept<Subject, Ban>,
    /// By the limit's name, of which the code has a few: the theoretical arrival time, in microseconds.
    limits: Vec<(&'static str, Swept<Subject, u64>)>,
    pub(super) strikes: Swept<Subject, Window>,
    pub(super) failures: Swept<Subject, Window>,
    pub(super) captchas: Swept<CaptchaId, Captcha>,
}

impl Shard {
    fn new() -> Self {
        let most = ENTRIES_MAX / SHARDS;
        Self {
            sessions: Swept::new(usize::MAX),
            bans: Swept::new(usize::MAX),
            limits: Vec::new(),
            strikes: Swept::new(most),
            failures: Swept::new(most),
            captchas: Swept::new(most),
        }
    }

    pub(super) fn limit(&mut self, name: &'static str) -> &mut Swept<Subject, u64> {
        let index = self.limits.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.limits.push((name, Swept::new(ENTRIES_MAX / SHARDS)));
            self.limits.len() - 1
        });
        &mut self.limits[index].1
    }
}

/// All parts.
pub(super) struct Shards(Vec<Mutex<Shard>>);

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(Shard::new())).collect())
    }
}

impl Shards {
    pub(super) fn at(&self, place: usize) -> MutexGuard<'_, Shard> {
        // A section only moves plain values, so one that panicked has not left them half-done.
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, subject: &Subject) -> MutexGuard<'_, Shard> {
        self.at(place(subject))
    }

    /// Locks the parts whose bits are set, in ascending order, so that two callers never wait for each other.
    pub(super) fn all(&self, places: u64) -> Held<'_> {
        let mut guards = Vec::with_capacity(places.count_ones() as usize);
        let mut left = places;
        while left != 0 {
            guards.push(self.at(left.trailing_zeros() as usize));
            left &= left - 1;
        }
        Held { places, guards }
    }

    /// Goes through all parts, one at a time.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..SHARDS).map(|place| self.at(place))
    }
}

/// Several parts, locked together.
pub(super) struct Held<'s> {
    places: u64,
    guards: Vec<MutexGuard<'s, Shard>>,
}

impl Held<'_> {
    /// The part of a subject whose bit was given.
    pub(super) fn of(&mut self, subject: &Subject) -> &mut Shard {
        let below = self.places & ((1 << place(subject)) - 1);
        &mut self.guards[below.count_ones() as usize]
    }
}

/// Which part keeps a subject. Needs no secret: whoever makes all subjects fall into one part shares its bounds.
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
        Subject::Phone(phone) => fold(phone.as_str().as_bytes()),
        Subject::PhoneAt(phone, address) => {
            fold(phone.as_str().as_bytes()).wrapping_add(ip(address))
        }
    };
    hash % SHARDS
}

/// Which part keeps an id: its last byte is random.
pub(super) fn place_of_id(id: &[u8; 16]) -> usize {
    usize::from(id[15]) % SHARDS
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

    #[test]
    fn a_window_starts_with_the_first() {
        let at = Timestamp::from_epoch_ms;
        let first = Window::add(None, 100, at(1_000));
        assert_eq!(first, Window { count: 1, ends: at(1_100) });
        assert_eq!(Window::add(Some(first), 100, at(1_099)), Window { count: 2, ends: at(1_100) });
        assert_eq!(Window::add(Some(first), 100, at(1_100)), Window { count: 1, ends: at(1_200) });
    }
}
