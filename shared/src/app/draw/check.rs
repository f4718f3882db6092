//! Checks a draw from its entries and its revealed seed, as anybody can. Shares no code with what it
//! checks: the auditor and `sales verify-draw` use it, the line does not.

use std::collections::HashSet;

use ring::{
    digest::{SHA256, digest},
    hmac,
};

use crate::domain::{SaleId, Seed, SeedHash, UserId};

/// An entry of a draw that is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedEntry {
    /// Whose entry.
    pub user_id: UserId,
    /// Its number among the late entries; `None`: it was in time.
    pub arrival: Option<u64>,
    /// The place under which the user was invited; `None`: the user was not.
    pub invited_as: Option<u64>,
}

/// The user at one place of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedPlace {
    /// Whose place.
    pub user_id: UserId,
    /// The first 52 bits of the HMAC; `None` for a late entry.
    pub score: Option<u64>,
}

/// A draw that was recomputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedDraw {
    /// The line, by place.
    pub line: Vec<CheckedPlace>,
    /// What is wrong; empty when everybody was invited in turn.
    pub faults: Vec<String>,
}

/// Most faults that are described.
const FAULTS_MAX: usize = 20;

/// Recomputes the line of a sale and compares the invitations with it.
#[must_use]
pub fn check_draw(
    sale_id: SaleId,
    seed: &Seed,
    seed_hash: SeedHash,
    beacon_value: Option<&str>,
    entries: &[CheckedEntry],
) -> CheckedDraw {
    let mut faults = Vec::new();
    let hash: String = digest(&SHA256, seed.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if hash != seed_hash.to_string() {
        faults.push(format!("the seed's SHA-256 is {hash}, published was {seed_hash}"));
    }
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes());
    if let Some(value) = beacon_value {
        let mixed = hmac::sign(&key, value.as_bytes());
        key = hmac::Key::new(hmac::HMAC_SHA256, mixed.as_ref());
    }
    let score = |user_id: UserId| {
        let mut message = sale_id.as_bytes().to_vec();
        message.extend_from_slice(user_id.as_bytes());
        let tag = hmac::sign(&key, &message);
        tag.as_ref().iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte)) >> 12
    };
    let mut line: Vec<_> = entries
        .iter()
        .map(|entry| {
            let score = entry.arrival.is_none().then(|| score(entry.user_id));
            // Entries in time come first, by score; late ones by their arrival.
            let order = (entry.arrival, score, entry.user_id);
            (order, entry)
        })
        .collect();
    line.sort_unstable_by_key(|(order, _)| *order);
    let mut users = HashSet::with_capacity(line.len());
    let (mut invited_before, mut late) = (true, 0);
    for (place, ((arrival, _, user_id), entry)) in (0_u64..).zip(&line) {
        if faults.len() >= FAULTS_MAX {
            break;
        }
        if !users.insert(user_id) {
            faults.push(format!("user {user_id} has two entries"));
        }
        if let Some(arrival) = arrival {
            if *arrival != late {
                faults.push(format!("user {user_id} arrived as number {arrival}, not {late}"));
            }
            late += 1;
        }
        match entry.invited_as {
            Some(invited_as) if invited_as != place => faults.push(format!(
                "user {user_id} stands at place {place} and was invited as {invited_as}"
            )),
            Some(_) if !invited_before => {
                faults.push(format!("user {user_id} at place {place} was invited out of turn"));
            }
            _ => {}
        }
        invited_before = entry.invited_as.is_some();
    }
    let line =
        line.into_iter().map(|((_, score, user_id), _)| CheckedPlace { user_id, score }).collect();
    CheckedDraw { line, faults }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{sale_id, user_id};

    fn entries(count: usize) -> Vec<CheckedEntry> {
        (0..count)
            .map(|_| CheckedEntry { user_id: user_id(), arrival: None, invited_as: None })
            .collect()
    }

    #[test]
    fn a_draw_that_follows_the_line_has_no_fault_and_every_other_one_has() {
        let (sale, seed) = (sale_id(), Seed::from([9; 32]));
        let check = |entries: &[CheckedEntry]| check_draw(sale, &seed, seed.hash(), None, entries);
        let mut all = entries(50);
        all.extend((0..5).map(|n| CheckedEntry {
            user_id: user_id(),
            arrival: Some(n),
            invited_as: None,
        }));
        let CheckedDraw { line, faults } = check(&all);
        assert_eq!(faults, [""; 0]);
        for (place, entry) in (50..).zip(&all[50..]) {
            assert_eq!(line[place].user_id, entry.user_id, "late entries stand behind");
        }
        for entry in &mut all {
            let place = line.iter().position(|place| place.user_id == entry.user_id).unwrap();
            entry.invited_as = Some(place as u64).filter(|place| *place < 52);
        }
        assert_eq!(check(&all).faults, [""; 0]);

        let index = |place: usize| {
            all.iter().position(|entry| entry.user_id == line[place].user_id).unwrap()
        };
        let mut swapped = all.clone();
        (swapped[index(3)].invited_as, swapped[index(7)].invited_as) = (Some(7), Some(3));
        assert_eq!(check(&swapped).faults.len(), 2);
        let mut skipped = all.clone();
        skipped[index(10)].invited_as = None;
        assert_eq!(check(&skipped).faults.len(), 1, "the one behind was invited out of turn");
        let mut twice = all.clone();
        twice.push(all[0].clone());
        assert!(!check(&twice).faults.is_empty());
        let mut missing = all.clone();
        missing.remove(index(0));
        assert!(!check(&missing).faults.is_empty());
        let mut arrival = all.clone();
        arrival[52].arrival = Some(9);
        assert!(!check(&arrival).faults.is_empty());
        let other = Seed::from([8; 32]);
        assert!(!check_draw(sale, &other, seed.hash(), None, &all).faults.is_empty());
        assert!(!check_draw(sale, &seed, seed.hash(), Some("x"), &all).faults.is_empty());
        let mixed = seed.mixed_with("x");
        let by_beacon = check_draw(sale, &seed, seed.hash(), Some("x"), &all).line;
        assert_eq!(by_beacon, check_draw(sale, &mixed, mixed.hash(), None, &all).line);
    }
}
