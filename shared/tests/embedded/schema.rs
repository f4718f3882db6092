//! The schema of the embedded store between releases.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

use std::{collections::BTreeSet, path::Path, sync::Arc};

use flashsale::{
    adapters::sqlite::{OpenError, Sqlite},
    contract_tests,
    domain::schema::{Migration, SchemaError, release},
    private_files::Loose,
    testing::contract::{
        ledger::Ledger,
        queue::QueuePorts,
        schema::{Column, Table, Tables, breaches},
    },
};
use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, SqliteConnection,
    migrate::{Migrate as _, Migrator},
};

use flashsale::testing::TempDir;

use crate::ledger::raw;

/// Before the first release, sessions and bans moved from one table to another.
const BEFORE_THE_RULE: [i64; 1] = [5];

async fn execute(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// SQLite's description of its tables, without the check constraints, which it keeps only as text.
async fn tables(connection: &mut SqliteConnection) -> Tables {
    let mut tables = Tables::new();
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx_%'")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    for name in names {
        let mut table = Table::default();
        let columns = sqlx::query(
            "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info(?) ORDER BY pk",
        );
        let mut primary = Vec::new();
        for row in columns.bind(&name).fetch_all(&mut *connection).await.unwrap() {
            let (column, pk): (String, i64) = (row.get(0), row.get(4));
            if pk > 0 {
                primary.push(column.clone());
            }
            let (nullable, default): (bool, Option<String>) =
                (row.get::<i64, _>(2) == 0, row.get(3));
            table.columns.insert(
                column,
                Column { kind: row.get(1), nullable, has_default: default.is_some() },
            );
        }
        table.unique.insert(primary);
        let keys: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_index_list(?) WHERE \"unique\"")
                .bind(&name)
                .fetch_all(&mut *connection)
                .await
                .unwrap();
        for key in keys {
            let columns = sqlx::query_scalar("SELECT name FROM pragma_index_info(?)")
                .bind(key)
                .fetch_all(&mut *connection)
                .await;
            table.unique.insert(columns.unwrap());
        }
        let triggers = sqlx::query_scalar(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?",
        );
        table.triggers =
            triggers.bind(&name).fetch_all(&mut *connection).await.unwrap().into_iter().collect();
        let references = sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_list(?)");
        table.references =
            references.bind(&name).fetch_all(&mut *connection).await.unwrap().into_iter().collect();
        tables.insert(name, table);
    }
    tables
}

async fn migrations() -> Migrator {
    Migrator::new(Path::new("migrations/sqlite")).await.unwrap()
}

#[tokio::test]
async fn migrations_only_expand_the_schema() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    connection.ensure_migrations_table("_sqlx_migrations").await.unwrap();
    for migration in migrations().await.iter() {
        let before = tables(&mut connection).await;
        connection.apply("_sqlx_migrations", migration).await.unwrap();
        let named =
            Migration { number: migration.version, name: migration.description.to_string() };
        if named.oldest_release().unwrap().is_none() && !BEFORE_THE_RULE.contains(&named.number) {
            assert_eq!(breaches(&before, &tables(&mut connection).await), [""; 0], "{named}");
        }
    }
    assert!(tables(&mut connection).await.len() >= 10);
}

#[tokio::test]
async fn a_migration_that_does_not_only_expand_is_noticed() {
    let rebuilt = "CREATE TABLE other (id TEXT NOT NULL PRIMARY KEY, a TEXT NOT NULL) STRICT; INSERT INTO other SELECT id, 'x' FROM t; \
                   DROP TABLE t; ALTER TABLE other RENAME TO t";
    for (change, breach) in [
        ("ALTER TABLE t ADD COLUMN c TEXT", None),
        ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT ''", None),
        ("CREATE TABLE u (id TEXT NOT NULL PRIMARY KEY) STRICT", None),
        ("CREATE INDEX t_by_a ON t (a)", None),
        ("ALTER TABLE t ADD COLUMN c TEXT; CREATE UNIQUE INDEX t_once ON t (c)", None),
        ("DROP TABLE t", Some("table t is gone")),
        ("ALTER TABLE t RENAME TO u", Some("table t is gone")),
        ("ALTER TABLE t DROP COLUMN b", Some("column t.b is gone")),
        ("ALTER TABLE t RENAME COLUMN b TO c", Some("column t.b is gone")),
        ("CREATE UNIQUE INDEX t_once ON t (a)", Some("table t is now unique by a")),
        (
            "ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT ''; CREATE UNIQUE INDEX t_once ON t (c)",
            Some("table t is now unique by c"),
        ),
        (rebuilt, Some("column t.a may not be NULL any more")),
        (
            "CREATE TRIGGER t_kept BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'no'); END",
            Some("table t has the new trigger t_kept"),
        ),
        (
            "CREATE TABLE u (id TEXT PRIMARY KEY REFERENCES t) STRICT",
            Some("the new table u has a foreign key to t"),
        ),
        // SQLite refuses to add such a column, but allows rebuilding the table with it.
        (
            "DROP TABLE t; CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a TEXT, b INTEGER NOT NULL, c TEXT NOT NULL) STRICT",
            Some("column t.c is NOT NULL without a default"),
        ),
    ] {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        execute(
            &mut connection,
            "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a TEXT, b INTEGER NOT NULL) STRICT",
        )
        .await;
        let before = tables(&mut connection).await;
        execute(&mut connection, change).await;
        let found = breaches(&before, &tables(&mut connection).await);
        match breach {
            None => assert!(found.is_empty(), "{change}: {found:?}"),
            Some(breach) => {
                assert!(found.iter().any(|found| found == breach), "{change}: {found:?}")
            }
        }
    }
}

/// Opens the store and adds columns to every table, as a newer release might have done.
async fn expanded(dir: &TempDir) -> Sqlite {
    drop(dir.sqlite().await);
    let mut raw = raw(dir).await;
    for table in tables(&mut raw).await.keys() {
        execute(&mut raw, &format!("ALTER TABLE {table} ADD COLUMN later_nullable TEXT")).await;
        execute(
            &mut raw,
            &format!("ALTER TABLE {table} ADD COLUMN later_default INTEGER NOT NULL DEFAULT 7"),
        )
        .await;
    }
    note(&mut raw, "a later column").await;
    raw.close().await.unwrap();
    dir.sqlite().await
}

/// A migration that a newer release ran.
async fn note(raw: &mut SqliteConnection, name: &str) {
    execute(raw, &format!("INSERT INTO _sqlx_migrations VALUES (9999, '{name}', CURRENT_TIMESTAMP, TRUE, x'00', 0)")).await;
}

async fn ledger() -> (TempDir, Ledger) {
    let dir = TempDir::new();
    let store = expanded(&dir).await;
    (dir, Ledger::of(store))
}

async fn queue() -> (TempDir, QueuePorts) {
    let dir = TempDir::new();
    let store = Arc::new(expanded(&dir).await);
    (dir, QueuePorts::of(&store))
}

mod on_the_schema_of_a_newer_release {
    use super::*;
    contract_tests! { ledger [] ledger() }
    contract_tests! { queue [] queue() }
}

#[tokio::test]
async fn a_release_is_refused_on_a_schema_that_no_longer_holds_what_it_needs() {
    let dir = TempDir::new();
    drop(dir.sqlite().await);
    let mut raw = raw(&dir).await;
    note(&mut raw, "contract 9.0.0 drop it").await;
    let refused = Sqlite::open(dir.path(), Loose::Tighten).await.err().unwrap();
    assert!(matches!(refused, OpenError::Schema(_, SchemaError::TooOld { .. })), "{refused}");
    assert!(refused.to_string().contains("use 9.0.0 or a newer one"), "{refused}");
    assert!(matches!(Sqlite::schema(dir.path()).await, Err(OpenError::Schema(..))));
    execute(
        &mut raw,
        &format!(
            "UPDATE _sqlx_migrations SET description = 'contract {} drop it' WHERE version = 9999",
            release()
        ),
    )
    .await;
    drop(Sqlite::open(dir.path(), Loose::Tighten).await.unwrap());
}

#[tokio::test]
async fn a_look_at_the_schema_changes_nothing() {
    let dir = TempDir::new();
    let absent = dir.path().join("absent");
    let known = migrations().await.iter().count();
    assert_eq!(Sqlite::schema(&absent).await.unwrap().pending.len(), known);
    assert!(!absent.exists());
    // The same while another process has it open.
    let store = dir.sqlite().await;
    let schema = Sqlite::schema(dir.path()).await.unwrap();
    assert!(schema.pending.is_empty() && schema.newer.is_empty());
    let names = |dir: &TempDir| {
        std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect::<BTreeSet<_>>()
    };
    let before = names(&dir);
    let mut raw = raw(&dir).await;
    execute(&mut raw, "DELETE FROM _sqlx_migrations WHERE version >= 50").await;
    let pending = Sqlite::schema(dir.path()).await.unwrap().pending;
    assert_eq!(pending[0], Migration { number: 50, name: "sale prices".to_owned() });
    let noted: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!((noted as usize, names(&dir)), (known - pending.len(), before));
    drop(store);
}
