//! The trail of administrators' actions: each is written by the transaction of its change.

use serde_json::{Map, Value as Json};

use super::{Failure, FromRow, Row, Statement, Transaction};
use crate::domain::{AdminAction, FieldChange, Sale};

pub(super) const ACTION_COLUMNS: &str =
    "action_id, at_ms, admin_id, address_prefix, kind, object, changes";

/// Longest value of a field that is kept, in characters; of a longer one, the beginning.
const VALUE_CHARS_MAX: usize = 300;
/// Fields of a sale that no administrator sets.
const NOT_SET: [&str; 5] = ["sale_id", "sold", "epoch", "version", "created_at"];

impl FromRow for AdminAction {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let changes = serde_json::from_str(&row.text("changes")?)
            .map_err(|error| Failure::Corrupt(format!("column changes: {error}")))?;
        Ok(Self {
            action_id: row.parsed("action_id")?,
            at: row.time("at_ms")?,
            admin_id: row.parsed("admin_id")?,
            address_prefix: row.parsed("address_prefix")?,
            kind: row.parsed("kind")?,
            object: row.text("object")?,
            changes,
        })
    }
}

/// Notes an action; a repeat with the same id changes nothing.
pub(super) async fn note<S: Transaction>(
    transaction: &mut S,
    action: &AdminAction,
) -> Result<(), Failure> {
    note_with(transaction, action, Vec::new()).await
}

/// As [`note`], with further changes.
pub(super) async fn note_with<S: Transaction>(
    transaction: &mut S,
    action: &AdminAction,
    more: Vec<FieldChange>,
) -> Result<(), Failure> {
    let changes: Vec<FieldChange> =
        action.changes.iter().cloned().chain(more).map(shortened).collect();
    let changes = serde_json::to_string(&changes)
        .map_err(|error| Failure::Corrupt(format!("changes: {error}")))?;
    let object: String = action.object.chars().take(AdminAction::OBJECT_CHARS_MAX).collect();
    let insert = Statement::new(format!("INSERT INTO admin_actions ({ACTION_COLUMNS}) VALUES "))
        .rows([[
            action.action_id.into(),
            action.at.into(),
            action.admin_id.into(),
            action.address_prefix.to_string().as_str().into(),
            action.kind.as_str().into(),
            object.as_str().into(),
            changes.as_str().into(),
        ]])
        .sql(S::DIALECT.skip_duplicates("action_id"));
    transaction.execute(&insert).await.map(drop)
}

fn shortened(change: FieldChange) -> FieldChange {
    let short = |value: Option<String>| {
        value.map(|text| match text.char_indices().nth(VALUE_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        })
    };
    FieldChange { from: short(change.from), to: short(change.to), ..change }
}

/// The fields in which two states of a sale differ, by their names in the API. `before` is `None`
/// for a new sale.
pub(super) fn differences(
    before: Option<&Sale>,
    after: &Sale,
) -> Result<Vec<FieldChange>, Failure> {
    let fields = |sale: &Sale| match serde_json::to_value(sale) {
        Ok(Json::Object(fields)) => Ok(fields),
        Ok(_) => Err(Failure::Corrupt("a sale is no JSON object".to_owned())),
        Err(error) => Err(Failure::Corrupt(format!("sale: {error}"))),
    };
    let before = before.map_or_else(|| Ok(Map::new()), fields)?;
    let mut after = fields(after)?;
    // A field without a value is absent from the JSON of the sale.
    for field in before.keys() {
        after.entry(field).or_insert(Json::Null);
    }
    Ok(after
        .into_iter()
        .filter(|(field, value)| {
            !NOT_SET.contains(&field.as_str()) && before.get(field) != Some(value)
        })
        .map(|(field, value)| FieldChange {
            from: before.get(&field).and_then(text),
            to: text(&value),
            field,
        })
        .collect())
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn only_changed_fields_differ() {
        let before = testing::sale(5);
        let after = Sale {
            stock: 6,
            title: "Lamp".to_owned(),
            version: 2,
            sold: 1,
            epoch: 4,
            ..before.clone()
        };
        let mut differ = differences(Some(&before), &after).unwrap();
        differ.sort_by(|one, other| one.field.cmp(&other.field));
        let change = |field: &str, from: &str, to: &str| FieldChange {
            from: Some(from.to_owned()),
            ..FieldChange::to(field, to)
        };
        assert_eq!(differ, [change("stock", "5", "6"), change("title", "Phone", "Lamp")]);
        let created = differences(None, &after).unwrap();
        assert!(created.contains(&FieldChange::to("price", "1999")), "{created:?}");
        assert!(created.iter().all(|change| !NOT_SET.contains(&change.field.as_str())));
    }

    #[test]
    fn a_removed_rule_differs() {
        let after = testing::sale(5);
        let before = Sale { units_per_prefix: Some(3), ..after.clone() };
        let removed = FieldChange {
            field: "units_per_prefix".to_owned(),
            from: Some("3".to_owned()),
            to: None,
        };
        assert_eq!(differences(Some(&before), &after).unwrap(), [removed]);
    }

    #[test]
    fn long_values_are_shortened() {
        let kept = shortened(FieldChange::to("description", "é".repeat(VALUE_CHARS_MAX + 9)));
        assert_eq!(kept.to.unwrap().chars().count(), VALUE_CHARS_MAX + 1);
        let whole = FieldChange::to("title", "é".repeat(VALUE_CHARS_MAX));
        assert_eq!(shortened(whole.clone()), whole);
    }
}
