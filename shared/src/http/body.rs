//! Request bodies, path and query: read strictly, refused with the field's name.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use lambda_http::http::header;
use serde::{Deserialize, de::DeserializeOwned};

use crate::problem::Problem;

/// Largest request body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// A body must have come whole within this time, so that slow senders can't hold connections.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

fn invalid(field: &str, expected: impl Into<String>) -> Problem {
    Problem::Invalid { field: field.to_owned(), expected: expected.into() }
}

/// A JSON body. An empty one stands for `{}`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let json = request.headers().get(header::CONTENT_TYPE).is_none_or(|value| {
            let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/json")
        });
        let reading = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let bytes = tokio::time::timeout(BODY_TIMEOUT, reading)
            .await
            .map_err(|_| invalid("body", "all of it within 10 seconds"))?
            .map_err(|_| Problem::BodyTooLarge)?;
        if !bytes.is_empty() && !json {
            return Err(Problem::UnsupportedMediaType);
        }
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            let message = error.to_string();
            // serde names the field in backticks where there is one.
            let field = message.split('`').nth(1).unwrap_or("body").to_owned();
            // Values of a request are never repeated: one of them may be a password.
            let expected = if message.starts_with("invalid type") || message.starts_with("invalid value") {
                format!("expected{}", message.rsplit_once("expected").map_or(" another value", |(_, rest)| rest))
            } else {
                message
            };
            invalid(&field, expected)
        })
    }
}

/// Parameters in the path. One that can't be read names nothing that exists.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Path::from_request_parts(parts, state).await.map(|Path(params)| Self(params)).map_err(|_| Problem::NotFound)
    }
}

/// `?cursor=&limit=` of a list; `Cursor` is the id of the last item seen.
#[derive(Debug)]
pub struct PageQuery<C> {
    /// Where the page begins, if not at the newest.
    pub cursor: Option<C>,
    /// Items wanted, 1 to 100.
    pub limit: u32,
}

impl<S: Send + Sync, C: DeserializeOwned> FromRequestParts<S> for PageQuery<C> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        const LIMIT_DEFAULT: u32 = 20;
        const LIMIT_MAX: u32 = 100;
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw<C> {
            cursor: Option<C>,
            limit: Option<u32>,
        }
        let Query(raw): Query<Raw<C>> = Query::from_request_parts(parts, state)
            .await
            .map_err(|_| invalid("query", "only cursor (as the last page gave it) and limit (1 to 100)"))?;
        let limit = raw.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(invalid("limit", "1 to 100"));
        }
        Ok(Self { cursor: raw.cursor, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only read by the derive")]
        password: String,
    }

    async fn read(content_type: &str, body: &str) -> Problem {
        let request = Request::builder().header("content-type", content_type).body(axum::body::Body::from(body.to_owned())).unwrap();
        Body::<Sample>::from_request(request, &()).await.map(|body| body.0).unwrap_err()
    }

    #[tokio::test]
    async fn refusals_name_the_field_and_never_the_value() {
        assert_eq!(read("application/json", "{}").await.members()["field"], "password");
        assert_eq!(read("application/json", r#"{"password":"x","extra":1}"#).await.members()["field"], "extra");
        let wrong_type = read("application/json", r#"{"password":4711}"#).await;
        assert!(!wrong_type.detail().contains("4711"), "{}", wrong_type.detail());
        assert_eq!(read("application/json", "{").await.slug(), "invalid");
        assert_eq!(read("text/plain", "{}").await.slug(), "unsupported-media-type");
        assert_eq!(read("application/json", &"x".repeat(BODY_BYTES_MAX + 1)).await.slug(), "body-too-large");
    }
}
