//! The schema on MySQL or MariaDB across releases.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use flashsale::{
    adapters::mysql::{MySql, MySqlMigrationError},
    contract_tests,
    domain::schema::{Migration, SchemaError, release},
    testing::contract::{
        ledger::Ledger,
        schema::{Column, Tables, breaches},
    },
};
use sqlx::{
    MySqlConnection,
    migrate::{Migrate as _, Migrator},
};
use tokio::time::sleep;

use crate::ledger::{database, execute, migrated, raw};

/// The server's description of its tables.
async fn tables(raw: &mut MySqlConnection) -> Tables {
    let mut tables = Tables::new();
    let columns: Vec<(String, String, String, String, Option<String>, String)> = sqlx::query_as(
        "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR), CAST(column_type AS CHAR), CAST(is_nullable AS CHAR), \
         CAST(column_default AS CHAR), CAST(extra AS CHAR) FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name NOT LIKE '\\_sqlx%'",
    )
    .fetch_all(&mut *raw)
    .await
    .unwrap();
    for (table, column, kind, nullable, default, extra) in columns {
        // MariaDB reports an explicit default for a nullable column.
        let has_default = default.is_some_and(|default| default != "NULL")
            || extra.contains("auto_increment")
            || extra.contains("GENERATED");
        let column_is = Column { kind, nullable: nullable == "YES", has_default };
        tables.entry(table).or_default().columns.insert(column, column_is);
    }
    let keys: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(table_name AS CHAR), CAST(GROUP_CONCAT(column_name ORDER BY seq_in_index) AS CHAR) FROM information_schema.statistics \
         WHERE table_schema = DATABASE() AND non_unique = 0 GROUP BY table_name, index_name",
    )
    .fetch_all(&mut *raw)
    .await
    .unwrap();
    for (table, columns) in keys {
        tables
            .entry(table)
            .or_default()
            .unique
            .insert(columns.split(',').map(str::to_owned).collect());
    }
    let checks: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT CAST(t.table_name AS CHAR), CAST(c.constraint_name AS CHAR), CAST(c.check_clause AS CHAR) \
         FROM information_schema.check_constraints c JOIN information_schema.table_constraints t \
         ON t.constraint_schema = c.constraint_schema AND t.constraint_name = c.constraint_name \
         WHERE c.constraint_schema = DATABASE() AND t.constraint_type = 'CHECK'",
    )
    .fetch_all(&mut *raw)
    .await
    .unwrap();
    for (table, check, condition) in checks {
        tables.entry(table).or_default().checks.insert(check, plain(&condition));
    }
    let triggers: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(event_object_table AS CHAR), CAST(trigger_name AS CHAR) FROM information_schema.triggers \
         WHERE trigger_schema = DATABASE()",
    )
    .fetch_all(&mut *raw)
    .await
    .unwrap();
    for (table, trigger) in triggers {
        tables.entry(table).or_default().triggers.insert(trigger);
    }
    let references: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(table_name AS CHAR), CAST(referenced_table_name AS CHAR) FROM information_schema.referential_constraints \
         WHERE constraint_schema = DATABASE()",
    )
    .fetch_all(&mut *raw)
    .await
    .unwrap();
    for (table, other) in references {
        tables.entry(table).or_default().references.insert(other);
    }
    tables.retain(|name, _| !name.starts_with("_sqlx"));
    tables
}

/// A check without the character sets that MySQL puts before its values: it writes `'x'` as `_utf8mb4\'x\'`, and every
/// `ALTER TABLE` may write another one there, which changes nothing of what the check allows.
fn plain(condition: &str) -> String {
    let sets = ["_utf8mb4'", "_utf8mb3'", "_latin1'", "_ascii'"];
    sets.iter().fold(condition.replace("\\'", "'"), |condition, set| condition.replace(set, "'"))
}

async fn migrations() -> Migrator {
    Migrator::new(Path::new("migrations/mysql")).await.unwrap()
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn migrations_only_expand_the_schema() {
    let mut raw = raw(&database().await).await;
    raw.ensure_migrations_table("_sqlx_migrations").await.unwrap();
    for migration in migrations().await.iter() {
        let before = tables(&mut raw).await;
        raw.apply("_sqlx_migrations", migration).await.unwrap();
        let named =
            Migration { number: migration.version, name: migration.description.to_string() };
        if named.oldest_release().unwrap().is_none() {
            assert_eq!(breaches(&before, &tables(&mut raw).await), [""; 0], "{named}");
        }
    }
    let tables = tables(&mut raw).await;
    assert!(
        tables.len() >= 7
            && tables["orders"].checks.len() == 9
            && tables["orders"].unique.len() == 2,
        "{:?}",
        tables["orders"]
    );
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_migration_that_does_not_only_expand_is_noticed() {
    let mut raw = raw(&database().await).await;
    for (change, breach) in [
        ("ALTER TABLE t ADD COLUMN c BIGINT", None),
        ("ALTER TABLE t ADD COLUMN c BIGINT NOT NULL DEFAULT 1, ADD KEY t_by_c (c)", None),
        ("ALTER TABLE t ADD COLUMN c BIGINT NULL, ADD UNIQUE KEY t_once (c)", None),
        ("ALTER TABLE t ADD COLUMN c BIGINT NULL, ADD CONSTRAINT t_c CHECK (c > 1)", None),
        (
            "ALTER TABLE t DROP CONSTRAINT t_kind, ADD CONSTRAINT t_kind CHECK (kind IN ('x', 'y', 'z'))",
            None,
        ),
        ("CREATE TABLE u (id BIGINT PRIMARY KEY)", None),
        ("DROP TABLE t", Some("table t is gone")),
        ("RENAME TABLE t TO u", Some("table t is gone")),
        ("ALTER TABLE t DROP COLUMN b", Some("column t.b is gone")),
        ("ALTER TABLE t CHANGE COLUMN b c BIGINT NOT NULL", Some("column t.b is gone")),
        (
            "ALTER TABLE t MODIFY COLUMN kind VARCHAR(3) NOT NULL DEFAULT 'x'",
            Some("column t.kind was varchar(9) and is varchar(3)"),
        ),
        (
            "ALTER TABLE t MODIFY COLUMN a BIGINT NOT NULL DEFAULT 1",
            Some("column t.a may not be NULL any more"),
        ),
        (
            "ALTER TABLE t MODIFY COLUMN kind VARCHAR(9) NOT NULL",
            Some("column t.kind has no default any more"),
        ),
        (
            "ALTER TABLE t ADD COLUMN c BIGINT NOT NULL",
            Some("column t.c is NOT NULL without a default"),
        ),
        ("ALTER TABLE t ADD UNIQUE KEY t_once (a)", Some("table t is now unique by a")),
        (
            "ALTER TABLE t ADD COLUMN c BIGINT NOT NULL DEFAULT 1, ADD UNIQUE KEY t_once (c)",
            Some("table t is now unique by c"),
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT t_b CHECK (b > 1)",
            Some("check t_b of table t is new or narrower"),
        ),
        (
            "ALTER TABLE t DROP CONSTRAINT t_kind, ADD CONSTRAINT t_kind CHECK (kind IN ('x'))",
            Some("check t_kind of table t is new or narrower"),
        ),
        (
            "CREATE TRIGGER t_kept BEFORE DELETE ON t FOR EACH ROW SET @gone = 1",
            Some("table t has the new trigger t_kept"),
        ),
        (
            "CREATE TABLE u (id BIGINT PRIMARY KEY, FOREIGN KEY (id) REFERENCES t (id))",
            Some("the new table u has a foreign key to t"),
        ),
    ] {
        execute(&mut raw, "DROP TABLE IF EXISTS u").await.unwrap();
        execute(&mut raw, "DROP TABLE IF EXISTS t").await.unwrap();
        let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, b BIGINT NOT NULL, kind VARCHAR(9) NOT NULL DEFAULT 'x', \
                     CONSTRAINT t_kind CHECK (kind IN ('x', 'y')))";
        execute(&mut raw, table).await.unwrap();
        let before = tables(&mut raw).await;
        // Not as a prepared statement, because those can't create triggers.
        sqlx::raw_sql(change).execute(&mut raw).await.unwrap();
        let found = breaches(&before, &tables(&mut raw).await);
        match breach {
            None => assert!(found.is_empty(), "{change}: {found:?}"),
            Some(breach) => {
                assert!(found.iter().any(|found| found.starts_with(breach)), "{change}: {found:?}")
            }
        }
    }
}

/// The ledger works with columns that a newer release might have added to every table, including
/// before the existing ones, so no release may read columns by position.
async fn expanded(url: &str) -> MySql {
    migrated(url).await;
    let mut raw = raw(url).await;
    for table in tables(&mut raw).await.keys() {
        let change = format!(
            "ALTER TABLE {table} ADD COLUMN later_nullable VARCHAR(32) NULL FIRST, ADD COLUMN later_default BIGINT NOT NULL DEFAULT 7 FIRST"
        );
        execute(&mut raw, &change).await.unwrap();
    }
    note(&mut raw, "a later column", true).await;
    let schema = migrated(url).await.schema().await.unwrap();
    assert_eq!(schema.newer, [Migration { number: 9999, name: "a later column".to_owned() }]);
    migrated(url).await
}

/// Records a migration that a newer release has run or begun.
async fn note(raw: &mut MySqlConnection, name: &str, complete: bool) {
    execute(raw, "DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
    let insert = format!(
        "INSERT INTO _sqlx_migrations VALUES (9999, '{name}', CURRENT_TIMESTAMP, {complete}, '', 0)"
    );
    execute(raw, &insert).await.unwrap();
}

async fn ledger() -> ((), Ledger) {
    ((), Ledger::of(expanded(&database().await).await))
}

mod on_the_schema_of_a_newer_release {
    use super::*;
    contract_tests! { ledger [#[ignore = "needs servers: infra/test runs it"]] ledger() }
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_schema_that_does_not_fit_is_named() {
    let url = database().await;
    let store = migrated(&url).await;
    let mut raw = raw(&url).await;
    // A newer release's migration, complete or interrupted, does not affect this release.
    for complete in [true, false] {
        note(&mut raw, "from the future", complete).await;
        let migrated = store.migrate().await.unwrap();
        assert!(migrated.run.is_empty() && migrated.schema.newer.len() == 1);
    }
    note(&mut raw, "contract 9.0.0 drop it", true).await;
    for refused in [store.migrate().await.unwrap_err(), store.schema().await.unwrap_err()] {
        assert!(
            matches!(refused, MySqlMigrationError::Schema(SchemaError::TooOld { .. })),
            "{refused}"
        );
        assert!(refused.to_string().contains("use 9.0.0 or a newer one"), "{refused}");
    }
    note(&mut raw, &format!("contract {} drop it", release()), true).await;
    store.migrate().await.unwrap();
    execute(&mut raw, "DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
    execute(&mut raw, "UPDATE _sqlx_migrations SET success = FALSE WHERE version = 51")
        .await
        .unwrap();
    assert!(matches!(
        store.migrate().await,
        Err(MySqlMigrationError::Schema(SchemaError::Interrupted(_)))
    ));
    assert!(matches!(
        store.schema().await,
        Err(MySqlMigrationError::Schema(SchemaError::Interrupted(_)))
    ));
    // While a migration is running, it does not count as interrupted.
    execute(
        &mut raw,
        "DO GET_LOCK(CONCAT('flashsale-migrate-', LEFT(SHA2(DATABASE(), 256), 32)), 0)",
    )
    .await
    .unwrap();
    assert!(matches!(store.schema().await, Err(MySqlMigrationError::Changing)));
    execute(
        &mut raw,
        "UPDATE _sqlx_migrations SET success = TRUE, checksum = 'x' WHERE version = 51",
    )
    .await
    .unwrap();
    assert!(matches!(
        store.schema().await,
        Err(MySqlMigrationError::Schema(SchemaError::Altered(_)))
    ));
}

/// Makes the release with migration 20 the next one.
async fn before_creation_keys(raw: &mut MySqlConnection) {
    execute(raw, "DELETE FROM _sqlx_migrations WHERE version = 20").await.unwrap();
    let drop = "ALTER TABLE sales DROP KEY sales_created_once, DROP COLUMN creation_key, DROP COLUMN creation_request";
    execute(raw, drop).await.unwrap();
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_look_at_the_schema_changes_nothing() {
    let url = database().await;
    let store = MySql::new(&url).unwrap();
    assert_eq!(store.schema().await.unwrap().pending.len(), migrations().await.iter().count());
    let mut raw = raw(&url).await;
    assert!(tables(&mut raw).await.is_empty());
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()",
    )
    .fetch_one(&mut raw)
    .await
    .unwrap();
    assert_eq!(tables, 0, "not even one of its own");
    store.migrate().await.unwrap();
    before_creation_keys(&mut raw).await;
    for _ in 0..2 {
        let pending = store.schema().await.unwrap().pending;
        assert_eq!(pending, [Migration { number: 20, name: "sales creation key".to_owned() }]);
    }
    let run = store.migrate().await.unwrap().run;
    assert_eq!(run.iter().map(|(migration, _)| migration.number).collect::<Vec<_>>(), [20]);
    assert!(store.schema().await.unwrap().pending.is_empty());
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_refused_migration_can_be_run_again() {
    let url = database().await;
    let store = migrated(&url).await;
    let mut raw = raw(&url).await;
    before_creation_keys(&mut raw).await;
    execute(&mut raw, "ALTER TABLE sales ADD COLUMN creation_key BIGINT").await.unwrap();
    for _ in 0..2 {
        let refused = store.migrate().await.unwrap_err();
        assert!(matches!(refused, MySqlMigrationError::Refused(20, _)), "{refused}");
        assert!(refused.to_string().contains("creation_key"), "{refused}");
    }
    execute(&mut raw, "ALTER TABLE sales DROP COLUMN creation_key").await.unwrap();
    assert_eq!(store.migrate().await.unwrap().run.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_migration_does_not_hold_up_the_shop() {
    let url = database().await;
    let store = migrated(&url).await;
    let (mut reader, mut report) = (raw(&url).await, raw(&url).await);
    before_creation_keys(&mut reader).await;
    // A long report: the table can't be changed while an open transaction has read it.
    execute(&mut report, "BEGIN").await.unwrap();
    execute(&mut report, "SELECT sale_id FROM sales").await.unwrap();
    let migration = tokio::spawn(async move { store.migrate().await });
    let (begun, mut waits) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        execute(&mut reader, "SELECT sale_id FROM sales").await.unwrap();
        waits.push(asked.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let longest = waits.iter().max().unwrap();
    assert!(*longest > Duration::from_millis(300), "the migration did not try: {longest:?}");
    assert!(*longest < Duration::from_secs(3), "{longest:?}");
    assert!(waits.len() > 30, "too few calls were served: {waits:?}");
    execute(&mut report, "COMMIT").await.unwrap();
    assert_eq!(migration.await.unwrap().unwrap().run.len(), 1);
}
