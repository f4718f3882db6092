//! The only writer, with group commit: a disk sync costs the same for one order as for a thousand,
//! so all work that arrives while a transaction is being synced shares the next one.
//!
//! A caller gets `Ok` only after the commit of the transaction with its work. Each piece of work
//! runs inside a savepoint, so that a failure rolls back nothing of the others.

use std::{fs::File, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{STORE, stored};
use crate::{
    metrics::{COMMIT_GROUP, COMMIT_SECONDS, elapsed, number},
    ports::{StoreError, Stored},
};

/// Limit on the pieces of work in one transaction.
const GROUP_MAX: usize = 1_024;
/// Limit on queued work; beyond it callers wait for room.
const WAITING_MAX: usize = 16_384;
/// Longest time of one call, including the wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the caller, once the transaction's outcome is known.
type Answer = Box<dyn FnOnce(Stored<()>) + Send>;

/// A piece of work and its caller.
trait Job: Send {
    /// Runs the work. Returns whether to keep its changes, and how to answer the caller.
    fn run(self: Box<Self>, connection: &mut SqliteConnection) -> BoxFuture<'_, (bool, Answer)>;

    /// Answers the caller that the work was not run.
    fn refuse(self: Box<Self>, error: StoreError);
}

struct Pending<T, F> {
    work: F,
    reply: oneshot::Sender<Stored<T>>,
}

impl<T, F> Job for Pending<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Stored<T>> + Send + 'static,
{
    fn run(self: Box<Self>, connection: &mut SqliteConnection) -> BoxFuture<'_, (bool, Answer)> {
        Box::pin(async move {
            let Self { work, reply } = *self;
            // A panic in one piece of work must not end the writer. Its changes are rolled back
            // like those of any failure.
            let result = AssertUnwindSafe(async { work(connection).await })
                .catch_unwind()
                .await
                .unwrap_or_else(|_| {
                    Err(StoreError::Unavailable {
                        store: STORE,
                        cause: "the work panicked and was undone".to_owned(),
                    })
                });
            let kept = result.is_ok();
            let answer: Answer = Box::new(move |fate| {
                // Fails only when the caller is gone and needs no answer.
                let _ = reply.send(result.and_then(|value| fate.map(|()| value)));
            });
            (kept, answer)
        })
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        // As above.
        let _ = self.reply.send(Err(error));
    }
}

pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the writer. When the last handle is dropped, the writer finishes the queued work,
    /// closes the connection and only then releases `lock`.
    pub(super) fn spawn(connection: SqliteConnection, lock: File) -> Self {
        let (queue, jobs) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            run(connection, jobs).await;
            drop(lock);
        });
        Self { queue }
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Stored<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Stored<T>> + Send + 'static,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let (reply, answer) = oneshot::channel();
        match timeout_at(deadline, self.queue.send(Box::new(Pending { work, reply }))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                return Err(StoreError::Unavailable {
                    store: STORE,
                    cause: "the writer has stopped".to_owned(),
                });
            }
            Err(_) => {
                return Err(StoreError::Unavailable {
                    store: STORE,
                    cause: "too much is waiting to be written".to_owned(),
                });
            }
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Unknown {
                store: STORE,
                cause: "the writer has stopped".to_owned(),
            }),
            Err(_) => Err(StoreError::Unknown {
                store: STORE,
                cause: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
            }),
        }
    }
}

async fn run(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    let (seconds, calls) = (COMMIT_SECONDS.histogram(&[]), COMMIT_GROUP.histogram(&[]));
    while queue.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut answers = Vec::with_capacity(group.len());
        calls.record(number(group.len() as u64));
        let begun = Instant::now();
        let fate = commit(&mut connection, group.drain(..), &mut answers).await;
        seconds.record(elapsed(begun.elapsed()));
        if fate.is_err() {
            // Roll back before answering: an answer that says "undone" must be true. The rollback
            // fails when the transaction has already ended by itself; if it fails otherwise, the
            // next BEGIN fails too and its callers get that error.
            if let Err(error) = connection.execute("ROLLBACK").await {
                tracing::debug!(%error, "nothing to roll back");
            }
        }
        for answer in answers {
            answer(fate.clone());
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "SQLite was not closed cleanly; its log is replayed at the next start");
    }
}

/// Runs a group in one transaction. `answers` collects the callers whose work was run; the others
/// are answered here.
async fn commit(
    connection: &mut SqliteConnection,
    group: impl Iterator<Item = Box<dyn Job>>,
    answers: &mut Vec<Answer>,
) -> Stored<()> {
    // The whole group must be answered even when the transaction breaks, so failures are carried to
    // the end.
    let mut outcome = execute(connection, "BEGIN IMMEDIATE").await;
    for job in group {
        if outcome.is_ok() {
            outcome = execute(connection, "SAVEPOINT work").await;
        }
        if let Err(error) = &outcome {
            job.refuse(error.clone());
            continue;
        }
        let (kept, answer) = job.run(connection).await;
        answers.push(answer);
        // Some errors (a full disk) make SQLite roll back the whole transaction by itself. Then the
        // savepoint is gone and this statement fails, so earlier work of the group is not mistaken
        // for kept.
        outcome = execute(
            connection,
            if kept { "RELEASE work" } else { "ROLLBACK TO work; RELEASE work" },
        )
        .await;
    }
    outcome?;
    // A commit whose sync failed may still be found in the log after a crash.
    connection.execute("COMMIT").await.map(drop).map_err(|error| StoreError::Unknown {
        store: STORE,
        cause: format!("the commit failed: {error}"),
    })
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Stored<()> {
    connection.execute(sql).await.map(drop).map_err(stored)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// A writer on a database of its own, with a connection to inspect it.
    async fn writer() -> Writer {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        connection
            .execute(
                "PRAGMA foreign_keys = ON; CREATE TABLE t (n INTEGER PRIMARY KEY CHECK (n > 0))",
            )
            .await
            .unwrap();
        let child = "CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)";
        connection.execute(child).await.unwrap();
        Writer::spawn(connection, File::open("/dev/null").unwrap())
    }

    async fn run_sql(writer: &Writer, sql: &'static str) -> Stored<()> {
        writer.run(move |connection| Box::pin(async move { execute(connection, sql).await })).await
    }

    async fn numbers(writer: &Writer) -> Vec<i64> {
        writer
            .run(|connection| {
                Box::pin(async {
                    sqlx::query_scalar("SELECT n FROM t ORDER BY n")
                        .fetch_all(connection)
                        .await
                        .map_err(stored)
                })
            })
            .await
            .unwrap()
    }

    /// Runs all in one transaction: they queue up while the writer is kept busy.
    async fn together(writer: &Writer, sql: &[&'static str]) -> Vec<Stored<()>> {
        let (started, has_started) = oneshot::channel();
        let (go, may_go) = oneshot::channel::<()>();
        let blocker = writer.run(move |_| {
            Box::pin(async move {
                started.send(()).unwrap();
                may_go.await.unwrap();
                Ok(())
            })
        });
        let group = async {
            has_started.await.unwrap();
            let mut all = Box::pin(join_all(sql.iter().map(|sql| run_sql(writer, sql))));
            // Polling each once has put its work into the queue, which has room.
            assert!(futures_util::poll!(&mut all).is_pending());
            go.send(()).unwrap();
            all.await
        };
        let (blocked, outcomes) = tokio::join!(blocker, group);
        blocked.unwrap();
        outcomes
    }

    #[tokio::test]
    async fn a_failing_work_undoes_nothing_of_the_others() {
        let writer = writer().await;
        let outcomes = together(
            &writer,
            &[
                "INSERT INTO t VALUES (1)",
                "INSERT INTO t VALUES (2); INSERT INTO t VALUES (-2)",
                "INSERT INTO t VALUES (3)",
            ],
        )
        .await;
        assert!(
            matches!(outcomes[..], [Ok(()), Err(StoreError::Corrupt { .. }), Ok(())]),
            "{outcomes:?}"
        );
        assert_eq!(numbers(&writer).await, [1, 3]);
    }

    #[tokio::test]
    async fn nobody_is_told_ok_when_the_commit_fails() {
        let writer = writer().await;
        // The foreign key is checked only when the transaction commits.
        let outcomes = together(
            &writer,
            &[
                "INSERT INTO t VALUES (1)",
                "INSERT INTO t VALUES (-1)",
                "INSERT INTO child VALUES (9)",
            ],
        )
        .await;
        assert!(
            matches!(
                outcomes[..],
                [
                    Err(StoreError::Unknown { .. }),
                    Err(StoreError::Corrupt { .. }),
                    Err(StoreError::Unknown { .. })
                ]
            ),
            "{outcomes:?}"
        );
        assert_eq!(numbers(&writer).await, [0; 0]);
        run_sql(&writer, "INSERT INTO t VALUES (4)").await.unwrap();
        assert_eq!(numbers(&writer).await, [4]);
    }

    #[tokio::test]
    async fn a_transaction_that_ends_by_itself_is_noticed() {
        let writer = writer().await;
        let lost = [
            "INSERT INTO t VALUES (1)",
            "ROLLBACK; SELECT no_such_column",
            "INSERT INTO t VALUES (3)",
        ];
        let outcomes = together(&writer, &lost).await;
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable { .. }))),
            "{outcomes:?}"
        );
        assert_eq!(numbers(&writer).await, [0; 0]);
        // The same when the work hides the error.
        let outcomes = together(
            &writer,
            &["INSERT INTO t VALUES (1)", "ROLLBACK", "INSERT INTO t VALUES (3)"],
        )
        .await;
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable { .. }))),
            "{outcomes:?}"
        );
        assert_eq!(numbers(&writer).await, [0; 0]);
        run_sql(&writer, "INSERT INTO t VALUES (4)").await.unwrap();
        assert_eq!(numbers(&writer).await, [4]);
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_writer() {
        let writer = writer().await;
        let panicking = writer.run::<(), _>(|connection| {
            Box::pin(async move {
                execute(connection, "INSERT INTO t VALUES (1)").await?;
                panic!("on purpose");
            })
        });
        let (panicked, beside) =
            tokio::join!(panicking, run_sql(&writer, "INSERT INTO t VALUES (2)"));
        assert!(matches!(panicked, Err(StoreError::Unavailable { .. })), "{panicked:?}");
        beside.unwrap();
        assert_eq!(numbers(&writer).await, [2]);
    }
}
