//! The journal of the embedded gate: its sessions and bans.
//!
//! Rows that are over are removed when the journal is read, which is once, at the start. Meanwhile the gate removes
//! sessions as it forgets them, and bans are at most one row per subject.

use async_trait::async_trait;
use sqlx::Row as _;

use super::{Sqlite, stored};
use crate::{
    domain::{Ban, SessionId, Subject, Timestamp},
    ports::{Journal, Session, StoreError, Stored},
};

#[async_trait]
impl Journal for Sqlite {
    async fn sessions(&self, now: Timestamp) -> Stored<Vec<Session>> {
        self.write(move |connection| {
            Box::pin(async move {
                let removal = sqlx::query("DELETE FROM sessions WHERE expires_at <= ?").bind(now.epoch_ms());
                removal.execute(&mut *connection).await.map_err(stored)?;
                let rows = sqlx::query("SELECT session_id, user_id, expires_at FROM sessions").fetch_all(connection).await;
                rows.map_err(stored)?
                    .iter()
                    .map(|row| {
                        Ok(Session {
                            session_id: id(row.try_get("session_id"))?,
                            user_id: id(row.try_get("user_id"))?,
                            expires_at: Timestamp::from_epoch_ms(row.try_get("expires_at").map_err(stored)?),
                        })
                    })
                    .collect()
            })
        })
        .await
    }

    async fn save_sessions(&self, sessions: &[Session]) -> Stored<()> {
        if sessions.is_empty() {
            return Ok(());
        }
        // One statement for any number of rows.
        let rows = json(
            sessions
                .iter()
                .map(|session| (session.session_id.to_string(), session.user_id.to_string(), session.expires_at.epoch_ms()))
                .collect::<Vec<_>>(),
        );
        self.write(move |connection| {
            Box::pin(async move {
                let insert = sqlx::query(
                    "INSERT OR REPLACE INTO sessions (session_id, user_id, expires_at) \
                     SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
                );
                insert.bind(rows).execute(connection).await.map(drop).map_err(stored)
            })
        })
        .await
    }

    async fn remove_sessions(&self, session_ids: &[SessionId]) -> Stored<()> {
        if session_ids.is_empty() {
            return Ok(());
        }
        let ids = json(session_ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.write(move |connection| {
            Box::pin(async move {
                let removal = sqlx::query("DELETE FROM sessions WHERE session_id IN (SELECT value FROM json_each(?))").bind(ids);
                removal.execute(connection).await.map(drop).map_err(stored)
            })
        })
        .await
    }

    async fn bans(&self, now: Timestamp) -> Stored<Vec<Ban>> {
        self.write(move |connection| {
            Box::pin(async move {
                let removal = sqlx::query("DELETE FROM bans WHERE expires_at <= ?").bind(now.epoch_ms());
                removal.execute(&mut *connection).await.map_err(stored)?;
                let rows = sqlx::query("SELECT kind, value, reason, created_at, expires_at FROM bans").fetch_all(connection).await;
                rows.map_err(stored)?
                    .iter()
                    .map(|row| {
                        let kind: &str = row.try_get("kind").map_err(stored)?;
                        let value: &str = row.try_get("value").map_err(stored)?;
                        let expires_at: Option<i64> = row.try_get("expires_at").map_err(stored)?;
                        Ok(Ban {
                            subject: Subject::from_stored(kind, value).map_err(|error| corrupt(&error.to_string()))?,
                            reason: row.try_get("reason").map_err(stored)?,
                            created_at: Timestamp::from_epoch_ms(row.try_get("created_at").map_err(stored)?),
                            expires_at: expires_at.map(Timestamp::from_epoch_ms),
                        })
                    })
                    .collect()
            })
        })
        .await
    }

    async fn save_ban(&self, ban: &Ban) -> Stored<()> {
        let ban = ban.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let insert =
                    sqlx::query("INSERT OR REPLACE INTO bans (kind, value, reason, created_at, expires_at) VALUES (?, ?, ?, ?, ?)")
                        .bind(ban.subject.kind())
                        .bind(ban.subject.value())
                        .bind(ban.reason)
                        .bind(ban.created_at.epoch_ms())
                        .bind(ban.expires_at.map(Timestamp::epoch_ms));
                insert.execute(connection).await.map(drop).map_err(stored)
            })
        })
        .await
    }

    async fn remove_ban(&self, subject: &Subject) -> Stored<()> {
        let (kind, value) = (subject.kind(), subject.value());
        self.write(move |connection| {
            Box::pin(async move {
                let removal = sqlx::query("DELETE FROM bans WHERE kind = ? AND value = ?").bind(kind).bind(value);
                removal.execute(connection).await.map(drop).map_err(stored)
            })
        })
        .await
    }
}

fn json(rows: impl serde::Serialize) -> String {
    serde_json::to_string(&rows).expect("texts and numbers have a JSON form")
}

fn id<T: std::str::FromStr<Err: ToString>>(text: Result<&str, sqlx::Error>) -> Stored<T> {
    text.map_err(stored)?.parse().map_err(|error: T::Err| corrupt(&error.to_string()))
}

fn corrupt(cause: &str) -> StoreError {
    StoreError::Corrupt { store: "SQLite", cause: cause.to_owned() }
}
