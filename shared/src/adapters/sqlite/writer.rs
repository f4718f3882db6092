//! The one writer, with group commit: a sync of the disk costs the same for one order as for a thousand, so all work
//! that waits while one transaction is being synced shares the next.

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::stored;
use crate::ports::{StoreError, Stored};

/// Work that may share one transaction.
const GROUP_MAX: usize = 1_024;
/// Work that may wait; beyond it callers wait for room.
const WAITING_MAX: usize = 16_384;

/// Tells the caller, once the transaction's fate is known.
type Answer = Box<dyn FnOnce(Stored<()>) + Send>;
/// One piece of work: whether its changes are to be kept, and whom to tell.
type Work = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (bool, Answer)> + Send>;

pub(super) struct Writer {
    queue: mpsc::Sender<Work>,
}

impl Writer {
    /// Starts the writer; it ends when the last handle is dropped.
    pub(super) fn spawn(connection: SqliteConnection) -> Self {
        let (queue, work) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(connection, work));
        Self { queue }
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Stored<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Stored<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel::<Stored<T>>();
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                let result = work(connection).await;
                let kept = result.is_ok();
                let answer: Answer = Box::new(move |committed| {
                    // A caller that has gone away does not want the answer any more.
                    let _ = reply.send(committed.and(result));
                });
                (kept, answer)
            })
        });
        self.queue.send(work).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> StoreError {
    StoreError::Unknown { store: "SQLite", cause: "the writer has stopped".to_owned() }
}

async fn run(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Work>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while queue.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut answers = Vec::with_capacity(group.len());
        let outcome = commit(&mut connection, group.drain(..), &mut answers).await;
        for answer in answers {
            answer(outcome.clone());
        }
        if outcome.is_err() {
            // Leaves no half-open transaction behind; if even this fails, the next BEGIN says so to its callers.
            let _ = connection.execute("ROLLBACK").await;
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "SQLite was not closed cleanly; its log is replayed at the next start");
    }
}

async fn commit(connection: &mut SqliteConnection, group: impl Iterator<Item = Work>, answers: &mut Vec<Answer>) -> Stored<()> {
    // The group must be answered even when the transaction can't begin, so failures are carried to the end.
    let mut outcome = connection.execute("BEGIN IMMEDIATE").await.map(drop).map_err(stored);
    for work in group {
        if outcome.is_ok() {
            outcome = connection.execute("SAVEPOINT work").await.map(drop).map_err(stored);
        }
        if outcome.is_err() {
            // Dropping the work tells its caller that it was not run.
            continue;
        }
        let (kept, answer) = work(connection).await;
        answers.push(answer);
        let end = if kept { "RELEASE work" } else { "ROLLBACK TO work; RELEASE work" };
        outcome = connection.execute(end).await.map(drop).map_err(stored);
    }
    outcome?;
    connection.execute("COMMIT").await.map(drop).map_err(stored)
}
