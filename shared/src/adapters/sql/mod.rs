//! The ledger in SQL, written once for every database that can run it.
//!
//! `SQLite` and `MySQL` differ in how they connect, begin and commit, and in a few words of their
//! dialect. Each implements [`Store`] for that; every implementation gets the ledger's ports
//! (`Users`, `SessionLedger`, `BanLedger`, `Sales`, `OrderLedger`, `DrawLedger`, `AdminLedger`,
//! `SigningKeys`) from here.
//!
//! These rules keep the books right under concurrency:
//! - A change of how many units are held is one transaction, which locks the sales' rows first, in
//!   id order, so that two of them can't deadlock.
//! - Decisions use rows that the transaction has locked, or the condition of a single `UPDATE`. A
//!   plain read only finds out what to lock.
//! - Rows are locked through the primary key or the slot's key, never by a scan, which would lock
//!   other rows too.

mod actions;
mod admin;
mod bans;
mod challenge_level;
mod draws;
mod keys;
mod locking;
mod orders;
mod recording;
mod rows;
mod sales;
pub(super) mod schema;
mod sessions;
mod statement;
mod transitions;
mod users;

use std::future::Future;

pub(super) use rows::{FromRow, Row};
pub(super) use statement::{Statement, Value};

use crate::ports::Stored;

/// Values in one `IN` list, and rows in one `INSERT`: well below the databases' limits per
/// statement, and a power of two, because lists are padded to one.
const CHUNK: usize = 512;

/// Sorts before every id.
const BEFORE_ALL_IDS: &str = "";
/// Sorts after every id.
const AFTER_ALL_IDS: &str = "~";

/// The differences between the databases' SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// MySQL 8.0 and MariaDB 10.6 or newer.
    MySql,
    /// The bundled SQLite, whose only writer has the whole file to itself.
    Sqlite,
}

impl Dialect {
    /// At the end of a `SELECT`: keeps the rows locked until the transaction ends.
    const fn for_update(self) -> &'static str {
        match self {
            Self::MySql => " FOR UPDATE",
            Self::Sqlite => "",
        }
    }

    /// After a table's name: forces that index (`PRIMARY`: the primary key), whatever the
    /// statistics of a young table suggest.
    fn through(self, index: &str) -> String {
        match self {
            Self::MySql => format!(" FORCE INDEX ({index})"),
            Self::Sqlite => String::new(),
        }
    }

    /// As [`Dialect::through`], for SQLite too: with a condition on the status it would use the
    /// index of that, visit every order with the status, and sort them.
    fn always_through(self, index: &str) -> String {
        match self {
            Self::Sqlite if index != "PRIMARY" => format!(" INDEXED BY {index}"),
            dialect => dialect.through(index),
        }
    }

    /// At the end of an `INSERT`: skips rows that would violate a unique key, and only those.
    /// `column` is any column of the table. (`INSERT IGNORE` would also hide violations of the
    /// other constraints.)
    fn skip_duplicates(self, column: &str) -> String {
        match self {
            Self::MySql => format!(" ON DUPLICATE KEY UPDATE {column} = {column}"),
            Self::Sqlite => " ON CONFLICT DO NOTHING".to_owned(),
        }
    }
}

/// A failure inside a transaction, before it is decided what it means to the caller.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error of the library or the database.
    Sql(sqlx::Error),
    /// A value that was read or is to be stored is invalid.
    Corrupt(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// A running transaction.
pub(super) trait Transaction: Send {
    /// Its SQL dialect.
    const DIALECT: Dialect;

    /// Runs a query.
    fn fetch<T: FromRow>(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<Vec<T>, Failure>> + Send;

    /// Runs a change. Returns how many rows met its condition.
    fn execute(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// The work of one transaction. It may run again when the database aborts the transaction (a
/// deadlock).
pub(super) trait Work: Send + Sync + 'static {
    /// The work's result.
    type Output: Send + 'static;

    /// Runs the work; an error rolls all of it back.
    fn run<S: Transaction>(
        &self,
        transaction: &mut S,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// A database that can hold the ledger.
pub(super) trait Store: Send + Sync {
    /// Its SQL dialect.
    const DIALECT: Dialect;

    /// Runs one query on committed data.
    fn fetch<T: FromRow>(
        &self,
        statement: Statement,
    ) -> impl Future<Output = Stored<Vec<T>>> + Send;

    /// Runs work in a transaction. Everything is durable when this returns `Ok`.
    fn transact<W: Work>(&self, work: W) -> impl Future<Output = Stored<W::Output>> + Send;
}

/// Whether the database answers and has the schema.
pub(super) async fn answers<S: Store>(store: &S) -> Stored<()> {
    struct Anything;
    impl FromRow for Anything {
        fn from_row(_: &impl Row) -> Result<Self, Failure> {
            Ok(Self)
        }
    }
    store.fetch::<Anything>(Statement::new("SELECT order_id FROM orders LIMIT 1")).await.map(drop)
}
