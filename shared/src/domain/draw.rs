//! The rules of a sale by draw.
//!
//! Shoppers enter while entries are open. Each entry's [`Score`] is an HMAC of the sale and the
//! user under the sale's secret [`Seed`], whose SHA-256 is public before the first entry. The line
//! is ordered by score; who enters too late stands behind, in order of arrival. Users are invited
//! from the front of the line, never more than units are free.
//!
//! Nobody can choose a place: the seed was fixed before anybody entered, and user ids are made by
//! the server. Everybody can check a place afterwards: the seed is published, and one HMAC gives
//! the score. Whoever knows the seed early could choose among accounts; against that a sale may
//! name a *beacon* in advance, a public random value of a stated moment, which is mixed into the
//! seed when entries have closed.

use std::{fmt, str::FromStr};

use ring::{
    digest::{SHA256, digest},
    hmac,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LineKey, SaleId, Timestamp, UserId, line::SCORE_BITS};

/// How the units of a sale are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// To the first who order.
    FirstCome,
    /// To users who entered, in an order that is drawn.
    Draw,
}

/// What everybody may know of a sale's draw before it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrawTerms {
    /// First instant at which entries are accepted.
    pub entries_open_at: Timestamp,
    /// How long an invitation lasts, in seconds.
    pub invite_seconds: u32,
    /// SHA-256 of the secret seed.
    pub seed_hash: SeedHash,
    /// The public random value that is mixed into the seed once entries have closed; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<String>,
}

impl DrawTerms {
    /// How long an invitation lasts unless the sale says otherwise, in seconds.
    pub const INVITE_SECONDS: u32 = 120;
    /// Shortest invitation, in seconds: enough to load the page and press a button.
    pub const INVITE_SECONDS_MIN: u32 = 10;
    /// Longest invitation, in seconds.
    pub const INVITE_SECONDS_MAX: u32 = 86_400;
    /// Longest description and longest value of a beacon, in characters.
    pub const BEACON_MAX: usize = 200;
}

/// The secret behind a draw.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl From<[u8; 32]> for Seed {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Seed {
    /// The seed's bytes, for the ledger.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The seed in hexadecimal. Call it only once the sale has ended.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex(&self.0)
    }

    /// The commitment that is published before the first entry.
    #[must_use]
    pub fn hash(&self) -> SeedHash {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        SeedHash(bytes)
    }

    /// The seed that decides the draw when a beacon is mixed in: HMAC-SHA256 of the beacon's value
    /// under this seed.
    #[must_use]
    pub fn mixed_with(&self, beacon_value: &str) -> Self {
        Self(hmac(&self.0, beacon_value.as_bytes()))
    }

    /// The key that gives scores under this seed.
    #[must_use]
    pub fn scores(&self) -> Scores {
        Scores(hmac::Key::new(hmac::HMAC_SHA256, &self.0))
    }
}

impl FromStr for Seed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text).map(Self).ok_or("expected 64 hexadecimal digits")
    }
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// SHA-256 of a [`Seed`], in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
pub struct SeedHash([u8; 32]);

impl fmt::Display for SeedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SeedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeedHash({self})")
    }
}

impl FromStr for SeedHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text).map(Self).ok_or("expected 64 hexadecimal digits")
    }
}

impl TryFrom<String> for SeedHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SeedHash> for String {
    fn from(hash: SeedHash) -> Self {
        hash.to_string()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Gives the scores of a sale's entries.
#[derive(Clone)]
pub struct Scores(hmac::Key);

impl fmt::Debug for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scores(..)")
    }
}

impl Scores {
    /// The score of a user's entry: the first 52 bits of HMAC-SHA256(seed, `sale_id` ‖ `user_id`),
    /// both ids as their sixteen bytes. 52 bits, because a sorted set of Redis keeps scores as
    /// doubles and needs one more bit for late entries; entries with the same score stand in the
    /// order of their user ids. That happens in one of ten thousand draws of a million.
    #[must_use]
    pub fn of(&self, sale_id: SaleId, user_id: UserId) -> Score {
        let mut message = [0; 32];
        message[..16].copy_from_slice(sale_id.as_bytes());
        message[16..].copy_from_slice(user_id.as_bytes());
        let tag = hmac::sign(&self.0, &message);
        let mut first = [0; 8];
        first.copy_from_slice(&tag.as_ref()[..8]);
        Score(u64::from_be_bytes(first) >> (64 - SCORE_BITS))
    }
}

/// An entry's drawn number; lower is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u64);

impl Score {
    /// The number, below 2^52.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A user's entry in a sale's draw: what the queue carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which sale.
    pub sale_id: SaleId,
    /// Who enters.
    pub user_id: UserId,
    /// When the entry was accepted.
    pub entered_at: Timestamp,
}

/// An entry as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEntry {
    /// The entry.
    pub entry: Entry,
    /// `None`: it was in time. Else its number among the late entries, from 0 on.
    pub arrival: Option<u64>,
}

impl RecordedEntry {
    /// Its key in the line.
    #[must_use]
    pub fn key(&self, scores: &Scores) -> LineKey {
        self.arrival.map_or_else(
            || LineKey::in_time(scores.of(self.entry.sale_id, self.entry.user_id)),
            LineKey::late,
        )
    }
}

/// Why an entry can't be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDraw;

/// A sale's draw as the ledger keeps it. Entries that were in time number `in_time`, late ones
/// `late`; the first `invited` users of the line were invited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// The secret.
    pub seed: Seed,
    /// The beacon's value, once it is known.
    pub beacon_value: Option<String>,
    /// When entries were closed: later ones are late. `None` while they are open.
    pub closed_at: Option<Timestamp>,
    /// Entries that were in time.
    pub in_time: u64,
    /// Entries that were late.
    pub late: u64,
    /// Invitations so far.
    pub invited: u64,
}

impl Draw {
    /// A new draw.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self { seed, beacon_value: None, closed_at: None, in_time: 0, late: 0, invited: 0 }
    }

    /// All entries.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.in_time + self.late
    }

    /// The seed that decides the places. `None` while the beacon's value is not known.
    #[must_use]
    pub fn deciding_seed(&self, terms: &DrawTerms) -> Option<Seed> {
        match (&terms.beacon, &self.beacon_value) {
            (None, _) => Some(self.seed.clone()),
            (Some(_), Some(value)) => Some(self.seed.mixed_with(value)),
            (Some(_), None) => None,
        }
    }

    /// Whether `next`, the user after the first `taken` of the line, is the right one to be
    /// invited: an entry that is on its way to the line must not be overtaken.
    #[must_use]
    pub const fn follows(&self, taken: u64, next: LineKey) -> bool {
        match next.arrival() {
            None => taken < self.in_time,
            Some(arrival) => taken >= self.in_time && arrival == taken - self.in_time,
        }
    }
}

/// An invitation to buy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its number in the sale, from 0 on: the user's place in the line.
    pub place: u64,
    /// Who is invited.
    pub user_id: UserId,
    /// When.
    pub invited_at: Timestamp,
    /// First instant at which it no longer counts.
    pub until: Timestamp,
}

/// What became of a user's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// The draw has not taken place yet, or others are first.
    Waiting,
    /// The user may buy now.
    Invited,
    /// The user holds an order.
    Bought,
    /// The invitation was not used in time, or the order was given up.
    Passed,
    /// All units are sold, or the sale has ended, before the user's turn.
    SoldOut,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python: `hmac.new(bytes(range(32)), uuid.UUID(sale).bytes +
    /// uuid.UUID(user).bytes, "sha256").digest()`, the first eight bytes `>> 12`.
    #[test]
    fn a_score_is_the_documented_hmac() {
        let mut bytes = [0; 32];
        for (n, byte) in (0..).zip(&mut bytes) {
            *byte = n;
        }
        let seed = Seed::from(bytes);
        let sale: SaleId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let user: UserId = "01890a5d-ac96-7b7c-8f89-37c3d0a66e11".parse().unwrap();
        assert_eq!(seed.scores().of(sale, user).number(), 824_738_932_805_508);
        assert_eq!(
            seed.hash().to_string(),
            "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd"
        );
        assert_eq!(
            seed.mixed_with("drand 1").reveal(),
            "1049807cfc338029ffff587ef3fd72a14b6e0d867290942e37724c8f43238048"
        );
        assert_eq!(seed.reveal().parse(), Ok(seed));
    }

    #[test]
    fn a_seed_is_not_printed() {
        let seed = Seed::from([7; 32]);
        assert_eq!(format!("{seed:?} {:?}", seed.scores()), "Seed(..) Scores(..)");
        assert_eq!("x".repeat(64).parse::<Seed>(), Err("expected 64 hexadecimal digits"));
        assert_eq!("+f".repeat(32).parse::<Seed>(), Err("expected 64 hexadecimal digits"));
        assert_eq!("ab".parse::<SeedHash>(), Err("expected 64 hexadecimal digits"));
    }

    #[test]
    fn late_entries_stand_behind_all_others_and_are_not_overtaken() {
        let last = LineKey::in_time(Score((1 << SCORE_BITS) - 1));
        assert!(last < LineKey::late(0) && LineKey::late(0) < LineKey::late(1));
        // Redis stores keys as doubles.
        let most = LineKey::late((1 << SCORE_BITS) - 1).number();
        assert_eq!(most as f64 as u64, most);
        let draw = Draw { in_time: 2, late: 5, ..Draw::new(Seed::from([1; 32])) };
        assert!(draw.follows(0, last) && draw.follows(1, last) && !draw.follows(2, last));
        assert!(draw.follows(2, LineKey::late(0)) && draw.follows(3, LineKey::late(1)));
        assert!(!draw.follows(2, LineKey::late(1)), "the first late entry is on its way");
        assert!(!draw.follows(1, LineKey::late(0)), "an entry in time is missing");
    }

    #[test]
    fn the_draw_waits_for_its_beacon() {
        let seed = Seed::from([1; 32]);
        let mut terms = DrawTerms {
            entries_open_at: Timestamp::from_epoch_ms(0),
            invite_seconds: 120,
            seed_hash: seed.hash(),
            beacon: None,
        };
        let mut draw = Draw::new(seed.clone());
        assert_eq!(draw.deciding_seed(&terms), Some(seed.clone()));
        terms.beacon = Some("drand round 1".to_owned());
        assert_eq!(draw.deciding_seed(&terms), None);
        draw.beacon_value = Some("ab".to_owned());
        assert_eq!(draw.deciding_seed(&terms), Some(seed.mixed_with("ab")));
        assert_ne!(draw.deciding_seed(&terms), Some(seed));
    }
}
