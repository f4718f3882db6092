//! The gate: session, bans and limits, decided in one short section over the parts of all subjects concerned.

use async_trait::async_trait;

use super::shard::{Held, Window, place};
use super::{MemoryGate, SLACK_MS};
use crate::{
    domain::{AbusePolicy, Ban, GateDecision, GateRequest, Subject, Timestamp},
    ports::{Gate, Stored},
    security,
};

/// Why a subject is banned that was refused too often.
const AUTOMATIC_REASON: &str = "too many refused requests";

#[async_trait]
impl Gate for MemoryGate {
    async fn enter(&self, entry: &GateRequest) -> Stored<GateDecision> {
        let (entered, banned) = self.decide(entry);
        if let Some(subject) = banned {
            security::banned_automatically(entry, subject);
        }
        Ok(entered)
    }
}

impl MemoryGate {
    /// The answer, and whom it has banned.
    fn decide<'e>(&self, entry: &'e GateRequest) -> (GateDecision, Option<&'e Subject>) {
        let session = entry
            .session
            .map(|(user_id, session_id)| (Subject::User(user_id), user_id, session_id));
        let subjects = session.iter().map(|(subject, ..)| subject);
        let subjects = subjects
            .chain(&entry.not_banned)
            .chain(entry.limits.iter().map(|limit| &limit.subject));
        let mut held =
            self.shards.all(subjects.fold(0, |places, subject| places | 1 << place(subject)));
        let now = entry.now;

        if let Some((subject, user_id, session_id)) = &session {
            let sessions = held.of(subject).sessions.get(user_id);
            let alive = sessions
                .and_then(|all| all.iter().find(|(end, id, _)| id == session_id && now < *end));
            match (alive, entry.role) {
                (None, _) => return (GateDecision::NoSession, None),
                (Some((.., role)), Some(needed)) if *role != needed => {
                    return (GateDecision::WrongRole, None);
                }
                (Some(_), _) => {}
            }
        }

        let mut ban_ends: Option<Option<Timestamp>> = None;
        for subject in &entry.not_banned {
            if let Some(ban) = held.of(subject).bans.get(subject).filter(|ban| ban.holds(now)) {
                ban_ends = Some(match ban_ends {
                    None => ban.expires_at,
                    Some(known) => known.zip(ban.expires_at).map(|(a, b)| a.max(b)),
                });
            }
        }
        if let Some(until) = ban_ends {
            return (GateDecision::Banned { until }, None);
        }

        let mut refused: Option<(usize, u64)> = None;
        for (index, limit) in entry.limits.iter().enumerate() {
            let tat = held.of(&limit.subject).limit(limit.name).get(&limit.subject).copied();
            if let Err(wait_us) = limit.quota.arrive(tat, now, SLACK_MS)
                && refused.is_none_or(|(_, longest_us)| wait_us > longest_us)
            {
                refused = Some((index, wait_us));
            }
        }
        if let Some((limit, wait_us)) = refused {
            let subject = &entry.limits[limit].subject;
            let banned = entry.abuse.is_some_and(|abuse| strike(&mut held, subject, abuse, now));
            return (
                GateDecision::Limited { limit, retry_after_ms: wait_us.div_ceil(1_000) },
                banned.then_some(subject),
            );
        }

        for limit in &entry.limits {
            let tats = held.of(&limit.subject).limit(limit.name);
            if let Ok(tat) = limit.quota.arrive(tats.get(&limit.subject).copied(), now, SLACK_MS) {
                match tats.get_mut(&limit.subject) {
                    Some(known) => *known = tat,
                    None => drop(tats.put(limit.subject.clone(), tat, |tat| *tat <= micros(now))),
                }
            }
        }
        (GateDecision::Entered, None)
    }
}

/// Counts a refusal against a user, and bans one that has been refused too often, unless a ban that lasts as long
/// holds already. Whether it has banned.
fn strike(held: &mut Held<'_>, subject: &Subject, abuse: AbusePolicy, now: Timestamp) -> bool {
    if !matches!(subject, Subject::User(_)) {
        return false;
    }
    let shard = held.of(subject);
    let mut strikes = Window::add(shard.strikes.get(subject).copied(), abuse.window_ms, now);
    strikes.count = strikes.count.saturating_add(abuse.also_refused);
    if strikes.count <= abuse.refusals_max {
        shard.strikes.put(subject.clone(), strikes, |window| window.over(now));
        return false;
    }
    let ends = now.plus_ms(abuse.ban_ms);
    shard.strikes.remove(subject);
    if shard
        .bans
        .get(subject)
        .is_some_and(|earlier| earlier.expires_at.is_none_or(|earlier_ends| earlier_ends >= ends))
    {
        return false;
    }
    let ban = Ban {
        subject: subject.clone(),
        reason: AUTOMATIC_REASON.to_owned(),
        created_at: now,
        expires_at: Some(ends),
    };
    shard.bans.put(subject.clone(), ban, |ban| !ban.holds(now));
    true
}

const fn micros(time: Timestamp) -> u64 {
    // A timestamp is never negative.
    time.epoch_ms().unsigned_abs() * 1_000
}
