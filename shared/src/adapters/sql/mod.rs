//! The ledger in SQL, written once for every database that can run it.
//!
//! `SQLite` and `MySQL` differ in how they connect, begin and commit, and in a few words of their dialect. They say so by
//! implementing [`Store`]; whatever does gets the ledger's ports (`Users`, `SessionLedger`, `BanLedger`, `Sales`, `OrderLedger`,
//! `SigningKeys`) from here.
//!
//! The rules that keep the books right under concurrency:
//! - What changes how many units are held is one transaction that locks the sales' rows first, in id order, so that two
//!   of them can't wait for each other in a circle.
//! - Decisions are taken from rows that the transaction has locked, or by the condition of the one `UPDATE`. A plain
//!   read only finds out what to lock.
//! - Rows are locked through the primary key or the slot's key, never by a scan that would lock rows of others.

mod bans;
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

/// Values in one `IN` list, and rows in one `INSERT`: well below what the databases take in one statement, and a power
/// of two, as lists are padded to.
const CHUNK: usize = 512;

/// Sorts before every id.
const BEFORE_ALL_IDS: &str = "";
/// Sorts after every id.
const AFTER_ALL_IDS: &str = "~";

/// Where the databases' SQL differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// MySQL 8.0 and MariaDB 10.6 or newer.
    MySql,
    /// The bundled SQLite, whose only writer has the whole file to itself.
    Sqlite,
}

impl Dialect {
    /// At the end of a `SELECT`: keeps the rows it read locked until the transaction ends.
    const fn for_update(self) -> &'static str {
        match self {
            Self::MySql => " FOR UPDATE",
            Self::Sqlite => "",
        }
    }

    /// After a table's name: goes through that index (`PRIMARY`: the primary key), whatever the statistics of a young
    /// table say.
    fn through(self, index: &str) -> String {
        match self {
            Self::MySql => format!(" FORCE INDEX ({index})"),
            Self::Sqlite => String::new(),
        }
    }

    /// At the end of an `INSERT`: leaves out rows that would break a unique key, and only those. `column` is any of
    /// the table. (`INSERT IGNORE` would also swallow what the other constraints refuse.)
    fn skip_duplicates(self, column: &str) -> String {
        match self {
            Self::MySql => format!(" ON DUPLICATE KEY UPDATE {column} = {column}"),
            Self::Sqlite => " ON CONFLICT DO NOTHING".to_owned(),
        }
    }
}

/// What went wrong inside a transaction, before anyone has decided what it means to the caller.
#[derive(Debug)]
pub(super) enum Failure {
    /// The library or the database.
    Sql(sqlx::Error),
    /// What was read, or should be stored, can't be.
    Corrupt(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// A running transaction.
pub(super) trait Transaction: Send {
    /// Which SQL it takes.
    const DIALECT: Dialect;

    /// Runs a query.
    fn fetch<T: FromRow>(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<Vec<T>, Failure>> + Send;

    /// Runs a change; returns how many rows met its condition.
    fn execute(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// What is done in one transaction. It may be run again when the database gives up on it (a deadlock).
pub(super) trait Work: Send + Sync + 'static {
    /// What comes out of it.
    type Output: Send + 'static;

    /// Does it; an error undoes all of it.
    fn run<S: Transaction>(
        &self,
        transaction: &mut S,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// A database that can hold the ledger.
pub(super) trait Store: Send + Sync {
    /// Which SQL it takes.
    const DIALECT: Dialect;

    /// Runs one query on committed data.
    fn fetch<T: FromRow>(
        &self,
        statement: Statement,
    ) -> impl Future<Output = Stored<Vec<T>>> + Send;

    /// Runs work in a transaction: all of it is durable when this returns `Ok`.
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
