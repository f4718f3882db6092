//! Entries in draws, and the draws' results.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptchaId, EntryState, OrderId, SeedHash, Timestamp};

/// Asks to take part in a draw.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({}))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct EntryRequest {
    pub captcha_id: Option<CaptchaId>,
    pub captcha_answer: Option<String>,
}

/// An accepted entry.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EntryAccepted {
    /// The signed entry. A client that sends it with its polls is answered faster.
    pub entry: String,
    /// When it was first accepted.
    pub entered_at: Timestamp,
}

/// Where an entry stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EntryView {
    /// Its state.
    pub state: EntryState,
    /// How many users stand before this one and were not invited yet. Absent before the draw and
    /// once it is the user's turn. Exact in a line of up to 4,096, else nearly so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// First instant at which the invitation no longer counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invited_until: Option<Timestamp>,
    /// The order that the user holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    /// When to ask again, in milliseconds from now.
    pub poll_after_ms: u64,
}

/// The result of a draw.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DrawResult {
    /// The seed, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub seed: String,
    /// SHA-256 of the seed's 32 bytes, as it was published with the sale.
    pub seed_hash: SeedHash,
    /// The public random value that the sale named in advance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon: Option<String>,
    /// That value. The scores are computed under HMAC-SHA256(seed, value) instead of the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_value: Option<String>,
    /// All entries.
    pub entries: u64,
    /// How many of them came after the start and stand behind all others.
    pub late_entries: u64,
    /// Users with a place below this were invited.
    pub cutoff: u64,
    /// The caller's place; absent without an entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnPlace>,
}

/// The value of a beacon.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "value": "b9c3…" }))]
pub struct BeaconValue {
    /// The value, as its publisher writes it.
    #[schema(min_length = 1, max_length = 200)]
    pub value: String,
}

/// The figures of a draw, for administrators.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DrawStats {
    /// Recorded entries that were in time.
    pub in_time: u64,
    /// Recorded entries that came after the start and stand behind all others.
    pub late: u64,
    /// Users who were invited so far.
    pub invited: u64,
    /// When entries were closed for the draw.
    #[schema(required)]
    pub closed_at: Option<Timestamp>,
    /// The value of the beacon that the sale named; absent until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_value: Option<String>,
    /// Invitations that last and were not used; 0 unless `admission` is `open`.
    pub open_invitations: u32,
    /// Units that are neither held by an order nor promised by an invitation; 0 unless `admission`
    /// is `open`.
    pub free: u32,
}

/// The caller's place in a draw.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OwnPlace {
    /// The first 52 bits of HMAC-SHA256(seed, `sale_id` ‖ `user_id`); absent for a late entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u64>,
    /// The place in the line, from 0 on. Absent once the line is no longer kept, some days after the
    /// end; the exported list of entries still gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
    /// Whether the user was invited.
    pub invited: bool,
}
