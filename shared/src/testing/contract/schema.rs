//! Checks the rule of [`crate::domain::schema`] on a database's description of its tables before
//! and after a migration: the previous release works on an expanded schema that it does not know.

use std::collections::{BTreeMap, BTreeSet};

/// A column, as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its type.
    pub kind: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether a row can be inserted without this column and without storing NULL in it.
    pub has_default: bool,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// By name.
    pub columns: BTreeMap<String, Column>,
    /// The columns of each unique key, including the primary key.
    pub unique: BTreeSet<Vec<String>>,
    /// The CHECK conditions by name, if the database reports them.
    pub checks: BTreeMap<String, String>,
    /// The names of its triggers.
    pub triggers: BTreeSet<String>,
    /// The tables that its foreign keys refer to.
    pub references: BTreeSet<String>,
}

/// The tables of a schema by name.
pub type Tables = BTreeMap<String, Table>;

/// Returns the changes that break the previous release.
#[must_use]
pub fn breaches(before: &Tables, after: &Tables) -> Vec<String> {
    let mut found = Vec::new();
    for (name, old) in before {
        let Some(new) = after.get(name) else {
            found.push(format!("table {name} is gone"));
            continue;
        };
        for (column, was) in &old.columns {
            let at = format!("column {name}.{column}");
            match new.columns.get(column) {
                None => found.push(format!("{at} is gone")),
                Some(is) if is.kind != was.kind => {
                    found.push(format!("{at} was {} and is {}", was.kind, is.kind))
                }
                Some(is) if was.nullable && !is.nullable => {
                    found.push(format!("{at} may not be NULL any more"))
                }
                Some(is) if was.has_default && !is.has_default && !is.nullable => {
                    found.push(format!("{at} has no default any more"))
                }
                Some(_) => {}
            }
        }
        let is_new = |column: &&String| !old.columns.contains_key(*column);
        for (column, is) in new.columns.iter().filter(|(column, _)| is_new(column)) {
            if !is.nullable && !is.has_default {
                found.push(format!("column {name}.{column} is NOT NULL without a default"));
            }
        }
        for key in new.unique.difference(&old.unique) {
            // Rows of the previous release have NULL there, and NULLs are never equal.
            let spared = key.iter().filter(is_new).any(|column| {
                new.columns.get(column).is_some_and(|is| is.nullable && !is.has_default)
            });
            if !spared {
                found.push(format!("table {name} is now unique by {}", key.join(", ")));
            }
        }
        for (check, condition) in &new.checks {
            let allowed = match old.checks.get(check) {
                Some(before) => condition == before || is_wider(before, condition),
                None => !words(condition).any(|word| old.columns.contains_key(word)),
            };
            if !allowed {
                found
                    .push(format!("check {check} of table {name} is new or narrower: {condition}"));
            }
        }
        found.extend(
            new.triggers
                .difference(&old.triggers)
                .map(|trigger| format!("table {name} has the new trigger {trigger}")),
        );
        found.extend(
            new.references
                .difference(&old.references)
                .map(|other| format!("table {name} has a new foreign key to {other}")),
        );
    }
    let new_tables = after.iter().filter(|(name, _)| !before.contains_key(*name));
    for (name, new) in new_tables {
        let held = new.references.iter().filter(|other| before.contains_key(*other));
        found
            .extend(held.map(|other| format!("the new table {name} has a foreign key to {other}")));
    }
    found
}

/// Whether a condition differs only by more values in its lists.
fn is_wider(before: &str, after: &str) -> bool {
    let split = |condition: &str| {
        let (mut values, mut rest) = (BTreeSet::new(), String::new());
        for (index, part) in condition.split('\'').enumerate() {
            if index % 2 == 1 {
                values.insert(part.to_owned());
            } else {
                rest.extend(part.chars().filter(|char| *char != ',' && !char.is_whitespace()));
            }
        }
        (values, rest.replace("_utf8mb4", "").replace("_ascii", ""))
    };
    let ((old_values, old_rest), (new_values, new_rest)) = (split(before), split(after));
    old_rest == new_rest && old_values.is_subset(&new_values)
}

fn words(condition: &str) -> impl Iterator<Item = &str> {
    condition.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
}
