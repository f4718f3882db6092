//! Sessions. The journal comes first when one is opened, so that whatever the gate lets in survives a restart; memory
//! comes first when one ends, so that it is refused at once.

use async_trait::async_trait;

use super::{MemoryGate, shard::place_of_id};
use crate::{
    domain::{SessionId, Timestamp, UserId},
    ports::{SESSIONS_PER_USER_MAX, Session, Sessions, Stored},
};

/// Sessions opened before other tasks get their turn.
const OPENED_PER_TURN: usize = 1_024;

#[async_trait]
impl Sessions for MemoryGate {
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()> {
        if let Some(journal) = &self.journal {
            journal.save_sessions(sessions).await?;
        }
        let ended = self.keep_sessions(sessions, now).await;
        self.forget_sessions(&ended).await
    }

    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()> {
        if let Some(sessions) = self.shards.at(place_of_id(user_id.as_bytes())).sessions.get_mut(&user_id) {
            sessions.retain(|(_, id)| *id != session_id);
        }
        self.forget_sessions(&[session_id]).await
    }

    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()> {
        let mut ended = Vec::new();
        if let Some(sessions) = self.shards.at(place_of_id(user_id.as_bytes())).sessions.get_mut(&user_id) {
            ended.extend(sessions.iter().map(|(_, id)| *id).filter(|id| Some(*id) != keep));
            sessions.retain(|(_, id)| Some(*id) == keep);
        }
        self.forget_sessions(&ended).await
    }
}

impl MemoryGate {
    /// Returns those that have ended for it: over, or one too many.
    pub(super) async fn keep_sessions(&self, sessions: &[Session], now: Timestamp) -> Vec<SessionId> {
        let mut ended = Vec::new();
        for turn in sessions.chunks(OPENED_PER_TURN) {
            for session in turn {
                self.keep_session(session, now, &mut ended);
            }
            tokio::task::yield_now().await;
        }
        ended
    }

    fn keep_session(&self, session: &Session, now: Timestamp, ended: &mut Vec<SessionId>) {
        let mut shard = self.shards.at(place_of_id(session.user_id.as_bytes()));
        if shard.sessions.get(&session.user_id).is_none() {
            let over = |all: &Vec<(Timestamp, SessionId)>| all.iter().all(|(end, _)| *end <= now);
            let swept = shard.sessions.put(session.user_id, Vec::with_capacity(1), over);
            ended.extend(swept.into_iter().flatten().map(|(_, id)| id));
        }
        let Some(all) = shard.sessions.get_mut(&session.user_id) else { return };
        let new = (session.expires_at, session.session_id);
        all.retain(|(_, id)| *id != session.session_id);
        all.insert(all.partition_point(|known| *known < new), new);
        if all.len() > SESSIONS_PER_USER_MAX {
            ended.push(all.remove(0).1);
        }
    }

    async fn forget_sessions(&self, ended: &[SessionId]) -> Stored<()> {
        match &self.journal {
            Some(journal) if !ended.is_empty() => journal.remove_sessions(ended).await,
            _ => Ok(()),
        }
    }
}
