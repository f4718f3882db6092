//! The port `ChallengeLevels`: one row.

use async_trait::async_trait;

use super::{Failure, FromRow, Row, Statement, Store, Transaction, Work, actions::note};
use crate::{
    domain::{AdminAction, ChallengeLevel, KeptLevel, Timestamp},
    ports::{ChallengeLevels, Stored},
};

/// The only row's key.
const ID: i64 = 1;

#[async_trait]
impl<S: Store> ChallengeLevels for S {
    async fn get(&self) -> Stored<Option<KeptLevel>> {
        Ok(self.fetch(select()).await?.pop())
    }

    async fn set(
        &self,
        level: ChallengeLevel,
        action: &AdminAction,
        now: Timestamp,
    ) -> Stored<KeptLevel> {
        self.transact(Set { level, action: action.clone(), now }).await
    }
}

fn select() -> Statement {
    Statement::new("SELECT level, changed_at_ms, version FROM challenge_level WHERE id = ?")
        .bind(ID)
}

/// See [`ChallengeLevels::set`].
struct Set {
    level: ChallengeLevel,
    action: AdminAction,
    now: Timestamp,
}

impl Work for Set {
    type Output = KeptLevel;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<KeptLevel, Failure> {
        let update = Statement::new(
            "UPDATE challenge_level SET level = ?, changed_at_ms = ?, version = version + 1 WHERE id = ?",
        )
        .bind(self.level.as_str())
        .bind(self.now)
        .bind(ID);
        if transaction.execute(&update).await? == 0 {
            // If another transaction inserts it first, the key refuses this insert and the
            // transaction runs again.
            let insert = Statement::new(
                "INSERT INTO challenge_level (id, level, changed_at_ms, version) VALUES ",
            )
            .rows([[
                ID.into(),
                self.level.as_str().into(),
                self.now.into(),
                1_i64.into(),
            ]]);
            transaction.execute(&insert).await?;
        }
        note(transaction, &self.action).await?;
        transaction
            .fetch(&select())
            .await?
            .pop()
            .ok_or_else(|| Failure::Corrupt("the level was stored but is not there".to_owned()))
    }
}

impl FromRow for KeptLevel {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let level = ChallengeLevel::named(&row.text("level")?).ok_or_else(|| {
            Failure::Corrupt("the row of challenge_level names no level".to_owned())
        })?;
        Ok(Self { level, changed_at: row.time("changed_at_ms")?, version: row.number("version")? })
    }
}
