//! Reports of the processes that consume the order queue: one hash with a field per process.

use async_trait::async_trait;
use redis::Cmd;

use super::Redis;
use crate::{
    domain::{ConsumerProgress, ConsumerReport, Timestamp},
    ports::{ConsumerReports, StoreError, Stored},
};

/// A process that has sent no report for this long is removed, in milliseconds; the hash expires
/// after the same time.
const FORGOTTEN_MS: u64 = 60_000;
/// Number of reports after which a process looks for others to remove.
const LOOK_EVERY: u64 = 50;

#[async_trait]
impl ConsumerReports for Redis {
    async fn report(&self, report: &ConsumerReport, now: Timestamp) -> Stored<()> {
        let key = self.consumer_reports_key();
        let ConsumerReport {
            consumer,
            beat,
            progress: ConsumerProgress { session, handed_back, received, done },
        } = report;
        let value = format!("{beat} {session} {handed_back} {received} {done} {}", now.epoch_ms());
        let _: () = self.command(&Cmd::hset(&key, format!("{consumer:032x}"), value)).await?;
        let _: () = self.command(&Cmd::pexpire(&key, FORGOTTEN_MS as i64)).await?;
        if beat % LOOK_EVERY == 0 {
            let gone: Vec<String> = self
                .rows()
                .await?
                .into_iter()
                .filter(|(_, text)| {
                    read(text).is_none_or(|(.., at)| now.since_ms(at) >= FORGOTTEN_MS)
                })
                .map(|(consumer, _)| consumer)
                .collect();
            if !gone.is_empty() {
                // A process that is reporting at this moment is back with its next report.
                let _: () = self.command(&Cmd::hdel(&key, gone)).await?;
            }
        }
        Ok(())
    }

    async fn reports(&self) -> Stored<Vec<ConsumerReport>> {
        let corrupt = || StoreError::Corrupt {
            store: "Redis",
            cause: "a consumer's report can't be read".to_owned(),
        };
        let rows = self.rows().await?;
        rows.into_iter()
            .map(|(consumer, text)| {
                let consumer = u128::from_str_radix(&consumer, 16).map_err(|_| corrupt())?;
                let (beat, progress, _) = read(&text).ok_or_else(corrupt)?;
                Ok(ConsumerReport { consumer, beat, progress })
            })
            .collect()
    }
}

impl Redis {
    async fn rows(&self) -> Stored<Vec<(String, String)>> {
        self.command(&Cmd::hgetall(self.consumer_reports_key())).await
    }
}

/// Parses the beat, the progress, and the time of the report.
fn read(text: &str) -> Option<(u64, ConsumerProgress, Timestamp)> {
    let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (beat, session, handed_back, received, done, at) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    Some((
        beat,
        ConsumerProgress { session, handed_back, received, done },
        Timestamp::from_epoch_ms(i64::try_from(at).ok()?),
    ))
}
