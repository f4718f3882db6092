//! Failed sign-ins, counted within a window that starts at the first one.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Cmd;

use super::{
    Redis,
    keys::{SLACK_MS, arg},
    script::Script,
};
use crate::{
    domain::{Subject, Timestamp},
    ports::{Failures, StoreError, Stored},
};

static ADD: LazyLock<Script> =
    LazyLock::new(|| Script::new("failure_add", include_str!("lua/failure_add.lua")));

#[async_trait]
impl Failures for Redis {
    async fn count(&self, subject: &Subject, now: Timestamp) -> Stored<u32> {
        let Some(text) =
            self.command::<Option<String>>(&Cmd::get(self.failures_key(subject))).await?
        else {
            return Ok(0);
        };
        let parsed = text
            .split_once(' ')
            .and_then(|(count, end)| Some((count.parse::<u32>().ok()?, end.parse().ok()?)));
        let (count, end) = parsed.ok_or_else(|| StoreError::Corrupt {
            store: "Redis",
            cause: "a count of failures can't be read".to_owned(),
        })?;
        Ok(if now < Timestamp::from_epoch_ms(end) { count } else { 0 })
    }

    async fn add(&self, subject: &Subject, window_ms: u64, now: Timestamp) -> Stored<u32> {
        self.run(
            &ADD,
            &[self.failures_key(subject)],
            &[arg(now.epoch_ms()), arg(window_ms), arg(SLACK_MS)],
        )
        .await
    }

    async fn clear(&self, subject: &Subject) -> Stored<()> {
        self.command(&Cmd::del(self.failures_key(subject))).await
    }
}
