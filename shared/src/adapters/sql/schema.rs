//! The schema's migrations, as the library records them.

use sqlx::migrate::{self, Migrator};

use crate::domain::schema::{Known, Migration, Noted, Schema, SchemaError, release};

/// The table in which the library records the migrations that were run.
pub(in crate::adapters) const TABLE: &str = "_sqlx_migrations";
/// Reads that table, as rows of [`Row`].
pub(in crate::adapters) const SELECT: &str =
    "SELECT version, description, checksum, success FROM _sqlx_migrations ORDER BY version";

/// Number, name, checksum and whether it is complete.
pub(in crate::adapters) type Row = (i64, String, Vec<u8>, bool);

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
