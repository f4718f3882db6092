//! The gate: session, bans and limits in one round trip.
//!
//! A single server runs one script over all keys. A cluster runs a script only over keys of one
//! hash tag, so a request that involves several (the user and an address) is checked in two steps:
//! first all tags at once, changing nothing; if all pass, one tag after another is checked again
//! and charged, the user's last. If a limit runs out between the two steps, the limits charged
//! before it stay charged. So "all or none" is weaker in a cluster: under contention for a shared
//! limit, a refused request may have used up another limit. No limit ever admits more than it
//! allows.

use std::sync::LazyLock;

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::{
    Redis,
    keys::{SLACK_MS, arg},
    script::Script,
};
use crate::{
    domain::{
        AbusePolicy, Abuser, CLOCK_SLACK_MS, GateDecision, GateRequest, LimitCheck, Role,
        SessionId, Subject, Timestamp, UserId,
    },
    ports::{Gate, StoreError, Stored},
    security,
};

/// Limit on how far a theoretical arrival time may lie ahead, in microseconds (31 years): keeps
/// times within the range that Lua's doubles represent exactly.
const TOLERANCE_US_MAX: u64 = 1_000_000_000_000_000;

static SCRIPT: LazyLock<Script> =
    LazyLock::new(|| Script::new("gate", include_str!("lua/gate.lua")));

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Check,
    Enter,
}

/// The input of one call of the script: the whole request, or its part with one hash tag.
#[derive(Default)]
pub(super) struct Part<'e> {
    session: Option<(UserId, SessionId)>,
    role: Option<Role>,
    bans: Vec<&'e Subject>,
    /// With their indices in the request.
    limits: Vec<(usize, &'e LimitCheck)>,
}

/// The answer of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptAnswer {
    Entered,
    NoSession,
    WrongRole,
    Banned { until: Option<Timestamp> },
    Limited { limit: usize, retry_after_ms: u64, ban_due: bool },
}

#[async_trait]
impl Gate for Redis {
    async fn enter(&self, request: &GateRequest) -> Stored<GateDecision> {
        let answer = if self.is_cluster() {
            self.enter_by_tag(request).await?
        } else {
            self.ask(request, &whole(request), Mode::Enter).await?
        };
        self.decided(request, answer).await
    }
}

impl Redis {
    /// The decision, after the ban that is due with it.
    pub(super) async fn decided(
        &self,
        request: &GateRequest,
        answer: ScriptAnswer,
    ) -> Stored<GateDecision> {
        if let ScriptAnswer::Limited { limit, ban_due: true, .. } = answer
            && let Some(abuse) = request.abuse
        {
            security::banned_automatically(request, &request.limits[limit].subject);
            self.ban_automatically(&request.limits[limit].subject, abuse, request.now).await?;
        }
        Ok(match answer {
            ScriptAnswer::Entered => GateDecision::Entered,
            ScriptAnswer::NoSession => GateDecision::NoSession,
            ScriptAnswer::WrongRole => GateDecision::WrongRole,
            ScriptAnswer::Banned { until } => GateDecision::Banned { until },
            ScriptAnswer::Limited { limit, retry_after_ms, .. } => {
                GateDecision::Limited { limit, retry_after_ms }
            }
        })
    }

    async fn enter_by_tag(&self, request: &GateRequest) -> Stored<ScriptAnswer> {
        let parts = by_tag(request);
        if let [only] = parts.as_slice() {
            return self.ask(request, only, Mode::Enter).await;
        }
        let checks = parts.iter().map(|part| self.ask(request, part, Mode::Check));
        let checked = try_join_all(checks).await?.into_iter().fold(ScriptAnswer::Entered, first);
        match checked {
            ScriptAnswer::Entered => {
                for part in parts.iter().filter(|part| !part.limits.is_empty()) {
                    let answer = self.ask(request, part, Mode::Enter).await?;
                    if answer != ScriptAnswer::Entered {
                        return Ok(answer);
                    }
                }
                Ok(ScriptAnswer::Entered)
            }
            ScriptAnswer::Limited { limit, retry_after_ms, .. }
                if request.counting(&request.limits[limit]).is_some() =>
            {
                // Nothing was counted yet. Entering again lets the same limit refuse and count.
                let counting =
                    parts.iter().find(|part| part.limits.iter().any(|(index, _)| *index == limit));
                let counted = match counting {
                    Some(part) => self.ask(request, part, Mode::Enter).await?,
                    None => checked,
                };
                let ban_due = matches!(counted, ScriptAnswer::Limited { ban_due: true, .. });
                Ok(ScriptAnswer::Limited { limit, retry_after_ms, ban_due })
            }
            refused => Ok(refused),
        }
    }

    async fn ask(
        &self,
        request: &GateRequest,
        part: &Part<'_>,
        mode: Mode,
    ) -> Stored<ScriptAnswer> {
        if part.session.is_none() && part.bans.is_empty() && part.limits.is_empty() {
            return Ok(ScriptAnswer::Entered);
        }
        let (keys, arguments) = self.call(request, part, mode);
        let answer: Vec<i64> = self.run(&SCRIPT, &keys, &arguments).await?;
        part.read(&answer)
    }

    /// Keys and arguments, as the script's head describes them.
    pub(super) fn call(
        &self,
        request: &GateRequest,
        part: &Part<'_>,
        mode: Mode,
    ) -> (Vec<String>, Vec<Vec<u8>>) {
        let abuse = request.abuse.unwrap_or(AbusePolicy {
            abuser: Abuser::User,
            refusals_max: 0,
            window_ms: 0,
            ban_ms: 0,
            also_refused: 0,
        });
        let mut keys = Vec::with_capacity(part.bans.len() + 2 * part.limits.len() + 1);
        keys.extend(part.bans.iter().map(|subject| self.ban_key(subject)));
        keys.extend(
            part.limits.iter().map(|(_, limit)| self.limit_key(limit.name, &limit.subject)),
        );
        let mut numbers = Numbers(Vec::with_capacity(8 * (8 + 3 * part.limits.len())));
        numbers.push(u64::from(mode == Mode::Enter));
        numbers.push(request.now.epoch_ms().unsigned_abs());
        numbers.push(part.bans.len() as u64);
        numbers.push(part.limits.len() as u64);
        numbers.push(u64::from(abuse.refusals_max));
        numbers.push(abuse.window_ms.min(TOLERANCE_US_MAX));
        numbers.push(CLOCK_SLACK_MS);
        numbers.push(u64::from(abuse.also_refused));
        let mut arguments = vec![
            Vec::new(),
            part.session.map(|(_, session_id)| arg(session_id)).unwrap_or_default(),
            part.role.map(|role| arg(role.as_str())).unwrap_or_default(),
        ];
        for (_, limit) in &part.limits {
            let interval_us = limit.quota.interval_us().clamp(1, TOLERANCE_US_MAX);
            let tolerance_us = interval_us
                .saturating_mul(u64::from(limit.quota.burst.max(1)))
                .min(TOLERANCE_US_MAX);
            numbers.push(interval_us);
            numbers.push(tolerance_us);
            if request.counting(limit).is_some() {
                keys.push(self.strikes_key(&limit.subject));
                numbers.push(keys.len() as u64);
            } else {
                numbers.push(0);
            }
            arguments.push(arg(tolerance_us.div_ceil(1_000) + SLACK_MS));
        }
        arguments[0] = numbers.0;
        keys.extend(part.session.map(|(user_id, _)| self.sessions_key(user_id)));
        (keys, arguments)
    }

    async fn ban_automatically(
        &self,
        subject: &Subject,
        abuse: AbusePolicy,
        now: Timestamp,
    ) -> Stored<()> {
        self.put_ban(&abuse.ban(subject, now), true).await
    }
}

/// Encodes numbers as the script unpacks them. All are below 2^53, up to which a double is exact.
struct Numbers(Vec<u8>);

impl Numbers {
    fn push(&mut self, number: u64) {
        self.0.extend_from_slice(&(number as f64).to_le_bytes());
    }
}

pub(super) fn whole(request: &GateRequest) -> Part<'_> {
    Part {
        session: request.session,
        role: request.role,
        bans: request.not_banned.iter().collect(),
        limits: request.limits.iter().enumerate().collect(),
    }
}

/// Splits the request into one part per hash tag. Users come last, because a limit shared by many
/// is more likely to have run out.
fn by_tag(request: &GateRequest) -> Vec<Part<'_>> {
    fn of<'p, 'e>(parts: &'p mut Vec<(Subject, Part<'e>)>, subject: &Subject) -> &'p mut Part<'e> {
        let index = parts.iter().position(|(known, _)| known == subject).unwrap_or_else(|| {
            parts.push((subject.clone(), Part::default()));
            parts.len() - 1
        });
        &mut parts[index].1
    }
    let mut parts = Vec::new();
    if let Some(session) = request.session {
        let part = of(&mut parts, &Subject::User(session.0));
        (part.session, part.role) = (Some(session), request.role);
    }
    for subject in &request.not_banned {
        of(&mut parts, subject).bans.push(subject);
    }
    for limit in request.limits.iter().enumerate() {
        of(&mut parts, &limit.1.subject).limits.push(limit);
    }
    parts.sort_by_key(|(subject, _)| matches!(subject, Subject::User(_)));
    parts.into_iter().map(|(_, part)| part).collect()
}

/// The answer that comes first in the contract; of two of the same kind, the one that lasts longer.
fn first(a: ScriptAnswer, b: ScriptAnswer) -> ScriptAnswer {
    match (a, b) {
        (ScriptAnswer::NoSession, _) | (_, ScriptAnswer::NoSession) => ScriptAnswer::NoSession,
        (ScriptAnswer::WrongRole, _) | (_, ScriptAnswer::WrongRole) => ScriptAnswer::WrongRole,
        (ScriptAnswer::Banned { until: Some(a) }, ScriptAnswer::Banned { until: Some(b) }) => {
            ScriptAnswer::Banned { until: Some(a.max(b)) }
        }
        (ScriptAnswer::Banned { .. }, ScriptAnswer::Banned { .. }) => {
            ScriptAnswer::Banned { until: None }
        }
        (banned @ ScriptAnswer::Banned { .. }, _) | (_, banned @ ScriptAnswer::Banned { .. }) => {
            banned
        }
        (
            ScriptAnswer::Limited { limit, retry_after_ms, .. },
            ScriptAnswer::Limited { limit: other, retry_after_ms: other_ms, .. },
        ) => {
            let a_is_first = (retry_after_ms, other) > (other_ms, limit);
            if a_is_first { a } else { b }
        }
        (limited @ ScriptAnswer::Limited { .. }, ScriptAnswer::Entered)
        | (ScriptAnswer::Entered, limited) => limited,
    }
}

impl Part<'_> {
    /// Reads the script's answer to this part.
    pub(super) fn read(&self, answer: &[i64]) -> Stored<ScriptAnswer> {
        let known = || {
            Some(match *answer {
                [0] => ScriptAnswer::Entered,
                [1] => ScriptAnswer::NoSession,
                [4] => ScriptAnswer::WrongRole,
                [2, -1] => ScriptAnswer::Banned { until: None },
                [2, until] => ScriptAnswer::Banned { until: Some(Timestamp::from_epoch_ms(until)) },
                [3, limit, retry_after_ms, due] => ScriptAnswer::Limited {
                    limit: self.limits.get(usize::try_from(limit).ok()?)?.0,
                    retry_after_ms: u64::try_from(retry_after_ms).ok()?,
                    ban_due: due == 1,
                },
                _ => return None,
            })
        };
        known().ok_or_else(|| StoreError::Corrupt {
            store: "Redis",
            cause: format!("the gate's script answered {answer:?}"),
        })
    }
}
