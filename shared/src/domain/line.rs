//! The line of a sale by draw: in which order its users are invited, and what an instance needs to
//! answer polls from memory.

use serde::{Deserialize, Serialize};

use super::{Score, UserId};

/// Bits of a [`Score`].
pub(super) const SCORE_BITS: u32 = 52;

/// What orders the line: the score of an entry that was in time, else a number above all scores
/// that grows with the order of arrival. Users with the same key stand in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LineKey(u64);

impl LineKey {
    const LATE: u64 = 1 << SCORE_BITS;

    /// The key of an entry that was in time.
    #[must_use]
    pub const fn in_time(score: Score) -> Self {
        Self(score.number())
    }

    /// The key of a late entry; the first arrival is 0.
    #[must_use]
    pub const fn late(arrival: u64) -> Self {
        Self(Self::LATE + arrival)
    }

    /// Reads what [`LineKey::number`] gave.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The key as a number, below 2^53.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The number of arrival of a late entry.
    #[must_use]
    pub const fn arrival(self) -> Option<u64> {
        self.0.checked_sub(Self::LATE)
    }
}

/// How far a sale's line has come: what an instance needs to answer polls from memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFront {
    /// Whether places are drawn: entries are closed and the line is complete.
    pub drawn: bool,
    /// Invitations so far.
    pub invited: u64,
    /// The last user who was invited.
    pub last: Option<(LineKey, UserId)>,
    /// Whether all units are paid for, so that nobody else will be invited.
    pub sold_out: bool,
}

impl LineFront {
    /// The front before the draw.
    #[must_use]
    pub const fn undrawn() -> Self {
        Self { drawn: false, invited: 0, last: None, sold_out: false }
    }

    /// Whether the user with this key was invited at some time.
    #[must_use]
    pub fn has_passed(&self, key: LineKey, user_id: UserId) -> bool {
        self.last.is_some_and(|last| (key, user_id) <= last)
    }
}

/// A sample of the keys of the entries that were in time, which gives places without a store. Exact
/// for up to [`PlaceTable::EXACT`] entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceTable {
    /// Every `step`-th entry of the line is in the sample.
    pub step: u64,
    /// The sample, in order.
    pub keys: Vec<LineKey>,
    /// Entries that were in time.
    pub in_time: u64,
}

impl PlaceTable {
    /// Most keys in the sample.
    pub const EXACT: u64 = 4_096;

    /// The distance of sampled entries in a line of this length.
    #[must_use]
    pub const fn step_of(in_time: u64) -> u64 {
        let step = in_time.div_ceil(Self::EXACT);
        if step == 0 { 1 } else { step }
    }

    /// The place of a key, from 0 on. Between two sampled entries the place is interpolated: scores
    /// are evenly distributed.
    #[must_use]
    pub fn place(&self, key: LineKey) -> u64 {
        if let Some(arrival) = key.arrival() {
            return self.in_time + arrival;
        }
        let after = self.keys.partition_point(|sampled| *sampled <= key);
        let Some(index) = after.checked_sub(1) else { return 0 };
        let (low, base) = (self.keys[index].number(), index as u64 * self.step);
        if self.step == 1 || low == key.number() {
            return base;
        }
        let high = self.keys.get(after).map_or(1 << SCORE_BITS, |key| key.number());
        let within =
            u128::from(key.number() - low) * u128::from(self.step) / u128::from(high - low);
        let within = u64::try_from(within).unwrap_or(self.step);
        (base + within).min(self.in_time.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{SaleId, Seed, Timestamp};

    fn user(n: u64) -> UserId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&n.to_be_bytes());
        UserId::new(Timestamp::from_epoch_ms(1), &random)
    }

    fn sale() -> SaleId {
        SaleId::new(Timestamp::from_epoch_ms(1), &[7; 10])
    }

    proptest! {
        /// A place is exact in a short line, and nearly so in a long one.
        #[test]
        fn places_follow_the_keys(
            count in 0_u64..20_000,
            seed in any::<[u8; 32]>(),
        ) {
            let scores = Seed::from(seed).scores();
            let mut keys: Vec<_> =
                (0..count).map(|n| LineKey::in_time(scores.of(sale(), user(n)))).collect();
            keys.sort_unstable();
            let step = PlaceTable::step_of(count);
            let sampled: Vec<_> =
                keys.iter().copied().step_by(usize::try_from(step).unwrap()).collect();
            prop_assert!(sampled.len() as u64 <= PlaceTable::EXACT);
            let table = PlaceTable { step, keys: sampled, in_time: count };
            for (place, key) in (0..).zip(&keys) {
                let found = table.place(*key);
                prop_assert!(found.abs_diff(place) < step, "{found} for {place} of {count}");
            }
            prop_assert_eq!(table.place(LineKey::late(3)), count + 3);
        }

        /// Being invited follows the order of the line and nothing else.
        #[test]
        fn who_stands_before_the_last_invited_was_invited(
            keys in prop::collection::vec((0_u64..50, any::<u64>()), 1..40),
            last in any::<prop::sample::Index>(),
        ) {
            let mut line: Vec<_> =
                keys.iter().map(|(key, n)| (LineKey::from_number(*key), user(*n))).collect();
            line.sort_unstable();
            let last = last.index(line.len());
            let front = LineFront {
                drawn: true,
                invited: last as u64 + 1,
                last: Some(line[last]),
                sold_out: false,
            };
            for (place, (key, user_id)) in line.iter().enumerate() {
                prop_assert_eq!(front.has_passed(*key, *user_id), place <= last || line[place] == line[last]);
            }
        }
    }
}
