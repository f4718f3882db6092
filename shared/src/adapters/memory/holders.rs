//! Reports of consumers, between the tasks of one process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{
    domain::{HolderReport, Timestamp},
    ports::{Holders, Stored},
};

/// A process that has not reported for this long is forgotten, in milliseconds.
const FORGOTTEN_MS: u64 = 60_000;

/// [`Holders`] in the memory of this process.
#[derive(Debug, Default)]
pub struct MemoryHolders(Mutex<HashMap<u128, (HolderReport, Timestamp)>>);

impl MemoryHolders {
    /// Nobody has reported.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn reported(&self) -> MutexGuard<'_, HashMap<u128, (HolderReport, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Holders for MemoryHolders {
    async fn report(&self, report: &HolderReport, now: Timestamp) -> Stored<()> {
        let mut reported = self.reported();
        reported.retain(|_, (_, at)| now.since_ms(*at) < FORGOTTEN_MS);
        reported.insert(report.holder, (*report, now));
        Ok(())
    }

    async fn reports(&self) -> Stored<Vec<HolderReport>> {
        Ok(self.reported().values().map(|(report, _)| *report).collect())
    }
}
