//! The fields of a JSON merge patch (RFC 7396): absent, `null` or a value.

use serde::{Deserialize, Deserializer, de::Error as _};

/// A change of a field that may have no value. Needs `#[serde(default)]`, which reads an absent
/// field as [`Patch::Keep`], and `#[schema(value_type = Option<T>)]`, so that the field's limits
/// stand in the OpenAPI document beside `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Absent: the field stays as it is.
    #[default]
    Keep,
    /// `null`: the field has no value any more.
    Remove,
    /// The field's new value.
    Set(T),
}

impl<T> Patch<T> {
    /// The field after the change.
    #[must_use]
    pub fn applied_to(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Remove => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Remove, Self::Set))
    }
}

/// Reads a change of a field that always has a value. Serde by itself reads `null` as absent, so
/// that a client which wants to remove the value would believe that it has.
pub(super) fn not_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    match Option::deserialize(deserializer)? {
        None => Err(D::Error::custom("a value, not null; left out, it stays")),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Sample {
        #[serde(default)]
        optional: Patch<u32>,
        #[serde(default, deserialize_with = "not_null")]
        always: Option<u32>,
    }

    fn read(json: &str) -> Result<Sample, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn absent_null_and_a_value_are_three_changes() {
        for (json, optional, after) in [
            ("{}", Patch::Keep, Some(7)),
            (r#"{"optional":null}"#, Patch::Remove, None),
            (r#"{"optional":0}"#, Patch::Set(0), Some(0)),
        ] {
            assert_eq!(read(json).unwrap(), Sample { optional, always: None }, "{json}");
            assert_eq!(optional.applied_to(Some(7)), after, "{json}");
        }
        assert_eq!(Patch::Keep.applied_to(None::<u32>), None);
        assert!(read(r#"{"optional":"seven"}"#).is_err());
    }

    #[test]
    fn a_field_that_always_has_a_value_refuses_null() {
        assert_eq!(read(r#"{"always":7}"#).unwrap().always, Some(7));
        let refused = read(r#"{"always":null}"#).unwrap_err().to_string();
        assert!(refused.contains("not null"), "{refused}");
    }
}
