//! What this process remembers of refusals, so that a refused request that comes again costs no store.
//!
//! - A limit that has refused a subject refuses it until the time the store has told, at most [`LIMIT_MS_MAX`].
//! - A ban is remembered for [`BAN_MS_MAX`]: one that is lifted or replaced is seen again after that.
//! - Refusals from memory are strikes too. They are counted here and reported with the user's next refusal by the store,
//!   at the latest by the one that may complete the number that bans. With one process a user is banned by the same
//!   request as without this memory; with several, up to that number later for each process.
//! - What is answered from memory anyway (a sold-out sale, the list of sales) is limited by counts of this process.
//!
//! All of it is bounded; what does not fit is asked of the store again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;

use crate::{
    config::Abuse,
    domain::{GateRequest, LimitCheck, Subject, Timestamp},
    problem::Problem,
};

/// Longest that a refusal by a limit is remembered.
const LIMIT_MS_MAX: u64 = 5_000;
/// Longest that a ban is remembered.
const BAN_MS_MAX: u64 = 1_000;
/// When either is dropped. Whether it still holds, its own end says, by the app's clock.
const DROPPED: Duration = Duration::from_secs(60);
/// Entries of each kind.
const ENTRIES_MAX: u64 = 50_000;
/// A local count that has not been used for this long starts anew.
const COUNT_IDLE: Duration = Duration::from_secs(600);

/// Refusals, by the limit's name and whom it refuses: until when, by the monotonic clock.
type Limited = Cache<(&'static str, Subject), u64>;

/// The end of a ban as the client is told, and how long it is believed.
#[derive(Debug, Clone, Copy)]
struct Banned {
    until: Option<Timestamp>,
    /// By the monotonic clock.
    believed_until_ms: u64,
}

/// Refusals of one user within about one window of the abuse policy.
#[derive(Default)]
struct Strikes {
    unreported: AtomicU32,
    /// Since the last report that may have completed the number that bans.
    reported: AtomicU32,
}

/// What memory says about a request.
#[derive(Debug)]
pub(super) enum Recalled {
    /// The store must be asked.
    Nothing,
    /// Refused.
    Refused(Problem),
}

pub(super) struct Refusals {
    abuse: Abuse,
    limited: Limited,
    /// By the subjects that must not be banned, together: the store does not say which of them is.
    banned: Cache<Vec<Subject>, Banned>,
    strikes: Cache<Subject, Arc<Strikes>>,
    /// Limits counted in this process: the theoretical arrival time, in microseconds.
    counts: Cache<(&'static str, Subject), Arc<AtomicU64>>,
}

impl Refusals {
    pub(super) fn new(abuse: Abuse) -> Self {
        let lived = |life: Duration| Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(life);
        Self {
            abuse,
            limited: lived(DROPPED).build(),
            banned: Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(DROPPED).build(),
            strikes: Cache::builder()
                .max_capacity(ENTRIES_MAX)
                .time_to_live(Duration::from_secs(abuse.window_seconds))
                .build(),
            counts: Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(COUNT_IDLE).build(),
        }
    }

    /// Whether the request is refused without asking the store, at this moment of the monotonic clock.
    pub(super) async fn recall(&self, entry: &GateRequest, monotonic_ms: u64) -> Recalled {
        if let Some(until) = self.recall_ban(entry, monotonic_ms).await {
            return Recalled::Refused(Problem::Banned { until });
        }
        for limit in &entry.limits {
            let until_ms = self.limited.get(&(limit.name, limit.subject.clone())).await;
            let Some(until_ms) = until_ms.filter(|until_ms| monotonic_ms < *until_ms) else {
                continue;
            };
            if entry.abuse.is_some() && self.strike(&limit.subject).await {
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

    async fn recall_ban(
        &self,
        entry: &GateRequest,
        monotonic_ms: u64,
    ) -> Option<Option<Timestamp>> {
        let subjects = entry.not_banned.as_slice();
        let each = subjects.iter().map(std::slice::from_ref).filter(|_| subjects.len() > 1);
        for key in std::iter::once(subjects).chain(each) {
            if let Some(banned) = self.banned.get(key).await
                && monotonic_ms < banned.believed_until_ms
                && banned.until.is_none_or(|until| entry.now < until)
            {
                return Some(banned.until);
            }
        }
        None
    }

    /// Counts a refusal from memory; `true` when the store must hear of it now, because it may be the one that bans.
    async fn strike(&self, subject: &Subject) -> bool {
        if !matches!(subject, Subject::User(_)) {
            return false;
        }
        let strikes = self.strikes_of(subject).await;
        let unreported = strikes.unreported.load(Ordering::Relaxed);
        if strikes.reported.load(Ordering::Relaxed).saturating_add(unreported)
            >= self.abuse.refusals_max
        {
            return true;
        }
        strikes.unreported.fetch_add(1, Ordering::Relaxed);
        false
    }

    async fn strikes_of(&self, subject: &Subject) -> Arc<Strikes> {
        if let Some(strikes) = self.strikes.get(subject).await {
            return strikes;
        }
        self.strikes.get_with(subject.clone(), async { Arc::default() }).await
    }

    /// Takes out the refusals of the entry's user that the store has not heard of.
    pub(super) async fn take_unreported(&self, entry: &GateRequest) -> u32 {
        match user_of(entry) {
            Some(subject) => self
                .strikes
                .get(subject)
                .await
                .map_or(0, |strikes| strikes.unreported.swap(0, Ordering::Relaxed)),
            None => 0,
        }
    }

    /// Puts refusals back that the store has not counted.
    pub(super) async fn keep_unreported(&self, entry: &GateRequest, unreported: u32) {
        if unreported > 0
            && let Some(subject) = user_of(entry)
        {
            self.strikes_of(subject).await.unreported.fetch_add(unreported, Ordering::Relaxed);
        }
    }

    /// Notes a refusal by the store, which has counted `also_refused` along where the limit is one of a user.
    pub(super) async fn note_limited(
        &self,
        entry: &GateRequest,
        limit: &LimitCheck,
        retry_after_ms: u64,
        also_refused: u32,
        monotonic_ms: u64,
    ) {
        let key = (limit.name, limit.subject.clone());
        if entry.abuse.is_some() && matches!(limit.subject, Subject::User(_)) {
            let strikes = self.strikes_of(&limit.subject).await;
            let reported =
                strikes.reported.fetch_add(also_refused.saturating_add(1), Ordering::Relaxed);
            if reported.saturating_add(also_refused) >= self.abuse.refusals_max {
                // The store has banned the user, which the next request is to hear, or its window had begun anew: so does
                // the count here.
                strikes.reported.store(0, Ordering::Relaxed);
                self.limited.invalidate(&key).await;
                return;
            }
        } else {
            self.keep_unreported(entry, also_refused).await;
        }
        self.limited
            .insert(key, monotonic_ms.saturating_add(retry_after_ms.min(LIMIT_MS_MAX)))
            .await;
    }

    /// Notes that the store has refused these subjects because one of them is banned.
    pub(super) async fn note_banned(
        &self,
        subjects: &[Subject],
        until: Option<Timestamp>,
        monotonic_ms: u64,
    ) {
        let believed_until_ms = monotonic_ms.saturating_add(BAN_MS_MAX);
        self.banned.insert(subjects.to_vec(), Banned { until, believed_until_ms }).await;
    }

    /// To be called after a ban was put or lifted here; other processes see it after [`BAN_MS_MAX`].
    pub(super) fn forget_bans(&self) {
        self.banned.invalidate_all();
    }

    /// Counts a request that is answered from memory; the error says after how many milliseconds one is let in.
    pub(super) async fn count(&self, limit: &LimitCheck, now: Timestamp) -> Result<(), u64> {
        let key = (limit.name, limit.subject.clone());
        let tat = match self.counts.get(&key).await {
            Some(tat) => tat,
            None => self.counts.get_with(key, async { Arc::default() }).await,
        };
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

fn user_of(entry: &GateRequest) -> Option<&Subject> {
    let user = entry
        .limits
        .iter()
        .map(|limit| &limit.subject)
        .find(|subject| matches!(subject, Subject::User(_)));
    user.filter(|_| entry.abuse.is_some())
}
