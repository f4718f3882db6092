//! Bans.

use super::{Subject, Timestamp};

/// A ban of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub subject: Subject,
    /// Why, as the operator reads it.
    pub reason: String,
    /// When it was put.
    pub created_at: Timestamp,
    /// First instant at which it holds no more; `None` for a ban without end.
    pub expires_at: Option<Timestamp>,
}

impl Ban {
    /// Whether the ban holds at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether this ban lasts at least as long as another. Then an automatic one, or one that is put back after a loss, does
    /// not replace it.
    #[must_use]
    pub fn lasts_as_long_as(&self, other: &Self) -> bool {
        match (self.expires_at, other.expires_at) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(other_end)) => end >= other_end,
        }
    }
}

/// A ban as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBan {
    /// The ban.
    pub ban: Ban,
    /// Whether it was lifted.
    pub lifted: bool,
    /// When it was put or lifted.
    pub changed_at: Timestamp,
    /// Counts its changes.
    pub version: u64,
}

impl KeptBan {
    /// Whether it bans at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        !self.lifted && self.ban.holds(now)
    }

    /// A ban of the subject that was put later than this is another one, such as an automatic one. The clocks of those who
    /// put and lift may differ.
    #[must_use]
    pub fn put_until(&self) -> Timestamp {
        self.changed_at.max(self.ban.created_at)
    }
}
