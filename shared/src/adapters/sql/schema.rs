//! The schema's migrations, as the library records them.

use std::borrow::Cow;

use sqlx::{
    SqlSafeStr as _,
    migrate::{self, MigrationType, Migrator},
};

use crate::domain::schema::{Known, Migration, Noted, Schema, SchemaError, release};

/// The table in which the library records the migrations that were run.
pub(in crate::adapters) const TABLE: &str = "_sqlx_migrations";
/// Reads that table, as rows of [`Row`].
pub(in crate::adapters) const SELECT: &str =
    "SELECT version, description, checksum, success FROM _sqlx_migrations ORDER BY version";

/// Number, name, checksum and whether it is complete.
pub(in crate::adapters) type Row = (i64, String, Vec<u8>, bool);

/// The migrations of these files, each its name and its text.
pub(in crate::adapters) fn migrator(files: &[(&'static str, &'static str)]) -> Migrator {
    let read = |&(name, sql): &(&'static str, &'static str)| {
        let (number, title) =
            name.strip_suffix(".sql")?.split_once('_').filter(|(_, title)| !title.is_empty())?;
        let title = Cow::Owned(title.replace('_', " "));
        let kind = MigrationType::Simple;
        let alone = sql.starts_with("-- no-transaction");
        Some(migrate::Migration::new(number.parse().ok()?, title, kind, sql.into_sql_str(), alone))
    };
    let migrations = files.iter().map(read).collect::<Option<Vec<_>>>();
    Migrator::with_migrations(migrations.expect("the tests read every migration's name"))
}

/// Compares the schema that these rows describe with this release.
pub(in crate::adapters) fn compared(
    migrator: &Migrator,
    rows: Vec<Row>,
) -> Result<Schema, SchemaError> {
    let known: Vec<_> = migrator
        .iter()
        .map(|known| Known { migration: named(known), checksum: known.checksum.to_vec() })
        .collect();
    let noted: Vec<_> = rows
        .into_iter()
        .map(|(number, name, checksum, complete)| Noted {
            migration: Migration { number, name },
            checksum,
            complete,
        })
        .collect();
    Schema::compare(&known, &noted, &release())
}

/// The pending migrations, with their statements.
pub(in crate::adapters) fn pending<'m>(
    migrator: &'m Migrator,
    schema: &Schema,
) -> Vec<&'m migrate::Migration> {
    migrator
        .iter()
        .filter(|known| schema.pending.iter().any(|pending| pending.number == known.version))
        .collect()
}

pub(in crate::adapters) fn named(migration: &migrate::Migration) -> Migration {
    Migration { number: migration.version, name: migration.description.to_string() }
}
