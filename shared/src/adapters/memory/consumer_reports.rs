//! Reports of queue consumers, exchanged between the tasks of one process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{
    domain::{ConsumerReport, Timestamp},
    ports::{ConsumerReports, Stored},
};

/// A process that has sent no report for this long is removed, in milliseconds.
const FORGOTTEN_MS: u64 = 60_000;

/// [`ConsumerReports`] in the memory of this process.
#[derive(Debug, Default)]
pub struct MemoryConsumerReports(Mutex<HashMap<u128, (ConsumerReport, Timestamp)>>);

impl MemoryConsumerReports {
    /// Creates a store without reports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn reported(&self) -> MutexGuard<'_, HashMap<u128, (ConsumerReport, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ConsumerReports for MemoryConsumerReports {
    async fn report(&self, report: &ConsumerReport, now: Timestamp) -> Stored<()> {
        let mut reported = self.reported();
        reported.retain(|_, (_, at)| now.since_ms(*at) < FORGOTTEN_MS);
        reported.insert(report.consumer, (*report, now));
        Ok(())
    }

    async fn reports(&self) -> Stored<Vec<ConsumerReport>> {
        Ok(self.reported().values().map(|(report, _)| *report).collect())
    }
}
