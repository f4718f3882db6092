//! Bans.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{AddressPrefix, Ban, Timestamp};

/// A ban as the operator sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BanView {
    /// `user`, `address`, `network` or `phone`.
    #[schema(pattern = "^(user|address|network|phone)$")]
    pub kind: &'static str,
    /// The id, the address, the prefix or the number.
    pub value: String,
    /// Why.
    pub reason: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends, unless it is permanent.
    #[schema(required)]
    pub expires_at: Option<Timestamp>,
}

impl From<&Ban> for BanView {
    fn from(ban: &Ban) -> Self {
        Self {
            kind: ban.subject.kind(),
            value: ban.subject.value(),
            reason: ban.reason.clone(),
            created_at: ban.created_at,
            expires_at: ban.expires_at,
        }
    }
}

/// A page of the blacklist.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct BanPage {
    pub bans: Vec<BanView>,
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// A cursor of the blacklist: the number of bans on the pages before.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(format = Int64, maximum = 4294967295i64)]
pub struct BanOffset(pub u32);

/// A ban to create.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "kind": "phone", "value": "+1 201-555-0125", "reason": "resale" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct NewBan {
    #[schema(pattern = "^(user|address|network|phone)$")]
    pub kind: String,
    pub value: String,
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
    pub expires_at: Option<Timestamp>,
}

/// The query that names the ban to lift.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct LiftBan {
    pub kind: String,
    pub value: String,
}

/// Whom a ban would hit, as far as the ledger knows.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct BanPreview {
    #[schema(pattern = "^(user|address|network|phone)$")]
    pub kind: &'static str,
    pub value: String,
    #[schema(required)]
    pub address_prefix: Option<AddressPrefix>,
    pub users: u64,
    pub orders: u64,
    pub active_orders: u64,
    #[schema(required)]
    pub sessions: Option<u64>,
    #[schema(required)]
    pub searched_orders: Option<u64>,
}
