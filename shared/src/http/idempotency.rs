//! The header `Idempotency-Key`.

use axum::{extract::FromRequestParts, http::request::Parts};
use utoipa::{
    PartialSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{domain::IdempotencyKey, problem::Problem};

/// The key that the caller gave, if any.
#[derive(Debug)]
pub struct Idempotency(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for Idempotency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let invalid = |expected: String| Problem::Invalid {
            field: IdempotencyKey::HEADER.to_owned(),
            expected,
        };
        let mut values = parts.headers.get_all(IdempotencyKey::HEADER).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(invalid("one key".to_owned()));
        }
        let key = String::from_utf8_lossy(value.as_bytes()).parse::<IdempotencyKey>();
        key.map(|key| Self(Some(key))).map_err(|error| invalid(error.to_string()))
    }
}

impl PartialSchema for IdempotencyKey {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(Self::CHARS_MAX))
            .pattern(Some("^[!-~]+$"))
            .into()
    }
}
