//! The parked messages, for the operator.

use async_trait::async_trait;
use sqlx::Row as _;

use super::{Sqlite, stored};
use crate::{
    domain::DeadLetter,
    ports::{DeadLetters, Stored},
};

#[async_trait]
impl DeadLetters for Sqlite {
    async fn list(&self, limit: u32) -> Stored<Vec<DeadLetter>> {
        let rows = sqlx::query(
            "SELECT parked_id, body, reason FROM queue_parked ORDER BY parked_id LIMIT ?",
        )
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(stored)?;
        rows.into_iter()
            .map(|row| {
                let id: i64 = row.try_get(0).map_err(stored)?;
                Ok(DeadLetter {
                    id: id.to_string(),
                    body: row.try_get(1).map_err(stored)?,
                    reason: row.try_get(2).map_err(stored)?,
                })
            })
            .collect()
    }

    async fn retry(&self, id: &str) -> Stored<bool> {
        let retried = self.take(id, Some("INSERT INTO queue_messages (body) SELECT body FROM queue_parked WHERE parked_id = ?")).await?;
        self.wake();
        Ok(retried)
    }

    async fn discard(&self, id: &str) -> Stored<bool> {
        self.take(id, None).await
    }
}

impl Sqlite {
    /// Removes a message, in one transaction with the statement to run before.
    async fn take(&self, id: &str, first: Option<&'static str>) -> Stored<bool> {
        // An id that is not a number matches no message.
        let Ok(id) = id.parse::<i64>() else { return Ok(false) };
        self.write(move |connection| {
            Box::pin(async move {
                if let Some(statement) = first {
                    sqlx::query(statement)
                        .bind(id)
                        .execute(&mut *connection)
                        .await
                        .map_err(stored)?;
                }
                let gone = sqlx::query("DELETE FROM queue_parked WHERE parked_id = ?")
                    .bind(id)
                    .execute(connection)
                    .await
                    .map_err(stored)?;
                Ok(gone.rows_affected() > 0)
            })
        })
        .await
    }
}
