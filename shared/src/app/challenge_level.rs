//! The level of proofs of work: an operator's switch that all instances follow within a second.
//!
//! The ledger keeps it, so that it outlives a loss of the fast store. An instance reads it from its
//! memory (1 s), else from the shared cache (5 s), else from the ledger; a change is put into the
//! shared cache at once. While no store answers, the level read last holds.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Admin, App, finish, local_cache::LocalCache};
use crate::{
    api::ChallengeLevelView,
    domain::{ActionKind, CacheEntry, ChallengeLevel, FieldChange, KeptLevel},
    logging::OncePerMinute,
    ports::StoreError,
    problem::Problem,
};

/// The key in the shared cache.
const KEY: &str = "challenge-level";
const LOCAL_LIFE: Duration = Duration::from_secs(1);
const SHARED_LIFE_MS: u64 = 5_000;

/// What this process knows of the level.
pub(super) struct LevelMemory {
    current: LocalCache<(), ChallengeLevel, StoreError>,
    /// The level that was read last.
    last: Mutex<ChallengeLevel>,
    /// Raised by a change through this process, so that a look-up that began before it is not kept.
    changes: AtomicU64,
}

impl Default for LevelMemory {
    fn default() -> Self {
        let current = LocalCache::new(1, LOCAL_LIFE);
        Self { current, last: Mutex::default(), changes: AtomicU64::new(0) }
    }
}

impl LevelMemory {
    fn note(&self, level: ChallengeLevel) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = level;
    }
}

impl App {
    /// The level and when it was set, as the ledger has it.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn challenge_level(&self, _: &Admin) -> Result<ChallengeLevelView, Problem> {
        Ok(ChallengeLevelView::from(self.ports.challenge_levels.get().await?))
    }

    /// Sets the level for all instances.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn set_challenge_level(
        &self,
        admin: &Admin,
        level: ChallengeLevel,
    ) -> Result<ChallengeLevelView, Problem> {
        let changes = vec![FieldChange::to("level", level.as_str())];
        let action = admin.action(self, ActionKind::ChallengeLevelSet, "challenge-level", changes);
        let (app, admin) = (self.clone(), *admin);
        finish(async move {
            let kept = app.ports.challenge_levels.set(level, &action, app.now()).await?;
            admin.did(&action);
            app.level.changes.fetch_add(1, Ordering::AcqRel);
            app.share_level(Some(kept)).await;
            app.level.current.insert((), kept.level);
            app.level.note(kept.level);
            Ok(ChallengeLevelView::from(Some(kept)))
        })
        .await
    }

    /// The level in force.
    pub(super) async fn level_in_force(&self) -> ChallengeLevel {
        static LINES: OncePerMinute = OncePerMinute::new();
        let memory = &self.level;
        match memory.current.load((), self.read_level()).await {
            Ok(level) => {
                memory.note(level);
                level
            }
            Err(error) => {
                if let Some(left_out) = LINES.pass() {
                    tracing::warn!(%error, left_out, "the challenge level can't be read: the last one holds");
                }
                *memory.last.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    async fn read_level(&self) -> Result<ChallengeLevel, StoreError> {
        let changes = || self.level.changes.load(Ordering::Acquire);
        loop {
            let before = changes();
            let level = self.look_up_level().await?;
            if changes() == before {
                return Ok(level);
            }
        }
    }

    async fn look_up_level(&self) -> Result<ChallengeLevel, StoreError> {
        match self.ports.cache.get(KEY, self.now()).await {
            Ok(Some(bytes)) => {
                let name = String::from_utf8_lossy(&bytes);
                if let Some(level) = ChallengeLevel::named(&name) {
                    return Ok(level);
                }
                // Written by another version of the product: the ledger is read instead.
                tracing::warn!("unreadable cache entry of the challenge level");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "shared cache"),
        }
        let kept = self.ports.challenge_levels.get().await?;
        self.share_level(kept).await;
        Ok(kept.map_or(ChallengeLevel::default(), |kept| kept.level))
    }

    /// Puts the level into the shared cache. A failure is only logged.
    async fn share_level(&self, kept: Option<KeptLevel>) {
        let version = kept.map_or(0, |kept| kept.version);
        let level = kept.map_or(ChallengeLevel::default(), |kept| kept.level);
        let entry = CacheEntry {
            key: KEY.to_owned(),
            version,
            value: level.as_str().as_bytes().to_vec(),
            ttl_ms: SHARED_LIFE_MS,
        };
        if let Err(error) = self.ports.cache.put(&[entry], self.now()).await {
            tracing::warn!(%error, "shared cache");
        }
    }
}
