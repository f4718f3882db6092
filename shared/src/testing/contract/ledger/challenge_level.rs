//! The level of proofs of work.

use std::sync::Arc;

use super::Ledger;
use crate::{
    domain::{ActionKind, AdminAction, ChallengeLevel, KeptLevel},
    testing::{START, action},
};

fn set() -> AdminAction {
    action(ActionKind::ChallengeLevelSet)
}

/// The level is the one that was set last, and each change raises its version.
pub async fn challenge_level(Ledger { challenge_levels, .. }: &Ledger) {
    let mut last = challenge_levels.get().await.unwrap().map_or(0, |kept| kept.version);
    for (step, level) in
        [ChallengeLevel::UnderAttack, ChallengeLevel::UnderAttack, ChallengeLevel::Normal]
            .into_iter()
            .enumerate()
    {
        let changed_at = START.plus_ms(step as u64);
        let kept = challenge_levels.set(level, &set(), changed_at).await.unwrap();
        assert_eq!(kept, KeptLevel { level, changed_at, version: last + 1 });
        assert_eq!(challenge_levels.get().await.unwrap(), Some(kept));
        last = kept.version;
    }

    // Changes at the same time each have a version of their own.
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let levels = Arc::clone(challenge_levels);
            tokio::spawn(async move {
                levels.set(ChallengeLevel::UnderAttack, &set(), START).await.unwrap().version
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (last + 1..=last + 8).collect::<Vec<_>>());
    challenge_levels.set(ChallengeLevel::Normal, &set(), START).await.unwrap();
}
