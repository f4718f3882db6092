//! Bans.

use super::{Subject, Timestamp};

/// A ban of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub subject: Subject,
    /// Why, as the operator reads it.
    pub reason: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// First instant at which it is no longer in force; `None` for a permanent ban.
    pub expires_at: Option<Timestamp>,
}

impl Ban {
    /// Whether the ban is in force at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether this ban lasts at least as long as another. If so, an automatic ban or one that is
    /// restored after a loss does not replace it.
    #[must_use]
    pub fn lasts_as_long_as(&self, other: &Self) -> bool {
        match (self.expires_at, other.expires_at) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(other_end)) => end >= other_end,
        }
    }
}

/// Whom a ban would hit, as far as the ledger knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BanReach {
    /// Users.
    pub users: u64,
    /// Their orders.
    pub orders: u64,
    /// Those that hold a unit.
    pub active_orders: u64,
    /// Live sessions; `None` for a network, because the ledger does not know where sessions are used.
    pub sessions: Option<u64>,
    /// How many of the latest orders were searched; `None` when all of the user's were.
    pub searched_orders: Option<u64>,
}

/// A ban as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBan {
    /// The ban.
    pub ban: Ban,
    /// Whether it was lifted.
    pub lifted: bool,
    /// When it was created or lifted.
    pub changed_at: Timestamp,
    /// Raised with every change.
    pub version: u64,
}

impl KeptBan {
    /// Whether it bans at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        !self.lifted && self.ban.holds(now)
    }

    /// If the fast store's ban of the subject was created later than this time, it is a different
    /// ban, such as an automatic one. The later of both times is used, because the clocks of the
    /// processes that create and lift bans may differ.
    #[must_use]
    pub fn put_until(&self) -> Timestamp {
        self.changed_at.max(self.ban.created_at)
    }
}
