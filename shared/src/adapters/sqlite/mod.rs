//! The embedded store: one SQLite file, opened by one process.
//!
//! All writes go through one writer with group commit ([`writer`]): work that arrives while a
//! transaction is being synced shares the next one. Reads use a small pool of their own and see
//! committed data only (WAL).

mod dead_letters;
mod ledger;
mod queue;
mod writer;

use std::{
    fs::File,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool,
    migrate::{Migrate as _, MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use super::sql::schema;
use crate::{
    domain::schema::{Migrated, Schema, SchemaError},
    ports::{StoreError, Stored},
    private_files::{self, Loose, PrivateError},
};
use queue::Queue;
use writer::Writer;

const STORE: &str = "SQLite";

static MIGRATOR: LazyLock<Migrator> =
    LazyLock::new(|| schema::migrator(include!(concat!(env!("OUT_DIR"), "/sqlite_migrations.rs"))));

/// The file's name inside the data directory.
const FILE: &str = "flashsale.sqlite";
/// How long a data directory may stay locked before it counts as in use: a store that was just
/// dropped may still be closing.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// The embedded store. Cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    readers: SqlitePool,
    writer: Writer,
    queue: Queue,
}

/// The data directory can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error(
        "data directory {0} is in use by another process: stop that one, or give another --data-dir"
    )]
    InUse(String),
    /// Other users may read it.
    #[error("data directory: {0}")]
    NotPrivate(PrivateError),
    /// An error of the file system.
    #[error("data directory {0} can't be used: {hint}", hint = directory_hint(.1))]
    Directory(String, std::io::Error),
    /// An error of SQLite.
    #[error("database {FILE} in {0} can't be opened: {hint}", hint = database_hint(.1))]
    Database(String, sqlx::Error),
    /// The schema can't be migrated.
    #[error("database {FILE} in {0} can't be brought up to date: {hint}", hint = migration_hint(.1))]
    Migration(String, MigrateError),
    /// This release must not work on this schema.
    #[error("database {FILE} in {0}: {1}")]
    Schema(String, SchemaError),
}

fn directory_hint(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "it is, or lies below, a file that is no directory".to_owned()
        }
        ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

fn database_hint(error: &sqlx::Error) -> String {
    match primary_code(error) {
        Some(code::NOT_A_DATABASE) => {
            "it is no SQLite database; move it away, or give another --data-dir".to_owned()
        }
        Some(code::CORRUPT) => {
            "it is damaged; restore a copy, or give another --data-dir".to_owned()
        }
        Some(code::CANNOT_OPEN | code::READ_ONLY | code::NO_PERMISSION) => {
            "this user may not read and write it".to_owned()
        }
        Some(code::FULL) => "the disk is full".to_owned(),
        Some(code::BUSY) => "another program has it locked".to_owned(),
        _ => error.to_string(),
    }
}

fn migration_hint(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            database_hint(error)
        }
        other => other.to_string(),
    }
}

impl Sqlite {
    /// Opens the store in `data_dir`, creating both where missing, and brings its schema up to
    /// date. Must be called inside a Tokio runtime.
    ///
    /// Only this user may read the directory. `loose` says what to do if others could.
    ///
    /// The directory stays locked until the last clone is dropped and pending writes are on disk.
    ///
    /// # Errors
    /// When another process has it open, or it can't be read or written.
    pub async fn open(data_dir: &Path, loose: Loose) -> Result<Self, OpenError> {
        let opened = Opened::open(data_dir, loose).await?;
        let Opened { mut writer, lock, shown, .. } = opened;
        let queue =
            Queue::load(&mut writer).await.map_err(|error| OpenError::Database(shown, error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options(&data_dir.join(FILE)).pragma("query_only", "ON"));
        Ok(Self { inner: Arc::new(Inner { readers, writer: Writer::spawn(writer, lock), queue }) })
    }

    /// Brings the schema of the store in `data_dir` up to date, as [`Self::open`] does, and reports
    /// which migrations ran.
    ///
    /// # Errors
    /// When another process has it open, or it can't be read or written.
    pub async fn migrate(data_dir: &Path, loose: Loose) -> Result<Migrated, OpenError> {
        let Opened { writer, migrated, shown, lock } = Opened::open(data_dir, loose).await?;
        writer.close().await.map_err(|error| OpenError::Database(shown, error))?;
        drop(lock);
        Ok(migrated)
    }

    /// How this release and the schema of the store in `data_dir` compare. Changes nothing, and
    /// needs no lock.
    ///
    /// # Errors
    /// When it can't be read, or this release must not work on it.
    pub async fn schema(data_dir: &Path) -> Result<Schema, OpenError> {
        let shown = data_dir.display().to_string();
        let file = data_dir.join(FILE);
        let standing = match file.try_exists() {
            Err(error) => return Err(OpenError::Directory(shown, error)),
            Ok(false) => schema::compared(&MIGRATOR, Vec::new()),
            Ok(true) => {
                let failed = |error| OpenError::Database(shown.clone(), error);
                let mut reader = SqliteConnectOptions::new()
                    .filename(file)
                    .read_only(true)
                    .connect()
                    .await
                    .map_err(failed)?;
                let rows = noted(&mut reader).await.map_err(failed)?;
                reader.close().await.map_err(failed)?;
                schema::compared(&MIGRATOR, rows)
            }
        };
        standing.map_err(|error| OpenError::Schema(shown, error))
    }

    /// The pool for reading committed data.
    fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// The order queue's state in memory.
    fn queue(&self) -> &Queue {
        &self.inner.queue
    }

    /// Runs `work` in the writer's next transaction and returns after that is synced. When `work`
    /// fails, only its own changes are rolled back.
    async fn write<T, F>(&self, work: F) -> Stored<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Stored<T>> + Send + 'static,
    {
        self.inner.writer.run(work).await
    }
}

/// The options of every connection to the store's file.
fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL syncs the log at every commit, so committed data survives a power failure.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        // sqlx's log would write a line of many kilobytes for each batch.
        .disable_statement_logging()
}

/// The store's file, locked for this process and up to date.
struct Opened {
    writer: SqliteConnection,
    migrated: Migrated,
    shown: String,
    lock: File,
}

impl Opened {
    async fn open(data_dir: &Path, loose: Loose) -> Result<Self, OpenError> {
        let shown = data_dir.display().to_string();
        let lock = lock(data_dir, &shown, loose).await?;
        // SQLite gives the files beside the database the same permissions as the database.
        let refused = |error| not_private(&shown, error);
        drop(private_files::file(&data_dir.join(FILE), loose).map_err(refused)?);
        for beside in ["-wal", "-shm"] {
            private_files::file_if_any(&data_dir.join(format!("{FILE}{beside}")), loose)
                .map_err(refused)?;
        }
        let failed = |error| OpenError::Database(shown.clone(), error);
        // Enough for the indexes of a busy sale. The memory is used only when there is that much to
        // cache.
        let options =
            options(&data_dir.join(FILE)).create_if_missing(true).pragma("cache_size", "-16000");
        let mut writer = options.connect().await.map_err(failed)?;
        let migrated = migrate(&mut writer, &shown).await?;
        Ok(Self { writer, migrated, shown, lock })
    }
}

/// Brings the schema up to date. Each migration is one transaction.
async fn migrate(writer: &mut SqliteConnection, shown: &str) -> Result<Migrated, OpenError> {
    let database = |error| OpenError::Database(shown.to_owned(), error);
    let refused = |error| OpenError::Schema(shown.to_owned(), error);
    let failed = |error| OpenError::Migration(shown.to_owned(), error);
    let rows = noted(writer).await.map_err(database)?;
    let standing = schema::compared(&MIGRATOR, rows).map_err(refused)?;
    let mut run = Vec::new();
    if standing.pending.is_empty() {
        return Ok(Migrated { run, schema: standing });
    }
    writer.ensure_migrations_table(schema::TABLE).await.map_err(failed)?;
    for migration in schema::pending(&MIGRATOR, &standing) {
        let took = writer.apply(schema::TABLE, migration).await.map_err(failed)?;
        run.push((schema::named(migration), took));
    }
    let rows = noted(writer).await.map_err(database)?;
    Ok(Migrated { run, schema: schema::compared(&MIGRATOR, rows).map_err(refused)? })
}

/// The migrations recorded in the store.
async fn noted(connection: &mut SqliteConnection) -> Result<Vec<schema::Row>, sqlx::Error> {
    let is_there = sqlx::query_scalar::<_, i64>(
        "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?",
    );
    if is_there.bind(schema::TABLE).fetch_one(&mut *connection).await? == 0 {
        return Ok(Vec::new());
    }
    sqlx::query_as(schema::SELECT).fetch_all(connection).await
}

/// Locks the data directory for this process.
async fn lock(data_dir: &Path, shown: &str, loose: Loose) -> Result<File, OpenError> {
    let refused = |error| not_private(shown, error);
    private_files::directory(data_dir, loose).map_err(refused)?;
    let lock = private_files::file(&data_dir.join("lock"), loose).map_err(refused)?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(OpenError::Directory(shown.to_owned(), error));
            }
            Err(std::fs::TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                sleep(Duration::from_millis(10)).await
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(OpenError::InUse(shown.to_owned()));
            }
        }
    }
}

fn not_private(shown: &str, error: PrivateError) -> OpenError {
    match error {
        PrivateError::Io(error) => OpenError::Directory(shown.to_owned(), error),
        other => OpenError::NotPrivate(other),
    }
}

/// The SQLite primary result codes that are handled separately.
mod code {
    pub(super) const NO_PERMISSION: u32 = 3;
    pub(super) const BUSY: u32 = 5;
    pub(super) const READ_ONLY: u32 = 8;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANNOT_OPEN: u32 = 14;
    pub(super) const TOO_BIG: u32 = 18;
    pub(super) const CONSTRAINT: u32 = 19;
    pub(super) const MISMATCH: u32 = 20;
    pub(super) const NOT_A_DATABASE: u32 = 26;
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let extended: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// What SQLite's errors mean to a caller: nothing was committed, so each is `Unavailable` unless
/// the data is bad.
fn stored(error: sqlx::Error) -> StoreError {
    let is_corrupt = match primary_code(&error) {
        Some(primary) => {
            matches!(
                primary,
                code::CONSTRAINT
                    | code::MISMATCH
                    | code::TOO_BIG
                    | code::CORRUPT
                    | code::NOT_A_DATABASE
            )
        }
        None => matches!(
            error,
            sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::Encode(_)
        ),
    };
    let cause = error.to_string();
    if is_corrupt {
        StoreError::Corrupt { store: STORE, cause }
    } else {
        StoreError::Unavailable { store: STORE, cause }
    }
}
