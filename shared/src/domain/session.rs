//! Sign-ins.

use super::{Role, SessionId, Timestamp, UserId};

/// Most sessions one user holds at a time.
pub const SESSIONS_PER_USER_MAX: usize = 20;

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// The user who signed in.
    pub user_id: UserId,
    /// What its user may do. A session's role never changes: another role ends the user's sessions.
    pub role: Role,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
}

/// A session to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The session.
    pub session: Session,
    /// The generation that was read together with the user.
    pub generation: u64,
}

/// A session as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// The session.
    pub session: Session,
    /// When it was ended, if it was; an ended session never becomes alive again.
    pub ended_at: Option<Timestamp>,
}

impl KeptSession {
    /// Whether the session is alive at `now`.
    #[must_use]
    pub fn alive(&self, now: Timestamp) -> bool {
        self.ended_at.is_none() && now < self.session.expires_at
    }
}
