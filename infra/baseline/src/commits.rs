//! One small insert per synced SQLite commit, one after the other.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

/// How many per second.
pub async fn rate(dir: &Path, seconds: f64) -> anyhow::Result<f64> {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("baseline.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS commits (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT")
        .execute(&mut connection)
        .await?;
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let mut commits = 0;
    while begun.elapsed() < limit {
        sqlx::query("INSERT INTO commits (text) VALUES (?)")
            .bind("01a00000-0000-7000-8000-000000000001")
            .execute(&mut connection)
            .await?;
        commits += 1;
    }
    let rate = f64::from(commits) / begun.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}
