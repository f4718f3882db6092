//! The gate: session, bans and limits in one round trip.
//!
//! A single server runs one script over all keys. A cluster runs a script only over keys of one hash tag, so an entry
//! that concerns several (the user and an address) is checked in two steps: all tags at once, changing nothing; when
//! all pass, one tag after another is checked again and charged, the user's last. Where a limit runs out between the
//! two steps, those charged before it stay charged. So in a cluster "all or none" is weaker by this much: under
//! contention for a shared limit a request that is refused may have used up another one. No limit ever lets in more
//! than it allows.

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
        AbusePolicy, Ban, GateDecision, GateRequest, LimitCheck, Role, SessionId, Subject,
        Timestamp, UserId,
    },
    ports::{Gate, StoreError, Stored},
    security,
};

/// Why a subject is banned that was refused too often.
const AUTOMATIC_REASON: &str = "too many refused requests";
/// Longest that a limit may run ahead, in microseconds (31 years): keeps times within what Lua's doubles hold exactly.
const TOLERANCE_US_MAX: u64 = 1_000_000_000_000_000;

static SCRIPT: LazyLock<Script> =
    LazyLock::new(|| Script::new("gate", include_str!("lua/gate.lua")));

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Check,
    Enter,
}

/// What one call of the script is asked: the whole entry, or what concerns one hash tag.
#[derive(Default)]
struct Part<'e> {
    session: Option<(UserId, SessionId)>,
    role: Option<Role>,
    bans: Vec<&'e Subject>,
    /// With their indices in the entry.
    limits: Vec<(usize, &'e LimitCheck)>,
}

/// What one call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Entered,
    NoSession,
    WrongRole,
    Banned { until: Option<Timestamp> },
    Limited { limit: usize, retry_after_ms: u64, ban_due: bool },
}

#[async_trait]
impl Gate for Redis {
    async fn enter(&self, entry: &GateRequest) -> Stored<GateDecision> {
        let answer = if self.is_cluster() {
            self.enter_by_tag(entry).await?
        } else {
            self.ask(entry, &whole(entry), Mode::Enter).await?
        };
        if let Answer::Limited { limit, ban_due: true, .. } = answer
            && let Some(abuse) = entry.abuse
        {
            security::banned_automatically(entry, &entry.limits[limit].subject);
            self.ban_automatically(&entry.limits[limit].subject, abuse, entry.now).await?;
        }
        Ok(match answer {
            Answer::Entered => GateDecision::Entered,
            Answer::NoSession => GateDecision::NoSession,
            Answer::WrongRole => GateDecision::WrongRole,
            Answer::Banned { until } => GateDecision::Banned { until },
            Answer::Limited { limit, retry_after_ms, .. } => {
                GateDecision::Limited { limit, retry_after_ms }
            }
        })
    }
}

impl Redis {
    async fn enter_by_tag(&self, entry: &GateRequest) -> Stored<Answer> {
        let parts = by_tag(entry);
        if let [only] = parts.as_slice() {
            return self.ask(entry, only, Mode::Enter).await;
        }
        let checks = parts.iter().map(|part| self.ask(entry, part, Mode::Check));
        let checked = try_join_all(checks).await?.into_iter().fold(Answer::Entered, first);
        match checked {
            Answer::Entered => {
                for part in parts.iter().filter(|part| !part.limits.is_empty()) {
                    let answer = self.ask(entry, part, Mode::Enter).await?;
                    if answer != Answer::Entered {
                        return Ok(answer);
                    }
                }
                Ok(Answer::Entered)
            }
            Answer::Limited { limit, retry_after_ms, .. }
                if counts_refusals(entry, &entry.limits[limit]) =>
            {
                // Nothing was counted yet. Asked again to enter, the same limit refuses and counts.
                let counting =
                    parts.iter().find(|part| part.limits.iter().any(|(index, _)| *index == limit));
                let counted = match counting {
                    Some(part) => self.ask(entry, part, Mode::Enter).await?,
                    None => checked,
                };
                let ban_due = matches!(counted, Answer::Limited { ban_due: true, .. });
                Ok(Answer::Limited { limit, retry_after_ms, ban_due })
            }
            refused => Ok(refused),
        }
    }

    async fn ask(&self, entry: &GateRequest, part: &Part<'_>, mode: Mode) -> Stored<Answer> {
        if part.session.is_none() && part.bans.is_empty() && part.limits.is_empty() {
            return Ok(Answer::Entered);
        }
        let (keys, arguments) = self.call(entry, part, mode);
        let answer: Vec<i64> = self.run(&SCRIPT, &keys, &arguments).await?;
        read(&answer, part).ok_or_else(|| StoreError::Corrupt {
            store: "Redis",
            cause: format!("the gate's script answered {answer:?}"),
        })
    }

    /// Keys and arguments, as the script's head says.
    fn call(
        &self,
        entry: &GateRequest,
        part: &Part<'_>,
        mode: Mode,
    ) -> (Vec<String>, Vec<Vec<u8>>) {
        let abuse = entry.abuse.unwrap_or(AbusePolicy {
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
        numbers.push(entry.now.epoch_ms().unsigned_abs());
        numbers.push(part.bans.len() as u64);
        numbers.push(part.limits.len() as u64);
        numbers.push(u64::from(abuse.refusals_max));
        numbers.push(abuse.window_ms.min(TOLERANCE_US_MAX));
        numbers.push(SLACK_MS);
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
            if counts_refusals(entry, limit) {
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
        let ban = Ban {
            subject: subject.clone(),
            reason: AUTOMATIC_REASON.to_owned(),
            created_at: now,
            expires_at: Some(now.plus_ms(abuse.ban_ms)),
        };
        self.put_ban(&ban, true).await
    }
}

/// Numbers as the script unpacks them; all are below 2^53, up to which a double holds every whole number.
struct Numbers(Vec<u8>);

impl Numbers {
    fn push(&mut self, number: u64) {
        self.0.extend_from_slice(&(number as f64).to_le_bytes());
    }
}

fn counts_refusals(entry: &GateRequest, limit: &LimitCheck) -> bool {
    entry.abuse.is_some() && matches!(limit.subject, Subject::User(_))
}

fn whole(entry: &GateRequest) -> Part<'_> {
    Part {
        session: entry.session,
        role: entry.role,
        bans: entry.not_banned.iter().collect(),
        limits: entry.limits.iter().enumerate().collect(),
    }
}

/// The entry, one part per hash tag: those of users last, because a limit that many share is more often the one that
/// has run out.
fn by_tag(entry: &GateRequest) -> Vec<Part<'_>> {
    fn of<'p, 'e>(parts: &'p mut Vec<(Subject, Part<'e>)>, subject: &Subject) -> &'p mut Part<'e> {
        let index = parts.iter().position(|(known, _)| known == subject).unwrap_or_else(|| {
            parts.push((subject.clone(), Part::default()));
            parts.len() - 1
        });
        &mut parts[index].1
    }
    let mut parts = Vec::new();
    if let Some(session) = entry.session {
        let part = of(&mut parts, &Subject::User(session.0));
        (part.session, part.role) = (Some(session), entry.role);
    }
    for subject in &entry.not_banned {
        of(&mut parts, subject).bans.push(subject);
    }
    for limit in entry.limits.iter().enumerate() {
        of(&mut parts, &limit.1.subject).limits.push(limit);
    }
    parts.sort_by_key(|(subject, _)| matches!(subject, Subject::User(_)));
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Which of two answers comes first in the contract; of two alike, the one that lasts longer.
fn first(a: Answer, b: Answer) -> Answer {
    match (a, b) {
        (Answer::NoSession, _) | (_, Answer::NoSession) => Answer::NoSession,
        (Answer::WrongRole, _) | (_, Answer::WrongRole) => Answer::WrongRole,
        (Answer::Banned { until: Some(a) }, Answer::Banned { until: Some(b) }) => {
            Answer::Banned { until: Some(a.max(b)) }
        }
        (Answer::Banned { .. }, Answer::Banned { .. }) => Answer::Banned { until: None },
        (banned @ Answer::Banned { .. }, _) | (_, banned @ Answer::Banned { .. }) => banned,
        (
            Answer::Limited { limit, retry_after_ms, .. },
            Answer::Limited { limit: other, retry_after_ms: other_ms, .. },
        ) => {
            let a_is_first = (retry_after_ms, other) > (other_ms, limit);
            if a_is_first { a } else { b }
        }
        (limited @ Answer::Limited { .. }, Answer::Entered) | (Answer::Entered, limited) => limited,
    }
}

fn read(answer: &[i64], part: &Part<'_>) -> Option<Answer> {
    Some(match *answer {
        [0] => Answer::Entered,
        [1] => Answer::NoSession,
        [4] => Answer::WrongRole,
        [2, -1] => Answer::Banned { until: None },
        [2, until] => Answer::Banned { until: Some(Timestamp::from_epoch_ms(until)) },
        [3, limit, retry_after_ms, due] => Answer::Limited {
            limit: part.limits.get(usize::try_from(limit).ok()?)?.0,
            retry_after_ms: u64::try_from(retry_after_ms).ok()?,
            ban_due: due == 1,
        },
        _ => return None,
    })
}
