//! How the ledger's statements and transactions are run.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection as _, MySqlConnection, MySqlTransaction, Row as _,
    mysql::{MySqlArguments, MySqlRow},
    pool::PoolConnection,
    query::Query,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{CALL_TIMEOUT, Lost, MySql, STORE, errors, measures::Raised};
use crate::{
    adapters::sql::{Dialect, Failure, FromRow, Row, Statement, Store, Transaction, Value, Work},
    metrics::elapsed,
    ports::{StoreError, Stored},
};

const FIRST_BACKOFF: Duration = Duration::from_millis(4);
/// With less time than this left, another attempt would hardly finish before the deadline.
const ATTEMPT_TIME: Duration = Duration::from_secs(2);

impl Store for MySql {
    const DIALECT: Dialect = Dialect::MySql;

    async fn fetch<T: FromRow>(&self, statement: Statement) -> Stored<Vec<T>> {
        let mut call = Call::begin(self).await?;
        let begun = Instant::now();
        let result = timeout_at(call.deadline, fetch(&mut call.connection, &statement)).await;
        self.measures.fetch_seconds.record(elapsed(begun.elapsed()));
        match result {
            Ok(result) => call.end(result),
            Err(_) => Err(timed_out()),
        }
    }

    async fn transact<W: Work>(&self, work: W) -> Stored<W::Output> {
        let mut call = Call::begin(self).await?;
        let deadline = call.deadline;
        let attempts = async {
            let mut backoff = FIRST_BACKOFF;
            for attempt in 1.. {
                match attempt_once(&mut call.connection, &work).await {
                    Err(Attempt::Undone(failure))
                        if attempt < errors::attempts_max(&failure)
                            && Instant::now() + backoff + ATTEMPT_TIME < deadline =>
                    {
                        sleep(backoff).await;
                        backoff *= 2;
                    }
                    result => return result,
                }
            }
            unreachable!("the last attempt returns")
        };
        let begun = Instant::now();
        let result = timeout_at(deadline, attempts).await;
        self.measures.transaction_seconds.record(elapsed(begun.elapsed()));
        let Ok(result) = result else { return Err(timed_out()) };
        match result {
            Ok(output) => call.end(Ok(output)),
            Err(Attempt::Undone(failure)) => call.end(Err(failure)),
            // The call is dropped, and its connection with it.
            Err(Attempt::Torn(failure)) => Err(errors::undone(failure)),
            Err(Attempt::AtCommit(error)) => Err(errors::at_commit(&error)),
        }
    }
}

/// A connection that returns to the pool only when its work has finished. When it has not (a
/// timeout, or the caller was dropped), it is closed: the server rolls back what was open, and no
/// later call waits on a dead connection.
struct Call {
    connection: PoolConnection<sqlx::MySql>,
    lost: Lost,
    deadline: Instant,
    sound: bool,
    _in_use: Raised,
}

impl Call {
    async fn begin(store: &MySql) -> Stored<Self> {
        let begun = Instant::now();
        let deadline = begun + CALL_TIMEOUT;
        let waiting = Raised::new(&store.measures.waiting);
        let acquired = store.pool.acquire().await;
        drop(waiting);
        store.measures.acquire_seconds.record(elapsed(begun.elapsed()));
        store.measures.open.set(f64::from(store.pool.size()));
        let mut connection = acquired.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => {
                let cause = "no connection within the time limit: the server does not answer, or all are busy".to_owned();
                StoreError::Unavailable { store: STORE, cause }
            }
            error => errors::before_commit(&error),
        })?;
        let _in_use = Raised::new(&store.measures.in_use);
        let trusted = timeout_at(deadline, store.trust_schema(&mut connection)).await;
        if let Err(error) = trusted.unwrap_or_else(|_| Err(timed_out())) {
            connection.close_on_drop();
            return Err(error);
        }
        Ok(Self { connection, lost: store.lost.clone(), deadline, sound: false, _in_use })
    }

    fn end<T>(mut self, result: Result<T, Failure>) -> Stored<T> {
        self.sound = !matches!(&result, Err(Failure::Sql(error)) if errors::ends_connection(error));
        result.map_err(errors::undone)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.sound {
            self.lost.note();
            self.connection.close_on_drop();
        }
    }
}

fn timed_out() -> StoreError {
    StoreError::Unknown {
        store: STORE,
        cause: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
    }
}

/// How a transaction failed.
enum Attempt {
    /// Rolled back; the connection can be used again.
    Undone(Failure),
    /// The rollback failed too: the server rolls back once it notices that the connection is gone.
    Torn(Failure),
    /// The outcome is not known.
    AtCommit(sqlx::Error),
}

async fn attempt_once<W: Work>(
    connection: &mut MySqlConnection,
    work: &W,
) -> Result<W::Output, Attempt> {
    let mut transaction =
        connection.begin().await.map_err(|error| Attempt::Torn(Failure::Sql(error)))?;
    match work.run(&mut transaction).await {
        Ok(output) => transaction.commit().await.map(|()| output).map_err(Attempt::AtCommit),
        Err(failure) => Err(match transaction.rollback().await {
            Ok(()) => Attempt::Undone(failure),
            Err(_) => Attempt::Torn(failure),
        }),
    }
}

impl Transaction for MySqlTransaction<'_> {
    const DIALECT: Dialect = Dialect::MySql;

    async fn fetch<T: FromRow>(&mut self, statement: &Statement) -> Result<Vec<T>, Failure> {
        fetch(self, statement).await
    }

    async fn execute(&mut self, statement: &Statement) -> Result<u64, Failure> {
        Ok(query(statement).execute(&mut **self).await?.rows_affected())
    }
}

async fn fetch<T: FromRow>(
    connection: &mut MySqlConnection,
    statement: &Statement,
) -> Result<Vec<T>, Failure> {
    let rows = query(statement).fetch_all(connection).await?;
    rows.iter().map(|row| T::from_row(row)).collect()
}

fn query(statement: &Statement) -> Query<'static, sqlx::MySql, MySqlArguments> {
    let query =
        sqlx::query(AssertSqlSafe(statement.text().to_owned())).persistent(statement.is_reusable());
    statement.values().iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Null => query.bind(None::<i64>),
    })
}

impl Row for MySqlRow {
    fn text(&self, column: &'static str) -> Result<String, Failure> {
        Ok(self.try_get(column)?)
    }

    fn text_or_null(&self, column: &'static str) -> Result<Option<String>, Failure> {
        Ok(self.try_get(column)?)
    }

    fn int(&self, column: &'static str) -> Result<i64, Failure> {
        Ok(self.try_get(column)?)
    }

    fn int_or_null(&self, column: &'static str) -> Result<Option<i64>, Failure> {
        Ok(self.try_get(column)?)
    }

    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, Failure> {
        Ok(self.try_get(column)?)
    }
}
