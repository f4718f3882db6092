//! How hard proofs of work are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How hard proofs of work are. An operator switches it while the service runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeLevel {
    /// As hard as a shopper hardly notices.
    #[default]
    Normal,
    /// Harder, for as long as robots press in.
    UnderAttack,
}

impl ChallengeLevel {
    /// Both levels.
    pub const ALL: [Self; 2] = [Self::Normal, Self::UnderAttack];

    /// The name in the API and in the stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::UnderAttack => "under_attack",
        }
    }

    /// The level with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

/// The level as the ledger keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLevel {
    /// The level.
    pub level: ChallengeLevel,
    /// When it was set.
    pub changed_at: super::Timestamp,
    /// Raised with every change.
    pub version: u64,
}
