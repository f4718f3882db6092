//! SQL text with its values, independent of the database.

use std::fmt::Display;

use crate::domain::{ActionId, OrderId, SaleId, SessionId, Timestamp, UserId};

/// A value for a placeholder. Text is never logged: it may be a phone number or a hash.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::adapters) enum Value {
    Text(String),
    Int(i64),
    Bytes(Vec<u8>),
    Null,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Int(time.epoch_ms())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! from_id {
    ($($id:ty),*) => {$(
        impl From<$id> for Value {
            fn from(id: $id) -> Self {
                Self::Text(id.to_string())
            }
        }
    )*};
}
from_id!(ActionId, SaleId, OrderId, UserId, SessionId);

/// A statement, and its values in the order of the placeholders.
#[derive(Clone)]
pub(in crate::adapters) struct Statement {
    sql: String,
    values: Vec<Value>,
    reusable: bool,
}

impl Statement {
    /// Starts a statement with `sql`.
    pub(in crate::adapters) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), values: Vec::new(), reusable: true }
    }

    /// Binds the next placeholder.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Marks the text as unlikely to be used again.
    pub(super) fn once(mut self) -> Self {
        self.reusable = false;
        self
    }

    /// Appends `sql`.
    pub(super) fn sql(mut self, sql: impl Display) -> Self {
        self.sql.push_str(&sql.to_string());
        self
    }

    /// Appends `(?, ?, …)` for an `IN`, with its values. `values` must not be empty: SQL has no
    /// empty list.
    ///
    /// Repeats the last value up to the next power of two, which changes nothing for `IN`: so there
    /// are few different texts, and most statements are already prepared.
    pub(super) fn list<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Self {
        let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
        if let Some(last) = values.last() {
            values.resize(values.len().next_power_of_two(), last.clone());
        }
        self.tuple(values)
    }

    fn tuple(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.sql.push('(');
        let mut separator = "";
        for value in values {
            self.sql.push_str(separator);
            self.sql.push('?');
            self.values.push(value);
            separator = ", ";
        }
        self.sql.push(')');
        self
    }

    /// Appends `(?, …), (?, …), …`, one list per row. The text is worth keeping prepared for the
    /// numbers of rows that [`row_groups`] gives.
    pub(super) fn rows<const N: usize>(
        mut self,
        rows: impl IntoIterator<Item = [Value; N]>,
    ) -> Self {
        let mut count = 0;
        for row in rows {
            if count > 0 {
                self.sql.push_str(", ");
            }
            self = self.tuple(row);
            count += 1;
        }
        self.reusable &= count <= FEW_ROWS || count.is_power_of_two();
        self
    }

    /// The text.
    pub(in crate::adapters) fn text(&self) -> &str {
        &self.sql
    }

    /// The values.
    pub(in crate::adapters) fn values(&self) -> &[Value] {
        &self.values
    }

    /// Whether the same text will be used again, so that it is worth keeping prepared.
    pub(in crate::adapters) fn is_reusable(&self) -> bool {
        self.reusable
    }
}

/// Up to this number of rows each number has a text of its own.
const FEW_ROWS: usize = 15;

/// Splits rows into groups of at most `most`, a power of two: first groups whose sizes are powers
/// of two, then the few that are left. So statements with any number of rows have few different
/// texts, and most are already prepared.
pub(super) fn row_groups<T>(mut rows: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = match rows.len() {
            0 => return None,
            few @ 1..=FEW_ROWS => few,
            many => (1 << many.ilog2()).min(most),
        };
        let (group, rest) = rows.split_at(size);
        rows = rest;
        Some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_values_agree() {
        let statement = Statement::new("SELECT 1 FROM t WHERE a = ?")
            .bind("x")
            .sql(" AND b IN ")
            .list([1_i64, 2, 3])
            .sql(" LIMIT ?")
            .bind(4_u32);
        assert_eq!(statement.text(), "SELECT 1 FROM t WHERE a = ? AND b IN (?, ?, ?, ?) LIMIT ?");
        let [x, rest @ ..] = statement.values() else { panic!("it has values") };
        assert!(*x == Value::from("x") && *rest == [1, 2, 3, 3, 4].map(Value::Int));
        assert!(statement.is_reusable());

        let rows = Statement::new("INSERT INTO t VALUES ")
            .rows([[Value::Int(1), Value::Null], [Value::Int(2), Value::from("y")]]);
        assert_eq!(rows.text(), "INSERT INTO t VALUES (?, ?), (?, ?)");
        assert_eq!(rows.values().len(), 4);
        assert!(rows.is_reusable());
    }

    #[test]
    fn any_number_of_rows_is_written_with_few_texts() {
        let rows: Vec<i64> = (0..2_000).collect();
        let mut sizes = std::collections::BTreeSet::new();
        for count in 0..rows.len() {
            let groups: Vec<_> = row_groups(&rows[..count], 512).collect();
            assert_eq!(groups.concat(), rows[..count], "each row once, in order");
            for group in groups {
                let insert = Statement::new("").rows(group.iter().map(|n| [Value::Int(*n)]));
                assert!(insert.is_reusable());
                sizes.insert(group.len());
            }
        }
        assert_eq!(sizes.len(), 21);
        assert_eq!(sizes.last(), Some(&512));
        let odd = Statement::new("").rows(rows[..17].iter().map(|n| [Value::Int(*n)]));
        assert!(!odd.is_reusable());
    }
}
