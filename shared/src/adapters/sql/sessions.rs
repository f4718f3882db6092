//! The port `SessionLedger`.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;

use super::{CHUNK, Failure, FromRow, Row, Statement, Store, Transaction, Work};
use crate::{
    domain::{KeptSession, Opening, SESSIONS_PER_USER_MAX, Session, SessionId, Timestamp, UserId},
    ports::{SessionLedger, Stored},
};

const COLUMNS: &str = "session_id, user_id, role, expires_at_ms, ended_at_ms";
/// As many as one transaction stores well within its time limit.
const SESSIONS_PER_TRANSACTION: usize = 10 * CHUNK;

#[async_trait]
impl<S: Store> SessionLedger for S {
    async fn open(&self, openings: &[Opening], now: Timestamp) -> Stored<Vec<SessionId>> {
        let mut opened = Vec::with_capacity(openings.len());
        for openings in openings.chunks(SESSIONS_PER_TRANSACTION) {
            opened.extend(self.transact(Open { openings: openings.to_vec(), now }).await?);
        }
        Ok(opened)
    }

    async fn get_many(&self, session_ids: &[SessionId]) -> Stored<Vec<KeptSession>> {
        let mut found = Vec::with_capacity(session_ids.len());
        for chunk in session_ids.chunks(CHUNK) {
            let select = Statement::new(format!(
                "SELECT {COLUMNS} FROM sessions{} WHERE session_id IN ",
                S::DIALECT.through("PRIMARY")
            ))
            .list(chunk.iter().copied());
            found.extend(self.fetch(select).await?);
        }
        Ok(found)
    }

    async fn end(&self, user_id: UserId, session_id: SessionId, now: Timestamp) -> Stored<()> {
        self.transact(End { user_id, session_id, now }).await
    }

    async fn ends_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptSession>> {
        let select = Statement::new(format!(
            "SELECT {COLUMNS} FROM sessions WHERE end_due_at_ms <= ? ORDER BY end_due_at_ms LIMIT ?"
        ))
        .bind(now)
        .bind(limit);
        self.fetch(select).await
    }

    async fn note_ends(
        &self,
        session_ids: &[SessionId],
        again_at: Option<Timestamp>,
    ) -> Stored<()> {
        self.transact(NoteEnds { session_ids: session_ids.to_vec(), again_at }).await
    }

    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32> {
        self.transact(DeleteOver { before, limit }).await
    }
}

impl FromRow for KeptSession {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let session = Session {
            session_id: row.parsed("session_id")?,
            user_id: row.parsed("user_id")?,
            role: row.parsed("role")?,
            expires_at: row.time("expires_at_ms")?,
        };
        Ok(Self {
            session,
            ended_at: row.int_or_null("ended_at_ms")?.map(Timestamp::from_epoch_ms),
        })
    }
}

/// See [`SessionLedger::open`].
struct Open {
    openings: Vec<Opening>,
    now: Timestamp,
}

impl Work for Open {
    type Output = Vec<SessionId>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Vec<SessionId>, Failure> {
        let mut opened = Vec::with_capacity(self.openings.len());
        // Users in order of their ids, so that two transactions can't deadlock.
        let mut by_user: BTreeMap<UserId, Vec<&Opening>> = BTreeMap::new();
        for opening in &self.openings {
            by_user.entry(opening.session.user_id).or_default().push(opening);
        }
        let users: Vec<UserId> = by_user.keys().copied().collect();
        let mut alive: HashSet<SessionId> = HashSet::new();
        for chunk in users.chunks(CHUNK) {
            let lock = Statement::new(format!(
                "SELECT user_id, generation FROM users{} WHERE user_id IN ",
                S::DIALECT.through("PRIMARY")
            ))
            .list(chunk.iter().copied())
            .sql(" ORDER BY user_id")
            .sql(S::DIALECT.for_update());
            let generations: HashMap<UserId, u64> = transaction
                .fetch::<Generation>(&lock)
                .await?
                .into_iter()
                .map(|user| (user.user_id, user.generation))
                .collect();
            let current: Vec<&Session> = chunk
                .iter()
                .flat_map(|user_id| &by_user[user_id])
                .filter(|opening| {
                    generations.get(&opening.session.user_id) == Some(&opening.generation)
                })
                .map(|opening| &opening.session)
                .collect();
            insert(transaction, &current).await?;
            alive.extend(bounded(transaction, &current, self.now).await?);
        }
        opened.extend(
            self.openings
                .iter()
                .map(|opening| opening.session.session_id)
                .filter(|session_id| alive.contains(session_id)),
        );
        Ok(opened)
    }
}

async fn insert<S: Transaction>(transaction: &mut S, new: &[&Session]) -> Result<(), Failure> {
    for chunk in new.chunks(CHUNK) {
        let rows = chunk.iter().map(|new| {
            [
                new.session_id.into(),
                new.user_id.into(),
                new.role.as_str().into(),
                new.expires_at.into(),
            ]
        });
        let insert = Statement::new(
            "INSERT INTO sessions (session_id, user_id, role, expires_at_ms) VALUES ",
        )
        .rows(rows)
        .sql(S::DIALECT.skip_duplicates("session_id"));
        transaction.execute(&insert).await?;
    }
    Ok(())
}

/// The live sessions of the users in `new`, after ending those above the limit.
async fn bounded<S: Transaction>(
    transaction: &mut S,
    new: &[&Session],
    now: Timestamp,
) -> Result<Vec<SessionId>, Failure> {
    let users: Vec<UserId> =
        new.iter().map(|new| new.user_id).collect::<HashSet<_>>().into_iter().collect();
    let mut living: HashMap<UserId, Vec<(Timestamp, SessionId)>> = HashMap::new();
    for chunk in users.chunks(CHUNK) {
        let select =
            Statement::new(format!(
                "SELECT {COLUMNS} FROM sessions{} WHERE ended_at_ms IS NULL AND expires_at_ms > ? AND user_id IN ",
                S::DIALECT.through("sessions_of_user")
            ))
                .bind(now)
                .list(chunk.iter().copied());
        for kept in transaction.fetch::<KeptSession>(&select).await? {
            living
                .entry(kept.session.user_id)
                .or_default()
                .push((kept.session.expires_at, kept.session.session_id));
        }
    }
    let (mut alive, mut too_many) = (Vec::new(), Vec::new());
    for mut of_user in living.into_values() {
        of_user.sort_unstable();
        let excess = of_user.len().saturating_sub(SESSIONS_PER_USER_MAX);
        too_many.extend(of_user.drain(..excess).map(|(_, session_id)| session_id));
        alive.extend(of_user.into_iter().map(|(_, session_id)| session_id));
    }
    for chunk in too_many.chunks(CHUNK) {
        let update = ending(now).sql("session_id IN ").list(chunk.iter().copied());
        transaction.execute(&update).await?;
    }
    Ok(alive)
}

/// The beginning of a statement that ends sessions. Marks them so that the fast store is updated at
/// once.
fn ending(now: Timestamp) -> Statement {
    Statement::new(
        "UPDATE sessions SET ended_at_ms = ?, end_due_at_ms = ? WHERE ended_at_ms IS NULL AND ",
    )
    .bind(now)
    .bind(now)
}

/// Ends all sessions of a user except one.
pub(super) async fn end_all<S: Transaction>(
    transaction: &mut S,
    user_id: UserId,
    keep: Option<SessionId>,
    now: Timestamp,
) -> Result<(), Failure> {
    let mut update = ending(now).sql("user_id = ?").bind(user_id);
    if let Some(keep) = keep {
        update = update.sql(" AND session_id <> ?").bind(keep);
    }
    transaction.execute(&update).await.map(drop)
}

struct Generation {
    user_id: UserId,
    generation: u64,
}

impl FromRow for Generation {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self { user_id: row.parsed("user_id")?, generation: row.number("generation")? })
    }
}

/// See [`SessionLedger::end`].
struct End {
    user_id: UserId,
    session_id: SessionId,
    now: Timestamp,
}

impl Work for End {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        let update = ending(self.now)
            .sql("session_id = ? AND user_id = ?")
            .bind(self.session_id)
            .bind(self.user_id);
        transaction.execute(&update).await.map(drop)
    }
}

/// See [`SessionLedger::note_ends`].
struct NoteEnds {
    session_ids: Vec<SessionId>,
    again_at: Option<Timestamp>,
}

impl Work for NoteEnds {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        for chunk in self.session_ids.chunks(CHUNK) {
            let update = Statement::new("UPDATE sessions SET end_due_at_ms = ? WHERE ended_at_ms IS NOT NULL AND session_id IN ")
                .bind(self.again_at)
                .list(chunk.iter().copied());
            transaction.execute(&update).await?;
        }
        Ok(())
    }
}

/// See [`SessionLedger::delete_over`].
struct DeleteOver {
    before: Timestamp,
    limit: u32,
}

impl Work for DeleteOver {
    type Output = u32;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<u32, Failure> {
        let select = Statement::new(format!(
            "SELECT {COLUMNS} FROM sessions WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?"
        ))
        .bind(self.before)
        .bind(self.limit);
        let over: Vec<SessionId> = transaction
            .fetch::<KeptSession>(&select)
            .await?
            .into_iter()
            .map(|kept| kept.session.session_id)
            .collect();
        let mut deleted = 0;
        for chunk in over.chunks(CHUNK) {
            let delete = Statement::new("DELETE FROM sessions WHERE session_id IN ")
                .list(chunk.iter().copied());
            deleted += transaction.execute(&delete).await?;
        }
        Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
    }
}
