//! The ledger on MySQL 8.0 or MariaDB 10.6, or newer ones of either.
//!
//! `adapters/sql` has the statements and the rules of the data. This module has how the server is
//! reached, how long a call may take, which failures are retried, and what the server's errors
//! mean.

mod errors;
mod measures;
mod migrations;
mod store;

use std::{
    str::FromStr as _,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
pub use migrations::MySqlMigrationError;
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};
use tokio::time::{Instant, timeout};

use measures::Measures;

use super::sql::{self, Failure, FromRow, Row, Statement, Store as _};
use crate::{
    domain::Timestamp,
    ports::{Health, LedgerClock, StoreError, Stored},
};

const STORE: &str = "MySQL";

const CONNECTIONS_MAX: u32 = 10;
/// For [`MySql::with_own_connections`]: the worker's batch and the concurrent calls of one sweep.
const OWN_CONNECTIONS_MAX: u32 = 5;
/// Longest wait for a connection, new or from the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time of one call, including waits and retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a row that another transaction has locked; then the transaction is rolled back
/// and retried.
const LOCK_WAIT_SECONDS: u32 = 1;
/// A connection that was used less than this long ago is taken without a ping, ...
const PING_AFTER: Duration = Duration::from_secs(1);
/// ... unless another connection was lost less than this long ago.
const SUSPICION: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// The ledger on a MySQL or MariaDB server. Cheap to clone.
#[derive(Clone)]
pub struct MySql {
    pool: MySqlPool,
    lost: Lost,
    measures: Arc<Measures>,
    /// Whether calls may proceed without checking the schema.
    schema_trusted: Arc<AtomicBool>,
}

/// When a connection was last lost.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<Option<Instant>>>);

impl Lost {
    fn note(&self) {
        *self.0.lock().expect("nothing panics while it is locked") = Some(Instant::now());
    }

    fn lately(&self) -> bool {
        self.0
            .lock()
            .expect("nothing panics while it is locked")
            .is_some_and(|lost| lost.elapsed() < SUSPICION)
    }
}

/// The address is invalid. The message never shows it, because it holds the password.
#[derive(Debug, thiserror::Error)]
#[error("database-url: {0}")]
pub struct MySqlUrlError(&'static str);

impl MySql {
    /// Prepares a pool of connections to `mysql://user:password@host[:port]/database`. No
    /// connection is made before the first call, and lost ones are replaced. The parameter
    /// `ssl-mode` is `PREFERRED` unless given. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When the address can't be parsed.
    pub fn new(url: &str) -> Result<Self, MySqlUrlError> {
        const EXPECTED: MySqlUrlError =
            MySqlUrlError("expected mysql://user[:password]@host[:port]/database");
        if !url.starts_with("mysql://") {
            return Err(EXPECTED);
        }
        // The library's message may repeat the address.
        let options = MySqlConnectOptions::from_str(url).map_err(|_| EXPECTED)?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(MySqlUrlError(
                "names no database: expected mysql://user[:password]@host[:port]/database",
            ));
        }
        let options = options
            .charset("utf8mb4")
            .timezone(Some("+00:00".to_owned()))
            // `prepare` sets it as a whole.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            // sqlx's log would write a line of many kilobytes for each batch.
            .disable_statement_logging();
        let lost = Lost::default();
        let measures = Arc::new(Measures::new("requests", CONNECTIONS_MAX));
        Ok(Self {
            pool: pool(options, CONNECTIONS_MAX, &lost),
            lost,
            measures,
            schema_trusted: Arc::new(AtomicBool::new(true)),
        })
    }

    /// The same ledger with connections of its own: its callers do not wait for the others' work.
    #[must_use]
    pub fn with_own_connections(&self) -> Self {
        let options = (*self.pool.connect_options()).clone();
        let measures = Arc::new(Measures::new("background", OWN_CONNECTIONS_MAX));
        Self {
            pool: pool(options, OWN_CONNECTIONS_MAX, &self.lost),
            lost: self.lost.clone(),
            measures,
            schema_trusted: Arc::clone(&self.schema_trusted),
        }
    }
}

fn pool(options: MySqlConnectOptions, connections_max: u32, lost: &Lost) -> MySqlPool {
    let suspicion = lost.clone();
    MySqlPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let trusted = meta.idle_for < PING_AFTER && !suspicion.lately();
            Box::pin(async move {
                // After a network failure or in a sandbox that was frozen, an unbounded ping would
                // use up the whole time limit for getting a connection.
                Ok(trusted || matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(()))))
            })
        })
        .after_connect(|connection, _| {
            measures::connected();
            Box::pin(prepare(connection))
        })
        .connect_lazy_with(options)
}

/// Sets the session variables that every connection relies on.
async fn prepare(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    // Strict mode: a value that does not fit is refused, not truncated. Read committed: a locking
    // read sees what is committed, and locks rows, not the gaps between them.
    let modes = format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
         SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}"
    );
    connection.execute(sqlx::AssertSqlSafe(modes)).await?;
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.map(drop)
}

#[async_trait]
impl Health for MySql {
    fn name(&self) -> &'static str {
        "database"
    }

    /// Also fails while the schema is missing.
    async fn check(&self) -> Stored<()> {
        sql::answers(self).await
    }
}

#[async_trait]
impl LedgerClock for MySql {
    async fn ask(&self) -> Stored<Timestamp> {
        struct Now(Timestamp);
        impl FromRow for Now {
            fn from_row(row: &impl Row) -> Result<Self, Failure> {
                row.time("now_ms").map(Self)
            }
        }
        // This function does not depend on the session's time zone.
        let select = Statement::new(
            "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 AS now_ms",
        );
        let row = self.fetch::<Now>(select).await?.pop();
        row.map(|Now(now)| now).ok_or_else(|| StoreError::Corrupt {
            store: STORE,
            cause: "it does not tell the time".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_and_never_shown() {
        for url in [
            "postgres://u:hunter2@localhost/d",
            "mysql://u:hunter2@localhost",
            "mysql://u:hunter2@localhost/",
            "mysql://u:hunter2@local host/d",
            "mysql://u:hunter2@localhost:port/d",
            "mysql://u:hunter2@localhost/d?ssl-mode=hunter2",
            "",
        ] {
            let error = MySql::new(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with("database-url: ") && !shown.contains("hunter2"), "{shown}");
        }
        assert!(MySql::new("mysql://u:p%40ss@localhost:3307/d?ssl-mode=DISABLED").is_ok());
    }
}
