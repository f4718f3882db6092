//! The port `BanLedger`.

use async_trait::async_trait;

use super::{
    CHUNK, Failure, FromRow, Row, Statement, Store, Transaction, Work, actions::note, rows::signed,
};
use crate::{
    domain::{AdminAction, Ban, KeptBan, Subject, Timestamp},
    ports::{BanLedger, Stored},
};

const COLUMNS: &str =
    "kind, value, reason, created_at_ms, expires_at_ms, lifted_at_ms, changed_at_ms, version";

#[async_trait]
impl<S: Store> BanLedger for S {
    async fn put(&self, ban: &Ban, action: &AdminAction) -> Stored<()> {
        self.transact(Put { ban: ban.clone(), action: action.clone() }).await
    }

    async fn lift(&self, subject: &Subject, now: Timestamp, action: &AdminAction) -> Stored<bool> {
        self.transact(Lift { subject: subject.clone(), now, action: action.clone() }).await
    }

    async fn of(&self, subjects: &[Subject]) -> Stored<Vec<KeptBan>> {
        let mut kinds: Vec<&'static str> = subjects.iter().map(Subject::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut found = Vec::new();
        for kind in kinds {
            let values: Vec<String> = subjects
                .iter()
                .filter(|subject| subject.kind() == kind)
                .map(Subject::value)
                .collect();
            for chunk in values.chunks(CHUNK) {
                let select = Statement::new(format!(
                    "SELECT {COLUMNS} FROM bans WHERE kind = ? AND value IN "
                ))
                .bind(kind)
                .list(chunk.iter().map(String::as_str));
                found.extend(self.fetch(select).await?);
            }
        }
        Ok(found)
    }

    async fn page(
        &self,
        now: Timestamp,
        after: Option<&Subject>,
        limit: u32,
    ) -> Stored<Vec<KeptBan>> {
        // Sorts before every kind.
        let (kind, value) =
            after.map_or(("", String::new()), |subject| (subject.kind(), subject.value()));
        let select = Statement::new(format!(
            "SELECT {COLUMNS} FROM bans WHERE (kind > ? OR (kind = ? AND value > ?)) AND lifted_at_ms IS NULL \
             AND (expires_at_ms IS NULL OR expires_at_ms > ?) ORDER BY kind, value LIMIT ?"
        ))
        .bind(kind)
        .bind(kind)
        .bind(value.as_str())
        .bind(now)
        .bind(limit);
        self.fetch(select).await
    }

    async fn shares_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptBan>> {
        let select = Statement::new(format!(
            "SELECT {COLUMNS} FROM bans WHERE share_due_at_ms <= ? ORDER BY share_due_at_ms LIMIT ?"
        ))
        .bind(now)
        .bind(limit);
        self.fetch(select).await
    }

    async fn note_shared(
        &self,
        subject: &Subject,
        version: u64,
        again_at: Option<Timestamp>,
    ) -> Stored<()> {
        self.transact(NoteShared { subject: subject.clone(), version, again_at }).await
    }

    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32> {
        self.transact(DeleteOver { before, limit }).await
    }
}

impl FromRow for KeptBan {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let subject = Subject::from_stored(&row.text("kind")?, &row.text("value")?)
            .map_err(|_| Failure::Corrupt("a row of bans names what is no subject".to_owned()))?;
        let ban = Ban {
            subject,
            reason: row.text("reason")?,
            created_at: row.time("created_at_ms")?,
            expires_at: row.int_or_null("expires_at_ms")?.map(Timestamp::from_epoch_ms),
        };
        Ok(Self {
            ban,
            lifted: row.int_or_null("lifted_at_ms")?.is_some(),
            changed_at: row.time("changed_at_ms")?,
            version: row.number("version")?,
        })
    }
}

/// The row of a subject.
fn of_subject(statement: Statement, subject: &Subject) -> Statement {
    statement
        .sql(" WHERE kind = ? AND value = ?")
        .bind(subject.kind())
        .bind(subject.value().as_str())
}

/// See [`BanLedger::put`].
struct Put {
    ban: Ban,
    action: AdminAction,
}

impl Work for Put {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        let Ban { subject, reason, created_at, expires_at } = &self.ban;
        let update = Statement::new(
            "UPDATE bans SET reason = ?, created_at_ms = ?, expires_at_ms = ?, lifted_at_ms = NULL, changed_at_ms = ?, \
             version = version + 1, share_due_at_ms = ?",
        )
        .bind(reason.as_str())
        .bind(*created_at)
        .bind(*expires_at)
        .bind(*created_at)
        .bind(*created_at);
        note(transaction, &self.action).await?;
        if transaction.execute(&of_subject(update, subject)).await? > 0 {
            return Ok(());
        }
        // If another transaction inserts it first, the key refuses this insert and the transaction
        // runs again.
        let insert = Statement::new(
            "INSERT INTO bans (kind, value, reason, created_at_ms, expires_at_ms, changed_at_ms, version, share_due_at_ms) VALUES ",
        )
        .rows([[
            subject.kind().into(),
            subject.value().as_str().into(),
            reason.as_str().into(),
            (*created_at).into(),
            (*expires_at).into(),
            (*created_at).into(),
            1_i64.into(),
            (*created_at).into(),
        ]]);
        transaction.execute(&insert).await.map(drop)
    }
}

/// See [`BanLedger::lift`].
struct Lift {
    subject: Subject,
    now: Timestamp,
    action: AdminAction,
}

impl Work for Lift {
    type Output = bool;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<bool, Failure> {
        let update = Statement::new("UPDATE bans SET lifted_at_ms = ?, changed_at_ms = ?, version = version + 1, share_due_at_ms = ?")
            .bind(self.now)
            .bind(self.now)
            .bind(self.now);
        let update = of_subject(update, &self.subject)
            .sql(" AND lifted_at_ms IS NULL AND (expires_at_ms IS NULL OR expires_at_ms > ?)")
            .bind(self.now);
        let lifted = transaction.execute(&update).await? > 0;
        if lifted {
            note(transaction, &self.action).await?;
        }
        Ok(lifted)
    }
}

/// See [`BanLedger::note_shared`].
struct NoteShared {
    subject: Subject,
    version: u64,
    again_at: Option<Timestamp>,
}

impl Work for NoteShared {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        let update = Statement::new("UPDATE bans SET share_due_at_ms = ?").bind(self.again_at);
        let update = of_subject(update, &self.subject)
            .sql(" AND version = ?")
            .bind(signed("version", self.version)?);
        transaction.execute(&update).await.map(drop)
    }
}

/// See [`BanLedger::delete_over`].
struct DeleteOver {
    before: Timestamp,
    limit: u32,
}

impl Work for DeleteOver {
    type Output = u32;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<u32, Failure> {
        let select = Statement::new(format!(
            "SELECT {COLUMNS} FROM bans WHERE share_due_at_ms IS NULL AND (expires_at_ms <= ? OR lifted_at_ms <= ?) LIMIT ?"
        ))
        .bind(self.before)
        .bind(self.before)
        .bind(self.limit);
        let mut deleted = 0;
        for over in transaction.fetch::<KeptBan>(&select).await? {
            let delete = of_subject(Statement::new("DELETE FROM bans"), &over.ban.subject)
                .sql(" AND version = ?")
                .bind(signed("version", over.version)?);
            deleted += transaction.execute(&delete).await?;
        }
        Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
    }
}
