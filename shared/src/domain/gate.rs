//! The gate: who may come in.

use super::{Quota, Role, SessionId, Subject, Timestamp, UserId};

/// One limit to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitCheck {
    /// What is limited, such as `ticket`; part of the key and of the `RateLimit` header.
    pub name: &'static str,
    /// Who is limited.
    pub subject: Subject,
    /// How much is allowed.
    pub quota: Quota,
}

/// Bans a subject by itself when it is refused by limits too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbusePolicy {
    /// Refusals within the window that are still borne.
    pub refusals_max: u32,
    /// The window, in milliseconds, counted from the first refusal in it.
    pub window_ms: u64,
    /// How long the ban lasts, in milliseconds.
    pub ban_ms: u64,
    /// Refusals of the same user that the caller answered from its own memory: counted along when this entry is
    /// refused by a limit of the user, and otherwise left to the caller.
    pub also_refused: u32,
}

/// What the gate checks, all in one round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateRequest {
    /// The session that must be alive, if one must.
    pub session: Option<(UserId, SessionId)>,
    /// The role that the session's record must have, if it must have a certain one.
    pub role: Option<Role>,
    /// Subjects that must not be banned.
    pub not_banned: Vec<Subject>,
    /// Limits that must have room.
    pub limits: Vec<LimitCheck>,
    /// Counts a refusal by a limit whose subject is a user against that user. `None`: no automatic ban.
    pub abuse: Option<AbusePolicy>,
    /// Now.
    pub now: Timestamp,
}

/// The gate's answer: the first that applies, in this order; limits are charged only for `Entered`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateDecision {
    /// The session is unknown, ended or over.
    NoSession,
    /// The session's record has another role.
    WrongRole,
    /// A subject is banned.
    Banned {
        /// Until when; `None` without end.
        until: Option<Timestamp>,
    },
    /// A limit has no room.
    Limited {
        /// Index into `limits`: of those that have no room the one with the longest wait, the first of equals. So
        /// this limit by itself refuses its subject for `retry_after_ms`.
        limit: usize,
        /// Time until one request would be let in, in milliseconds; at least 1.
        retry_after_ms: u64,
    },
    /// Come in.
    Entered,
}
