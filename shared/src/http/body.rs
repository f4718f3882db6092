//! Reads request bodies and query parameters strictly; a refusal names the field.

use std::time::Duration;

use axum::{
    body::{Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::request::Parts,
};
use lambda_http::http::header;
use serde::{Deserialize, de::DeserializeOwned};

use crate::problem::Problem;

/// Largest request body.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Items on a page: the default, and the maximum.
pub(super) const LIMIT_DEFAULT: u32 = 20;
pub(super) const LIMIT_MAX: u32 = 100;
/// Time limit for receiving a whole body, so that slow senders can't hold connections.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

fn invalid(field: &str, expected: impl Into<String>) -> Problem {
    Problem::Invalid { field: field.to_owned(), expected: expected.into() }
}

/// A JSON body. An empty body is read as `{}`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let json = request.headers().get(header::CONTENT_TYPE).is_none_or(|value| {
            let essence =
                value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/json")
        });
        let bytes = if request.body().is_end_stream() {
            Bytes::new()
        } else {
            let reading = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
            tokio::time::timeout(BODY_TIMEOUT, reading)
                .await
                .map_err(|_| invalid("body", "all of it within 10 seconds"))?
                .map_err(|_| Problem::BodyTooLarge)?
        };
        if !bytes.is_empty() && !json {
            return Err(Problem::UnsupportedMediaType);
        }
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        if !bytes.trim_ascii_start().starts_with(b"{") {
            // Serde would accept an array in place of an object and fill the fields in order.
            return Err(invalid("body", "one JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let read = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| refusal(&error.path().to_string(), &error.inner().to_string()))?;
        json.end().map_err(|_| invalid("body", "one JSON object and nothing behind it"))?;
        Ok(Self(read))
    }
}

/// Names the field and what is expected. The value that the client sent is never repeated: it may
/// be a password.
fn refusal(path: &str, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or_default();
    let quoted = message.split('`').nth(1);
    if let (true, Some(field)) = (message.starts_with("unknown field"), quoted) {
        return invalid(field, "no such field");
    }
    if let (true, Some(field)) = (message.starts_with("missing field"), quoted) {
        return invalid(field, "must be given");
    }
    let field = if path == "." { "body" } else { path };
    let repeats = ["invalid type", "invalid value", "invalid length", "unknown variant"]
        .iter()
        .any(|start| message.starts_with(start));
    match message.rsplit_once("expected ") {
        Some((_, expected)) if repeats => invalid(field, format!("expected {expected}")),
        _ if repeats => invalid(field, "another value"),
        _ => invalid(field, message),
    }
}

/// `?cursor=&limit=` of a list; `Cursor` is the id of the last item seen.
#[derive(Debug)]
pub struct PageQuery<C> {
    /// Where the page begins; `None`: at the newest item.
    pub cursor: Option<C>,
    /// Largest number of items, 1 to 100.
    pub limit: u32,
}

impl<S: Send + Sync, C: DeserializeOwned> FromRequestParts<S> for PageQuery<C> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw<C> {
            cursor: Option<C>,
            limit: Option<u32>,
        }
        let Query(raw): Query<Raw<C>> =
            Query::from_request_parts(parts, state).await.map_err(|_| {
                invalid("query", "only cursor (as the last page gave it) and limit (1 to 100)")
            })?;
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
    #[expect(dead_code, reason = "only read by the derive")]
    struct Sample {
        password: String,
        country: Option<crate::domain::Country>,
        sale_id: Option<crate::domain::SaleId>,
    }

    async fn read(content_type: &str, body: &str) -> Problem {
        let request = Request::builder()
            .header("content-type", content_type)
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        Body::<Sample>::from_request(request, &()).await.map(|body| body.0).unwrap_err()
    }

    #[tokio::test]
    async fn refusals_name_the_field_and_never_the_value() {
        assert_eq!(read("application/json", "{}").await.members()["field"], "password");
        assert_eq!(
            read("application/json", r#"{"password":"x","extra":1}"#).await.members()["field"],
            "extra"
        );
        for (body, field, secret) in [
            (r#"{"password":47110815}"#, "password", "4711"),
            (r#"{"password":"x","country":"DE"}"#, "country", "DE"),
            (r#"{"password":"x","sale_id":"geheim"}"#, "sale_id", "geheim"),
            (r#"{"password":"x","sale_id":null} geheim"#, "body", "geheim"),
            (r#"["geheim", null, null]"#, "body", "geheim"),
        ] {
            let problem = read("application/json", body).await;
            assert_eq!(problem.members()["field"], field, "{body}");
            assert!(
                !format!("{}{:?}", problem.detail(), problem.members()).contains(secret),
                "{}",
                problem.detail()
            );
        }
        assert_eq!(read("application/json", "{").await.slug(), "invalid");
        assert_eq!(read("text/plain", "{}").await.slug(), "unsupported-media-type");
        assert_eq!(
            read("application/json", &"x".repeat(BODY_BYTES_MAX + 1)).await.slug(),
            "body-too-large"
        );
    }
}
