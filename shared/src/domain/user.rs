//! A registered user.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

use super::{Phone, SessionId, Timestamp, UserId};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May buy.
    Shopper,
    /// May also run sales and the blacklist.
    Admin,
}

impl Role {
    /// The name in the API and in the stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shopper => "shopper",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "shopper" => Ok(Self::Shopper),
            "admin" => Ok(Self::Admin),
            other => Err(format!("unknown role {other:?}")),
        }
    }
}

/// A registered user as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub user_id: UserId,
    /// Unique among users.
    pub phone: Phone,
    /// Argon2id in PHC string form, or `!`, which no password matches (seeded load-test users).
    pub password_hash: String,
    /// Its role.
    pub role: Role,
    /// When it registered.
    pub created_at: Timestamp,
    /// Raised by every change that ends the user's sessions: a new password, another role, signing
    /// out everywhere, a ban of the phone.
    pub generation: u64,
    /// When it was first proved, by a code sent there, that the user has the phone. `None`: it was
    /// not.
    pub phone_verified_at: Option<Timestamp>,
}

/// The outcome of storing a new user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserCreated {
    /// Stored now, or by an earlier call with the same id.
    Created,
    /// Another user has the phone.
    PhoneTaken,
}

/// A change of a user that ends sessions. There is no `Debug`, because it may hold a password's
/// hash.
#[derive(Clone, Default)]
pub struct UserChange {
    /// Change the user only while its generation is this one.
    pub only_generation: Option<u64>,
    /// The new password's hash.
    pub password_hash: Option<String>,
    /// The new role.
    pub role: Option<Role>,
    /// When the phone was proved; an earlier proof stays.
    pub phone_verified_at: Option<Timestamp>,
    /// The one session that stays alive.
    pub keep: Option<SessionId>,
}
