//! Which releases are compatible with which schema of the ledger.
//!
//! While an installation is upgraded or rolled back, instances of two releases use the same
//! database. So there are two kinds of migration, distinguished by name:
//!
//! - It **expands** the schema: a new table, a new column that is nullable or has a default, a new
//!   index. The previous release works unchanged. Any name that does not begin with `contract`:
//!   `0060_order_notes.sql`.
//! - It **contracts** the schema: it removes or narrows something that a given release and all
//!   later ones do not use, and it ships in a release after that one. Its name says the oldest
//!   release that still works: `0070_contract_0.2.0_drop_order_notes.sql`.
//!
//! The database stores the name with the number. So an older release, which does not contain the
//! migration, can decide whether it is still compatible.

use std::{fmt, time::Duration};

use semver::Version;

/// The first word of the name of a migration that contracts the schema.
const CONTRACT: &str = "contract";

/// The release of this code.
///
/// # Panics
/// Never: Cargo refuses a package with another version.
#[must_use]
pub fn release() -> Version {
    Version::parse(env!("CARGO_PKG_VERSION")).expect("Cargo has checked it")
}

/// A change of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its place among the migrations, the digits of the file's name.
    pub number: i64,
    /// The words of the file's name.
    pub name: String,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04} {}", self.number, self.name)
    }
}

impl Migration {
    /// The oldest release that works on the schema after this migration; `None` when it only
    /// expands the schema.
    ///
    /// # Errors
    /// When it contracts the schema and does not name a release.
    pub fn oldest_release(&self) -> Result<Option<Version>, SchemaError> {
        let mut words = self.name.split(' ');
        if words.next() != Some(CONTRACT) {
            return Ok(None);
        }
        let release = words.next().and_then(|word| Version::parse(word).ok());
        release.map(Some).ok_or_else(|| SchemaError::NoRelease(self.clone()))
    }
}

/// A migration that a release contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which one.
    pub migration: Migration,
    /// Of its text.
    pub checksum: Vec<u8>,
}

/// A migration that the database has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Which one.
    pub migration: Migration,
    /// Of the text that was run.
    pub checksum: Vec<u8>,
    /// Whether it completed.
    pub complete: bool,
}

/// A database's schema compared with the migrations of a compatible release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The last migration of the database, if it has any.
    pub last: Option<Migration>,
    /// Migrations of the release that the database does not have yet.
    pub pending: Vec<Migration>,
    /// Migrations of the database that the release does not know: a newer release ran them.
    pub newer: Vec<Migration>,
}

/// The result of migrating a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that were run, and how long each took.
    pub run: Vec<(Migration, Duration)>,
    /// The schema afterwards.
    pub schema: Schema,
}

/// Why a release must not use a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A newer release has removed something that this one needs.
    #[error(
        "the database was brought up to date by a newer release, whose migration {migration} has removed what releases before \
         {oldest} need; this is release {release}: use {oldest} or a newer one"
    )]
    TooOld {
        /// The migration that removed it.
        migration: Migration,
        /// The oldest compatible release.
        oldest: Version,
        /// This release.
        release: Version,
    },
    /// A contracting migration that names no release.
    #[error(
        "migration {0} of a newer release does not say which releases still work after it: use the newer release"
    )]
    NoRelease(Migration),
    /// A migration was changed after it had been run.
    #[error("migration {0} is not the one that was run on this database")]
    Altered(Migration),
    /// The process ended in the middle of a migration.
    #[error(
        "migration {0} was interrupted: see whether its one statement has taken effect, complete or undo it by hand, \
         and set success = 1 in, or delete, its row of _sqlx_migrations"
    )]
    Interrupted(Migration),
}

impl Schema {
    /// Compares a release's migrations with those that a database has recorded, both in the order
    /// of their numbers.
    ///
    /// # Errors
    /// When the release must not use that schema.
    pub fn compare(
        known: &[Known],
        noted: &[Noted],
        release: &Version,
    ) -> Result<Self, SchemaError> {
        let mut newer = Vec::new();
        for noted in noted {
            let Noted { migration, checksum, complete } = noted;
            match known.iter().find(|known| known.migration.number == migration.number) {
                Some(_) if !complete => return Err(SchemaError::Interrupted(migration.clone())),
                Some(known) if known.checksum != *checksum => {
                    return Err(SchemaError::Altered(migration.clone()));
                }
                Some(_) => {}
                None => {
                    // This includes an interrupted one: half of an expansion is harmless to a
                    // release that does not use it.
                    if let Some(oldest) = migration.oldest_release()?
                        && *release < oldest
                    {
                        return Err(SchemaError::TooOld {
                            migration: migration.clone(),
                            oldest,
                            release: release.clone(),
                        });
                    }
                    newer.push(migration.clone());
                }
            }
        }
        let is_noted = |known: &&Known| {
            noted.iter().any(|noted| noted.migration.number == known.migration.number)
        };
        let pending = known
            .iter()
            .filter(|known| !is_noted(known))
            .map(|known| known.migration.clone())
            .collect();
        Ok(Self { last: noted.last().map(|noted| noted.migration.clone()), pending, newer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(number: i64, name: &str) -> Migration {
        Migration { number, name: name.to_owned() }
    }

    fn known(number: i64) -> Known {
        Known { migration: migration(number, "a table"), checksum: vec![1] }
    }

    fn noted(number: i64, name: &str) -> Noted {
        Noted { migration: migration(number, name), checksum: vec![1], complete: true }
    }

    fn compare(noted: &[Noted]) -> Result<Schema, SchemaError> {
        Schema::compare(&[known(1), known(2)], noted, &Version::new(0, 3, 1))
    }

    #[test]
    fn what_is_missing_is_pending() {
        let schema = compare(&[]).unwrap();
        assert_eq!((schema.last, schema.pending.len()), (None, 2));
        let schema = compare(&[noted(1, "a table")]).unwrap();
        assert_eq!(
            (schema.last, schema.pending),
            (Some(migration(1, "a table")), vec![migration(2, "a table")])
        );
        let schema = compare(&[noted(1, "a table"), noted(2, "a table")]).unwrap();
        assert!(schema.pending.is_empty() && schema.newer.is_empty());
    }

    #[test]
    fn a_release_works_on_what_newer_ones_have_expanded() {
        let both = [noted(1, "a table"), noted(2, "a table"), noted(3, "contracts of suppliers")];
        assert_eq!(compare(&both).unwrap().newer, [migration(3, "contracts of suppliers")]);
        let interrupted = Noted { complete: false, ..noted(3, "a column") };
        assert_eq!(compare(&[interrupted]).unwrap().newer, [migration(3, "a column")]);
    }

    #[test]
    fn a_release_is_refused_on_what_no_longer_holds_what_it_needs() {
        for (name, works) in [
            ("contract 0.3.1 drop it", true),
            ("contract 0.2.9 drop it", true),
            ("contract 0.3.2 drop it", false),
        ] {
            assert_eq!(compare(&[noted(9, name)]).is_ok(), works, "{name}");
        }
        let refused = compare(&[noted(9, "contract 1.0.0 drop it")]).unwrap_err().to_string();
        assert!(
            refused.contains("0009 contract 1.0.0 drop it")
                && refused.contains("this is release 0.3.1: use 1.0.0"),
            "{refused}"
        );
        // An interrupted contraction counts as run: some of it may have been removed already.
        let begun = Noted { complete: false, ..noted(9, "contract 1.0.0 drop it") };
        assert!(matches!(compare(&[begun]), Err(SchemaError::TooOld { .. })));
        for name in ["contract", "contract drop it", "contract 1 drop it"] {
            assert_eq!(
                compare(&[noted(9, name)]),
                Err(SchemaError::NoRelease(migration(9, name))),
                "in doubt, no"
            );
        }
    }

    #[test]
    fn what_was_run_must_be_what_is_known() {
        let other = Noted { checksum: vec![2], ..noted(2, "a table") };
        assert_eq!(compare(&[other]), Err(SchemaError::Altered(migration(2, "a table"))));
        let begun = Noted { complete: false, ..noted(2, "a table") };
        assert_eq!(compare(&[begun]), Err(SchemaError::Interrupted(migration(2, "a table"))));
    }
}
