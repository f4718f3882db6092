//! Sessions: one hash per user, so that the gate reads one field and "all devices" is one script.

use std::{collections::HashMap, sync::LazyLock};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use redis::Cmd;

use super::{
    Redis,
    keys::{SLACK_MS, arg},
    script::Script,
};
use crate::{
    domain::{Role, SESSIONS_PER_USER_MAX, Session, SessionId, Timestamp, UserId},
    ports::{Sessions, Stored},
};

static OPEN: LazyLock<Script> =
    LazyLock::new(|| Script::new("sessions_open", include_str!("lua/sessions_open.lua")));
static END_ALL: LazyLock<Script> =
    LazyLock::new(|| Script::new("sessions_end_all", include_str!("lua/sessions_end_all.lua")));

/// Users whose sessions are stored concurrently when many are opened at once.
const USERS_IN_FLIGHT: usize = 256;

/// The stored form of a session: its end, and its role unless it is a shopper's.
fn record(session: &Session) -> Vec<u8> {
    let ends = session.expires_at.epoch_ms();
    match session.role {
        Role::Shopper => arg(ends),
        role @ Role::Admin => arg(format!("{ends} {}", role.as_str())),
    }
}

#[async_trait]
impl Sessions for Redis {
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()> {
        let mut by_user: HashMap<UserId, Vec<&Session>> = HashMap::new();
        for session in sessions {
            by_user.entry(session.user_id).or_default().push(session);
        }
        // Owned values, because the compiler can't prove `Send` for a stream of borrowed work in an
        // async trait.
        let calls: Vec<(String, Vec<Vec<u8>>)> = by_user
            .into_iter()
            .map(|(user_id, sessions)| {
                let mut arguments =
                    vec![arg(SESSIONS_PER_USER_MAX), arg(now.epoch_ms()), arg(SLACK_MS)];
                for session in sessions {
                    arguments.extend([arg(session.session_id), record(session)]);
                }
                (self.sessions_key(user_id), arguments)
            })
            .collect();
        stream::iter(calls)
            .map(|(key, arguments)| async move {
                let _: u32 = self.run(&OPEN, &[key], &arguments).await?;
                Ok(())
            })
            .buffer_unordered(USERS_IN_FLIGHT)
            .collect::<Vec<Stored<()>>>()
            .await
            .into_iter()
            .collect()
    }

    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()> {
        self.command(&Cmd::hdel(self.sessions_key(user_id), session_id.to_string())).await
    }

    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()> {
        let keep = keep.map(arg).unwrap_or_default();
        self.run(&END_ALL, &[self.sessions_key(user_id)], &[keep]).await
    }
}
