//! How the embedded store runs the ledger's statements and transactions, which are in
//! `adapters/sql`.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, Row as _, Sqlite as Db, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use tokio::time::timeout;

use super::{STORE, Sqlite, stored};
use crate::{
    adapters::sql::{self, Dialect, Failure, FromRow, Row, Statement, Store, Value, Work},
    ports::{Health, StoreError, Stored},
};

/// Longest time of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

impl Store for Sqlite {
    const DIALECT: Dialect = Dialect::Sqlite;

    async fn fetch<T: FromRow>(&self, statement: Statement) -> Stored<Vec<T>> {
        let rows = timeout(READ_TIMEOUT, query(&statement).fetch_all(self.readers()))
            .await
            .map_err(|_| StoreError::Unavailable {
                store: STORE,
                cause: format!("no answer within {} s", READ_TIMEOUT.as_secs()),
            })?
            .map_err(stored)?;
        rows.iter().map(|row| T::from_row(row)).collect::<Result<_, _>>().map_err(undone)
    }

    async fn transact<W: Work>(&self, work: W) -> Stored<W::Output> {
        self.write(move |connection| {
            Box::pin(async move { work.run(&mut Transaction(connection)).await.map_err(undone) })
        })
        .await
    }
}

#[async_trait]
impl Health for Sqlite {
    fn name(&self) -> &'static str {
        "database"
    }

    /// Also checks that the writer answers, without changing anything.
    async fn check(&self) -> Stored<()> {
        sql::answers(self).await?;
        self.write(|_| Box::pin(async { Ok(()) })).await
    }
}

fn undone(failure: Failure) -> StoreError {
    match failure {
        Failure::Sql(error) => stored(error),
        Failure::Corrupt(cause) => StoreError::Corrupt { store: STORE, cause },
    }
}

/// This work's part of the writer's transaction.
struct Transaction<'c>(&'c mut SqliteConnection);

impl sql::Transaction for Transaction<'_> {
    const DIALECT: Dialect = Dialect::Sqlite;

    async fn fetch<T: FromRow>(&mut self, statement: &Statement) -> Result<Vec<T>, Failure> {
        let rows = query(statement).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| T::from_row(row)).collect()
    }

    async fn execute(&mut self, statement: &Statement) -> Result<u64, Failure> {
        Ok(query(statement).execute(&mut *self.0).await?.rows_affected())
    }
}

fn query(statement: &Statement) -> Query<'static, Db, SqliteArguments> {
    let query =
        sqlx::query(AssertSqlSafe(statement.text().to_owned())).persistent(statement.is_reusable());
    statement.values().iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text.clone()),
        Value::Int(number) => query.bind(*number),
        Value::Bytes(bytes) => query.bind(bytes.clone()),
        Value::Null => query.bind(None::<i64>),
    })
}

impl Row for SqliteRow {
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
