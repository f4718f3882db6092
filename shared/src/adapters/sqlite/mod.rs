//! The embedded store: one SQLite file, opened by one process.
//!
//! Writes go through one writer with group commit ([`writer`]): whatever waits while a transaction is being synced
//! goes into the next one together. Reads use a small pool of their own and see committed data only (WAL).

mod admission;
mod journal;
mod ledger;
mod queue;
mod writer;

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::ports::{StoreError, Stored};
use queue::Queue;
use writer::Writer;

/// The name of the file inside the data directory.
const FILE: &str = "flashsale.sqlite";

/// The embedded store. Cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    readers: SqlitePool,
    writer: Writer,
    queue: Queue,
    /// Held for as long as the store is open.
    _lock: File,
}

/// The data directory can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("data directory {0} is in use by another process: stop that one, or give another --data-dir")]
    InUse(String),
    /// The file system refuses.
    #[error("data directory {0} can't be used: {1}")]
    Directory(String, std::io::Error),
    /// SQLite refuses.
    #[error("database in {0} can't be opened: {1}")]
    Database(String, sqlx::Error),
    /// The schema can't be brought up to date.
    #[error("database in {0} can't be brought up to date: {1}")]
    Migration(String, sqlx::migrate::MigrateError),
}

impl Sqlite {
    /// Opens the store in `data_dir`, creating both where missing, and brings its schema up to date.
    ///
    /// # Errors
    /// When another process has it open, or it can't be read or written.
    pub async fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let shown = data_dir.display().to_string();
        std::fs::create_dir_all(data_dir).map_err(|error| OpenError::Directory(shown.clone(), error))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join("lock"))
            .map_err(|error| OpenError::Directory(shown.clone(), error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::InUse(shown)),
            Err(std::fs::TryLockError::Error(error)) => return Err(OpenError::Directory(shown, error)),
        }
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join(FILE))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL syncs the log at every commit: what was committed survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let failed = |error| OpenError::Database(shown.clone(), error);
        let single = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(failed)?;
        sqlx::migrate!("migrations/sqlite").run(&single).await.map_err(|error| OpenError::Migration(shown.clone(), error))?;
        let mut connection = single.acquire().await.map_err(failed)?.detach();
        let queue = Queue::load(&mut connection).await.map_err(failed)?;
        let readers = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        Ok(Self { inner: Arc::new(Inner { readers, writer: Writer::spawn(connection), queue, _lock: lock }) })
    }

    /// For reading committed data.
    fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// What the order queue knows in memory.
    fn queue(&self) -> &Queue {
        &self.inner.queue
    }

    /// Runs `work` in the writer's next transaction and returns after that has been synced. When `work` fails, only
    /// its own changes are undone.
    async fn write<T, F>(&self, work: F) -> Stored<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Stored<T>> + Send + 'static,
    {
        self.inner.writer.run(work).await
    }
}

/// What SQLite's errors mean to a caller: nothing was committed, so each is `Unavailable` unless the data is bad.
fn stored(error: sqlx::Error) -> StoreError {
    let cause = error.to_string();
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt { store: "SQLite", cause }
        }
        sqlx::Error::Database(ref database) if database.is_check_violation() || database.is_unique_violation() => {
            StoreError::Corrupt { store: "SQLite", cause }
        }
        _ => StoreError::Unavailable { store: "SQLite", cause },
    }
}
