//! Remembers refusals in this process, so that a refused request that is repeated calls no store.
//!
//! - A subject that a limit has refused is refused until the time that the store has given, at most
//!   for [`LIMIT_MS_MAX`].
//! - A ban is remembered for [`BAN_MS_MAX`]; after that, a lifted or replaced ban is noticed.
//! - Refusals from memory are strikes too. They are counted here and reported with the store's next
//!   refusal of the subject, at the latest when they may reach the number that bans. With one process
//!   a subject is banned by the same request as without this cache; with several, each process may
//!   delay the ban by up to that number of requests.
//! - Requests that are answered from memory anyway (a sold-out sale, the list of sales) are limited
//!   by counters in this process.
//!
//! All of these are bounded; for an evicted entry the store is asked again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::local_cache::LocalCache;
use crate::{
    config::Abuse,
    domain::{AbusePolicy, GateRequest, LimitCheck, Subject, Timestamp},
    problem::Problem,
};

/// Longest time that a refusal by a limit is remembered.
const LIMIT_MS_MAX: u64 = 5_000;
/// Longest time that a ban is remembered.
const BAN_MS_MAX: u64 = 1_000;
/// When either is evicted. Its own end and the app's clock decide whether it is still valid.
const DROPPED: Duration = Duration::from_secs(60);
/// Most entries of each kind.
const ENTRIES_MAX: usize = 50_000;

/// When each refusal ends, by the monotonic clock; the key is the limit's name and the refused
/// subject.
type Limited = LocalCache<(&'static str, Subject), u64>;

/// The end of a ban as the client sees it, and how long this entry is trusted.
#[derive(Debug, Clone, Copy)]
struct Banned {
    until: Option<Timestamp>,
    /// By the monotonic clock.
    believed_until_ms: u64,
}

/// Refusals of one subject within about one window of the abuse policy.
#[derive(Default)]
struct Strikes {
    unreported: AtomicU32,
    /// Refusals known to the store since the last report that may have reached the number that
    /// bans.
    reported: AtomicU32,
}

/// The answer from memory to a request.
#[derive(Debug)]
pub(super) enum Recalled {
    /// The store must be asked.
    Nothing,
    /// Refused.
    Refused(Problem),
}

pub(super) struct Refusals {
    limited: Limited,
    /// Keyed by all subjects of a request that must not be banned, or by its address and networks:
    /// the store does not say which of them is.
    banned: LocalCache<Vec<Subject>, Banned>,
    strikes: LocalCache<Subject, Arc<Strikes>>,
    /// Limits counted in this process: the theoretical arrival time, in microseconds.
    counts: LocalCache<(&'static str, Subject), Arc<AtomicU64>>,
}

impl Refusals {
    pub(super) fn new(abuse: Abuse) -> Self {
        Self {
            limited: LocalCache::new(ENTRIES_MAX, DROPPED),
            banned: LocalCache::new(ENTRIES_MAX, DROPPED),
            strikes: LocalCache::new(ENTRIES_MAX, Duration::from_secs(abuse.window_seconds)),
            counts: LocalCache::lasting(ENTRIES_MAX),
        }
    }

    /// Whether memory refuses the request at this time of the monotonic clock.
    pub(super) fn recall(&self, entry: &GateRequest, monotonic_ms: u64) -> Recalled {
        if let Some(until) = self.recall_ban(entry, monotonic_ms) {
            return Recalled::Refused(Problem::Banned { until });
        }
        for limit in &entry.limits {
            let until_ms = self.limited.get(&(limit.name, limit.subject.clone()));
            let Some(until_ms) = until_ms.filter(|until_ms| monotonic_ms < *until_ms) else {
                continue;
            };
            if let Some(policy) = entry.counting(limit)
                && self.strike(&limit.subject, policy)
            {
                return Recalled::Nothing;
            }
            let retry_after_ms = until_ms - monotonic_ms;
            return Recalled::Refused(Problem::RateLimited {
                name: limit.name,
                quota: Some(limit.quota),
                retry_after_ms,
            });
        }
        Recalled::Nothing
    }

    fn recall_ban(&self, entry: &GateRequest, monotonic_ms: u64) -> Option<Option<Timestamp>> {
        let subjects = entry.not_banned.as_slice();
        let places: Vec<Subject> =
            subjects.iter().filter(|subject| subject.is_place()).cloned().collect();
        let keys = [subjects, places.as_slice()];
        let keys = if places.len() == subjects.len() { &keys[..1] } else { &keys[..] };
        for key in keys {
            if let Some(banned) = self.banned.get(*key)
                && monotonic_ms < banned.believed_until_ms
                && banned.until.is_none_or(|until| entry.now < until)
            {
                return Some(banned.until);
            }
        }
        None
    }

    /// Counts a refusal from memory; `true` when it must be reported to the store now, because it
    /// may reach the number that bans.
    fn strike(&self, subject: &Subject, policy: AbusePolicy) -> bool {
        let strikes = self.strikes_of(subject);
        let unreported = strikes.unreported.load(Ordering::Relaxed);
        if strikes.reported.load(Ordering::Relaxed).saturating_add(unreported)
            >= policy.refusals_max
        {
            return true;
        }
        strikes.unreported.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn strikes_of(&self, subject: &Subject) -> Arc<Strikes> {
        self.strikes.get_or_insert(subject, Arc::default)
    }

    /// Takes out the refusals of the entry's subject that were not reported to the store yet.
    pub(super) fn take_unreported(&self, entry: &GateRequest) -> u32 {
        match abuser_of(entry) {
            Some(subject) => self
                .strikes
                .get(subject)
                .map_or(0, |strikes| strikes.unreported.swap(0, Ordering::Relaxed)),
            None => 0,
        }
    }

    /// Puts back refusals that the store has not counted.
    pub(super) fn keep_unreported(&self, entry: &GateRequest, unreported: u32) {
        if unreported > 0
            && let Some(subject) = abuser_of(entry)
        {
            self.strikes_of(subject).unreported.fetch_add(unreported, Ordering::Relaxed);
        }
    }

    /// Notes a refusal by the store. If it counts against the limit's subject, the store has also
    /// counted `also_refused`.
    pub(super) fn note_limited(
        &self,
        entry: &GateRequest,
        limit: &LimitCheck,
        retry_after_ms: u64,
        also_refused: u32,
        monotonic_ms: u64,
    ) {
        let key = (limit.name, limit.subject.clone());
        if let Some(policy) = entry.counting(limit) {
            let strikes = self.strikes_of(&limit.subject);
            let reported =
                strikes.reported.fetch_add(also_refused.saturating_add(1), Ordering::Relaxed);
            if reported.saturating_add(also_refused) >= policy.refusals_max {
                // Either the store has banned the subject, and the next request must learn that from
                // the store, or its window has begun anew: count from zero here too.
                strikes.reported.store(0, Ordering::Relaxed);
                self.limited.remove(&key);
                return;
            }
        } else {
            self.keep_unreported(entry, also_refused);
        }
        self.limited.insert(key, monotonic_ms.saturating_add(retry_after_ms.min(LIMIT_MS_MAX)));
    }

    /// Notes that the store has refused these subjects because one of them is banned.
    pub(super) fn note_banned(
        &self,
        subjects: &[Subject],
        until: Option<Timestamp>,
        monotonic_ms: u64,
    ) {
        let believed_until_ms = monotonic_ms.saturating_add(BAN_MS_MAX);
        self.banned.insert(subjects.to_vec(), Banned { until, believed_until_ms });
    }

    /// Must be called after a ban was created or lifted in this process; other processes notice it
    /// after [`BAN_MS_MAX`].
    pub(super) fn forget_bans(&self) {
        self.banned.clear();
    }

    /// Counts a request that is answered from memory; the error is the number of milliseconds until
    /// the next one is admitted.
    pub(super) fn count(&self, limit: &LimitCheck, now: Timestamp) -> Result<(), u64> {
        let key = (limit.name, limit.subject.clone());
        let tat = self.counts.get_or_insert(&key, Arc::default);
        let mut seen = tat.load(Ordering::Relaxed);
        loop {
            let next =
                limit.quota.arrive(Some(seen), now).map_err(|wait_us| wait_us.div_ceil(1_000))?;
            match tat.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => seen = other,
            }
        }
    }
}

/// Against whom refusals of the entry count.
fn abuser_of(entry: &GateRequest) -> Option<&Subject> {
    let counted = entry.limits.iter().find(|limit| entry.counting(limit).is_some());
    counted.map(|limit| &limit.subject)
}
