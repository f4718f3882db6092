//! Brings the schema up to date, or reports its state.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Executor as _, MySqlConnection,
    migrate::{Migrate as _, MigrateError, Migration, Migrator},
    pool::PoolConnection,
};
use tokio::time::{sleep, timeout};

use super::{ACQUIRE_TIMEOUT, MySql, STORE, errors};
use crate::{
    adapters::sql::schema,
    domain::schema::{Migrated, Schema, SchemaError, release},
    ports::StoreError,
};

static MIGRATOR: LazyLock<Migrator> =
    LazyLock::new(|| schema::migrator(include!(concat!(env!("OUT_DIR"), "/mysql_migrations.rs"))));

/// Longest wait for another instance that is migrating the schema.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);
/// Longest wait of a statement for a table that transactions use. Later requests for the table
/// queue behind it.
const TABLE_WAIT_SECONDS: u32 = 1;
/// How many times in all a statement that did not get its table is tried, ...
const ATTEMPTS_MAX: u32 = 15;
/// ... and the pause between attempts, in which requests are served.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// The name of the lock that one migrating instance holds. It contains the database's name, because
/// locks belong to the whole server.
const LOCK: &str = "CONCAT('flashsale-migrate-', LEFT(SHA2(DATABASE(), 256), 32))";

/// The schema can't be migrated, or can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MySqlMigrationError {
    /// The server could not be reached, or refused.
    #[error(transparent)]
    Store(StoreError),
    /// Another instance has been migrating for too long.
    #[error("another instance has been changing the database's schema for over {} s", MIGRATION_WAIT.as_secs())]
    Locked,
    /// Another instance is migrating now.
    #[error("another instance is changing the database's schema at this moment")]
    Changing,
    /// This release must not work on this schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A statement was refused and had no effect.
    #[error("migration {0} was refused: {1}")]
    Refused(i64, StoreError),
}

impl MySqlMigrationError {
    fn store(error: &sqlx::Error) -> Self {
        Self::Store(errors::before_commit(error))
    }
}

impl MySql {
    /// Brings the schema up to date. Several instances may call this at once: one migrates, the
    /// others wait.
    ///
    /// # Errors
    /// When the server can't be reached, its schema can't be changed, or this release must not work
    /// on it.
    pub async fn migrate(&self) -> Result<Migrated, MySqlMigrationError> {
        let mut connection = self.migrating_connection().await?;
        let schema = standing(&mut connection).await?;
        let mut run = Vec::new();
        if schema.pending.is_empty() {
            return Ok(Migrated { run, schema });
        }
        connection
            .ensure_migrations_table(schema::TABLE)
            .await
            .map_err(|error| failed(error, 0))?;
        let wait = format!("SET SESSION lock_wait_timeout = {TABLE_WAIT_SECONDS}");
        connection
            .execute(sqlx::AssertSqlSafe(wait))
            .await
            .map_err(|error| MySqlMigrationError::store(&error))?;
        for migration in schema::pending(&MIGRATOR, &schema) {
            let named = schema::named(migration);
            tracing::info!(migration = %named, "changing the database's schema");
            let begun = Instant::now();
            apply(&mut connection, migration).await?;
            run.push((named, begun.elapsed()));
        }
        Ok(Migrated { run, schema: standing(&mut connection).await? })
    }

    /// The same ledger for a program that must not migrate. Calls fail with
    /// [`StoreError::Unavailable`] and the reason until the schema is up to date.
    #[must_use]
    pub fn on_current_schema_only(self) -> Self {
        Self { schema_trusted: Arc::new(AtomicBool::new(false)), ..self }
    }

    /// Must run before a call uses the connection. Free of cost once the schema was found up to
    /// date.
    pub(super) async fn trust_schema(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<(), StoreError> {
        if self.schema_trusted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refused = |cause: String| StoreError::Unavailable { store: STORE, cause };
        match standing_still(connection).await {
            Ok(schema) if schema.pending.is_empty() => {
                self.schema_trusted.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(schema) => Err(refused(format!(
                "its schema is not up to date for release {}, {} migrations are pending: run `local-emulator migrate`",
                release(),
                schema.pending.len()
            ))),
            Err(MySqlMigrationError::Store(error)) => Err(error),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// How this release and the schema compare. Changes nothing.
    ///
    /// # Errors
    /// When the server can't be reached, or this release must not work on that schema.
    pub async fn schema(&self) -> Result<Schema, MySqlMigrationError> {
        let mut connection =
            self.pool.acquire().await.map_err(|error| MySqlMigrationError::store(&error))?;
        standing_still(&mut connection).await
    }

    /// A connection that holds the lock until it is dropped.
    async fn migrating_connection(
        &self,
    ) -> Result<PoolConnection<sqlx::MySql>, MySqlMigrationError> {
        let mut connection =
            self.pool.acquire().await.map_err(|error| MySqlMigrationError::store(&error))?;
        // Closing the connection releases the lock, however this call ends.
        connection.close_on_drop();
        // The migrator's own lock waits for -1 seconds, which MariaDB refuses; the migrator ignores
        // the refusal.
        let lock = format!("SELECT GET_LOCK({LOCK}, ?)");
        let lock = sqlx::query_scalar(sqlx::AssertSqlSafe(lock))
            .bind(MIGRATION_WAIT.as_secs())
            .fetch_one(&mut *connection);
        // The server should give up after that time; the timeout covers a server that does not
        // answer.
        let Ok(locked) = timeout(MIGRATION_WAIT + ACQUIRE_TIMEOUT, lock).await else {
            return Err(MySqlMigrationError::Locked);
        };
        let locked: Option<i64> = locked.map_err(|error| MySqlMigrationError::store(&error))?;
        if locked == Some(1) { Ok(connection) } else { Err(MySqlMigrationError::Locked) }
    }
}

/// Like [`standing`], but a migration that another instance is running now does not count as
/// interrupted.
async fn standing_still(connection: &mut MySqlConnection) -> Result<Schema, MySqlMigrationError> {
    let standing = standing(connection).await;
    if matches!(standing, Err(MySqlMigrationError::Schema(SchemaError::Interrupted(_)))) {
        let used = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT IS_USED_LOCK({LOCK}) IS NOT NULL"
        )));
        if used.fetch_one(connection).await.map_err(|error| MySqlMigrationError::store(&error))? {
            return Err(MySqlMigrationError::Changing);
        }
    }
    standing
}

async fn standing(connection: &mut MySqlConnection) -> Result<Schema, MySqlMigrationError> {
    let is_there = sqlx::query_scalar::<_, i64>(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
    );
    let is_there = is_there
        .bind(schema::TABLE)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| MySqlMigrationError::store(&error))?;
    let rows = if is_there == 0 {
        Vec::new()
    } else {
        sqlx::query_as(schema::SELECT)
            .fetch_all(connection)
            .await
            .map_err(|error| MySqlMigrationError::store(&error))?
    };
    Ok(schema::compared(&MIGRATOR, rows)?)
}

/// Runs one migration. A statement that needs a table for itself waits only briefly and is tried
/// again, because every request for the table queues behind it.
async fn apply(
    connection: &mut MySqlConnection,
    migration: &Migration,
) -> Result<(), MySqlMigrationError> {
    let mut attempt = 1;
    loop {
        let error = match connection.apply(schema::TABLE, migration).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if let MigrateError::ExecuteMigration(refused, _) = &error
            && refused.as_database_error().is_some()
        {
            // The server refused the file's only statement and rolled it back. But it had already
            // committed the row that the library writes first, as it commits before each change of
            // the schema.
            sqlx::query("DELETE FROM _sqlx_migrations WHERE version = ? AND success = FALSE")
                .bind(migration.version)
                .execute(&mut *connection)
                .await
                .map_err(|error| MySqlMigrationError::store(&error))?;
            if errors::is_lock_timeout(refused) && attempt < ATTEMPTS_MAX {
                attempt += 1;
                sleep(ATTEMPT_PAUSE).await;
                continue;
            }
        }
        return Err(failed(error, migration.version));
    }
}

fn failed(error: MigrateError, number: i64) -> MySqlMigrationError {
    match error {
        MigrateError::Execute(error) => MySqlMigrationError::store(&error),
        MigrateError::ExecuteMigration(error, number) => {
            MySqlMigrationError::Refused(number, errors::before_commit(&error))
        }
        other => MySqlMigrationError::Refused(
            number,
            StoreError::Unavailable { store: STORE, cause: other.to_string() },
        ),
    }
}
