//! Sessions.

use async_trait::async_trait;

use super::{MemoryGate, shard::place_of_id};
use crate::{
    domain::{SESSIONS_PER_USER_MAX, Session, SessionId, Timestamp, UserId},
    ports::{Sessions, Stored},
};

/// Sessions opened in one go before the task yields to others.
const OPENED_PER_TURN: usize = 1_024;

#[async_trait]
impl Sessions for MemoryGate {
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()> {
        for turn in sessions.chunks(OPENED_PER_TURN) {
            for session in turn {
                self.keep_session(session, now);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()> {
        if let Some(sessions) =
            self.shards.at(place_of_id(user_id.as_bytes())).sessions.get_mut(&user_id)
        {
            sessions.retain(|(_, id, _)| *id != session_id);
        }
        Ok(())
    }

    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()> {
        if let Some(sessions) =
            self.shards.at(place_of_id(user_id.as_bytes())).sessions.get_mut(&user_id)
        {
            sessions.retain(|(_, id, _)| Some(*id) == keep);
        }
        Ok(())
    }
}

impl MemoryGate {
    fn keep_session(&self, session: &Session, now: Timestamp) {
        let mut shard = self.shards.at(place_of_id(session.user_id.as_bytes()));
        if shard.sessions.get(&session.user_id).is_none() {
            shard.sessions.put(session.user_id, Vec::with_capacity(1), |all| {
                all.iter().all(|(end, ..)| *end <= now)
            });
        }
        let Some(all) = shard.sessions.get_mut(&session.user_id) else { return };
        let new = (session.expires_at, session.session_id);
        all.retain(|(_, id, _)| *id != session.session_id);
        all.insert(
            all.partition_point(|(end, id, _)| (*end, *id) < new),
            (new.0, new.1, session.role),
        );
        if all.len() > SESSIONS_PER_USER_MAX {
            all.remove(0);
        }
    }
}
