//! Steps of the sweeper that copy the ends of sessions and the bans from the ledger to the fast
//! store, also when the use case that changed them was cut off, and after the fast store has lost
//! its data.
//!
//! Each end of a session and each change of a ban is passed to the fast store once more after a
//! minute: by then a process that was copying an older state has either read the ledger again or
//! died, and a replica that missed the change has taken over.
//!
//! A node of the fast store that does not answer fails only the calls of its own users and
//! subjects. So every call is tried even after a failure; failed calls are moved behind the others
//! and tried again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use futures_util::{StreamExt as _, stream};

use super::count;
use crate::app::App;
use crate::{
    domain::{Ban, KeptBan, SessionId, Subject, Timestamp, UserChange},
    ports::{Random, StoreError, Stored},
};

/// Each change is passed to the fast store again after this long.
const AGAIN_MS: u64 = 60_000;
/// A failed call is retried after this long, so that it does not hold up changes that can be made.
const RETRY_MS: u64 = 5_000;
/// Bans restored at a time; without a loss, one page with each tick.
const BANS_PAGE: u32 = 100;
/// Most calls of the fast store in flight at the same time.
pub(in crate::app) const IN_FLIGHT: usize = 64;
/// A session that ended this long ago, and a ban, are deleted from the ledger: for sessions more
/// than clocks may differ, for bans long enough to answer questions about them.
const SESSION_KEPT_MS: u64 = 60_000;
const BAN_KEPT_MS: u64 = 30 * 86_400_000;
/// Old bans are searched for this often: they have no index, so the search scans the table.
const OLD_BANS_EVERY_MS: u64 = 60_000;

/// State that is kept from tick to tick.
pub(in crate::app) struct SharingMemory {
    /// This process's secret for loading bans.
    token: u128,
    /// The last ban of the last page that was restored.
    last_ban: Mutex<Option<Subject>>,
    /// When old bans are searched for again, by the monotonic clock.
    old_bans_due_ms: Mutex<u64>,
}

impl SharingMemory {
    pub(in crate::app) fn new(random: &dyn Random) -> Self {
        let mut token = [0; 16];
        random.fill(&mut token);
        Self {
            token: u128::from_ne_bytes(token),
            last_ban: Mutex::default(),
            old_bans_due_ms: Mutex::default(),
        }
    }
}

impl App {
    /// One tick's work on sessions and bans. Each part is tried even when another fails; then the
    /// first failure is returned.
    pub(in crate::app) async fn share_accounts(&self) -> Stored<u32> {
        let parts = [
            self.share_ends().await,
            self.share_bans().await,
            self.restore_bans().await,
            self.delete_over().await,
        ];
        parts.into_iter().try_fold(0, |done, part| part.map(|more| done + more))
    }

    /// Ends sessions in the fast store that have ended in the ledger.
    async fn share_ends(&self) -> Stored<u32> {
        let now = self.now();
        let due = self.ports.session_ledger.ends_due(now, self.config.sweeper.batch_max).await?;
        let told: Vec<_> = stream::iter(due)
            .map(|kept| async move {
                (self.ports.sessions.end(kept.session.user_id, kept.session.session_id).await, kept)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let is_old = |ended_at| now.since_ms(ended_at) >= AGAIN_MS;
        let mut by_time: HashMap<Option<Timestamp>, Vec<SessionId>> = HashMap::new();
        let mut failure = None;
        let mut done = 0;
        for (outcome, kept) in told {
            let again_at = match outcome {
                Ok(()) => {
                    done += 1;
                    (!kept.ended_at.is_some_and(is_old)).then(|| now.plus_ms(AGAIN_MS))
                }
                Err(error) => {
                    failure.get_or_insert(error);
                    Some(now.plus_ms(RETRY_MS))
                }
            };
            by_time.entry(again_at).or_default().push(kept.session.session_id);
        }
        for (again_at, ids) in by_time {
            self.ports.session_ledger.note_ends(&ids, again_at).await?;
        }
        failure.map_or(Ok(done), Err)
    }

    /// Creates and lifts bans in the fast store as in the ledger.
    async fn share_bans(&self) -> Stored<u32> {
        let now = self.now();
        let due = self.ports.ban_ledger.shares_due(now, self.config.sweeper.batch_max).await?;
        let told: Vec<Stored<()>> = stream::iter(due)
            .map(|kept| async move {
                let last = now.since_ms(kept.changed_at) >= AGAIN_MS;
                let outcome = self.share_ban(&kept, last, now).await;
                let again_at = match &outcome {
                    Ok(()) if last => None,
                    Ok(()) => Some(now.plus_ms(AGAIN_MS)),
                    Err(_) => Some(now.plus_ms(RETRY_MS)),
                };
                self.ports
                    .ban_ledger
                    .note_shared(&kept.ban.subject, kept.version, again_at)
                    .await?;
                outcome
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let done = count(told.len());
        told.into_iter().collect::<Stored<()>>().map(|()| done)
    }

    /// Creates or lifts one ban in the fast store; `last` on the second call for the same change.
    async fn share_ban(&self, kept: &KeptBan, last: bool, now: Timestamp) -> Stored<()> {
        if kept.lifted {
            // A ban that the gate itself has created since stays: the ledger does not know it.
            self.ports.blacklist.lift_older(&kept.ban.subject, kept.put_until()).await?;
        } else if last {
            self.ports.blacklist.restore(std::slice::from_ref(&kept.ban)).await?;
        } else {
            self.ports.blacklist.ban(&kept.ban).await?;
        }
        if kept.holds(now) {
            self.end_sessions_of(&kept.ban.subject).await?;
        }
        Ok(())
    }

    /// Ends the sessions of the user with a banned phone: the gate knows users, not phones.
    pub(in crate::app) async fn end_sessions_of(&self, banned: &Subject) -> Stored<()> {
        if let Subject::Phone(phone) = banned
            && let Some(user) = self.ports.users.by_phone(phone).await?
        {
            self.ports.users.change(user.user_id, &UserChange::default(), self.now()).await?;
            self.ports.sessions.end_all(user.user_id, None).await?;
        }
        Ok(())
    }

    /// Restores the operators' bans: all of them at once when the fast store has lost its data,
    /// otherwise a page with each tick, for bans that a single node of a cluster may have lost.
    /// Bans that can't be restored hold up no later page.
    async fn restore_bans(&self) -> Stored<u32> {
        let token = self.sharing.token;
        let loading = self.ports.blacklist.begin_loading(token).await?;
        let last = self.sharing.last_ban.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut after = if loading { None } else { last };
        let mut restored = 0;
        let mut failure = None;
        loop {
            let page = self.ports.ban_ledger.page(self.now(), after.as_ref(), BANS_PAGE).await?;
            let failed = self.restore_kept(&page).await?;
            restored += count(page.len() - failed.len());
            failure = failure.or(failed.into_values().next());
            after = page
                .last()
                .filter(|_| page.len() == BANS_PAGE as usize)
                .map(|kept| kept.ban.subject.clone());
            if after.is_none() || !loading {
                break;
            }
        }
        *self.sharing.last_ban.lock().unwrap_or_else(PoisonError::into_inner) = after;
        if let Some(error) = failure {
            return Err(error);
        }
        if loading {
            self.ports.blacklist.finish_loading(token).await?;
            tracing::info!(bans = restored, "the operators' bans were put back");
        }
        Ok(if loading { restored } else { 0 })
    }

    /// Restores the bans of some subjects from the ledger. Returns the subjects for which this
    /// failed.
    pub(in crate::app) async fn restore_bans_of(
        &self,
        subjects: &[Subject],
    ) -> Stored<HashMap<Subject, StoreError>> {
        let kept = self.ports.ban_ledger.of(subjects).await?;
        let now = self.now();
        let holding: Vec<KeptBan> = kept.into_iter().filter(|kept| kept.holds(now)).collect();
        self.restore_kept(&holding).await
    }

    /// Restores bans; a ban that was lifted since it was read is lifted again. Returns the subjects
    /// for which this failed.
    async fn restore_kept(&self, kept: &[KeptBan]) -> Stored<HashMap<Subject, StoreError>> {
        let mut failed = HashMap::new();
        if kept.is_empty() {
            return Ok(failed);
        }
        let bans: Vec<Ban> = kept.iter().map(|kept| kept.ban.clone()).collect();
        let put: HashMap<Subject, Timestamp> =
            bans.iter().map(|ban| (ban.subject.clone(), ban.created_at)).collect();
        let subjects: Vec<Subject> = put.keys().cloned().collect();
        // One by one, to know which of them failed.
        let mut restored = stream::iter(bans)
            .map(|ban| async move {
                (self.ports.blacklist.restore(std::slice::from_ref(&ban)).await, ban.subject)
            })
            .buffer_unordered(IN_FLIGHT);
        while let Some((outcome, subject)) = restored.next().await {
            if let Err(error) = outcome {
                failed.insert(subject, error);
            }
        }
        let again: HashMap<Subject, KeptBan> = self
            .ports
            .ban_ledger
            .of(&subjects)
            .await?
            .into_iter()
            .map(|kept| (kept.ban.subject.clone(), kept))
            .collect();
        for (subject, put) in put {
            let lifted = match again.get(&subject) {
                Some(kept) => kept.lifted.then(|| kept.put_until()),
                None => Some(put),
            };
            if let Some(put_until) = lifted
                && let Err(error) = self.ports.blacklist.lift_older(&subject, put_until).await
            {
                failed.insert(subject, error);
            }
        }
        Ok(failed)
    }

    async fn delete_over(&self) -> Stored<u32> {
        let (now, limit) = (self.now(), self.config.sweeper.batch_max);
        let sessions =
            self.ports.session_ledger.delete_over(now.minus_ms(SESSION_KEPT_MS), limit).await?;
        let now_ms = self.monotonic_ms();
        let due = || self.sharing.old_bans_due_ms.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ms < *due() {
            return Ok(sessions);
        }
        *due() = now_ms + OLD_BANS_EVERY_MS;
        let bans = self.ports.ban_ledger.delete_over(now.minus_ms(BAN_KEPT_MS), limit).await?;
        if bans >= limit {
            // There may be more: with the next tick.
            *due() = now_ms;
        }
        Ok(sessions + bans)
    }
}
