//! Whether Redis answers.

use async_trait::async_trait;

use super::Redis;
use crate::ports::{Health, Stored};

#[async_trait]
impl Health for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn check(&self) -> Stored<()> {
        self.command(&redis::cmd("PING")).await
    }
}
