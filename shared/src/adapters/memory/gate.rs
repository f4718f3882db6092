//! The gate: decides session, bans and limits in one critical section over the shards of all
//! subjects involved.

use async_trait::async_trait;

use super::MemoryGate;
use super::shard::{LockedShards, place};
use crate::{
    domain::{AbusePolicy, GateDecision, GateRequest, GateView, Subject, Timestamp},
    ports::{Gate, Stored},
    security,
};

#[async_trait]
impl Gate for MemoryGate {
    async fn enter(&self, request: &GateRequest) -> Stored<GateDecision> {
        let (decision, banned) = self.decide(request);
        if let Some(subject) = banned {
            security::banned_automatically(request, subject);
        }
        Ok(decision)
    }
}

impl MemoryGate {
    /// Returns the decision, and the subject that it banned.
    fn decide<'r>(&self, request: &'r GateRequest) -> (GateDecision, Option<&'r Subject>) {
        let user = request.session.map(|(user_id, _)| Subject::User(user_id));
        let subjects = user
            .iter()
            .chain(&request.not_banned)
            .chain(request.limits.iter().map(|limit| &limit.subject));
        let mut locked =
            self.shards.all(subjects.fold(0, |places, subject| places | 1 << place(subject)));
        match request.decide(&view(&mut locked, request, user.as_ref())) {
            Ok(tats_us) => {
                charge(&mut locked, request, &tats_us);
                (GateDecision::Entered, None)
            }
            Err(refusal @ GateDecision::Limited { limit, .. }) => {
                let limit = &request.limits[limit];
                let banned = request
                    .counting(limit)
                    .is_some_and(|abuse| strike(&mut locked, &limit.subject, abuse, request.now));
                (refusal, banned.then_some(&limit.subject))
            }
            Err(refusal) => (refusal, None),
        }
    }
}

/// What is stored about the request's subjects.
fn view(locked: &mut LockedShards<'_>, request: &GateRequest, user: Option<&Subject>) -> GateView {
    let session = request.session.zip(user).and_then(|((user_id, session_id), user)| {
        let sessions = locked.of(user).sessions.get(&user_id)?;
        let (ends_at, _, role) = sessions.iter().find(|(_, id, _)| *id == session_id)?;
        Some((*ends_at, *role))
    });
    let ban_ends = request
        .not_banned
        .iter()
        .filter_map(|subject| locked.of(subject).bans.get(subject).map(|ban| ban.expires_at))
        .collect();
    let tats_us = request
        .limits
        .iter()
        .map(|limit| locked.of(&limit.subject).limit(limit.name).get(&limit.subject).copied())
        .collect();
    GateView { session, ban_ends, tats_us }
}

/// Stores the limits' new theoretical arrival times.
fn charge(locked: &mut LockedShards<'_>, request: &GateRequest, tats_us: &[u64]) {
    for (limit, tat_us) in request.limits.iter().zip(tats_us) {
        let kept = locked.of(&limit.subject).limit(limit.name);
        match kept.get_mut(&limit.subject) {
            Some(known) => *known = *tat_us,
            None => {
                kept.put(limit.subject.clone(), *tat_us, |tat_us| *tat_us <= micros(request.now));
            }
        }
    }
}

/// Counts a refusal against a user. Bans the user after too many, unless an existing ban lasts at
/// least as long. Returns whether it banned.
fn strike(
    locked: &mut LockedShards<'_>,
    subject: &Subject,
    abuse: AbusePolicy,
    now: Timestamp,
) -> bool {
    let shard = locked.of(subject);
    let (strikes, due) = abuse.strike(shard.strikes.get(subject).copied(), now);
    if !due {
        shard.strikes.put(subject.clone(), strikes, |window| window.over(now));
        return false;
    }
    let ban = abuse.ban(subject, now);
    shard.strikes.remove(subject);
    if shard.bans.get(subject).is_some_and(|earlier| earlier.lasts_as_long_as(&ban)) {
        return false;
    }
    shard.bans.put(subject.clone(), ban, |ban| !ban.holds(now));
    true
}

const fn micros(time: Timestamp) -> u64 {
    // A timestamp is never negative.
    time.epoch_ms().unsigned_abs() * 1_000
}
