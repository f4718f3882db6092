//! Answers that a client may cache: entity tags and compression.

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use lambda_http::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::app::{App, CachedJson};

/// The server's clock at the moment of the answer, for answers whose body may be older.
pub const SERVER_TIME: HeaderName = HeaderName::from_static("server-time");

/// Whether the client accepts gzip: the header names it with a weight above zero.
#[must_use]
pub fn takes_gzip(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            named && weight.is_none_or(|weight| weight > 0.0)
        })
}

/// Whether the client has the content that the entity tag names. Weak and strong tags are compared
/// alike, as `If-None-Match` requires.
#[must_use]
pub fn has_tag(request: &HeaderMap, tag: &str) -> bool {
    let opaque =
        |tag: &[u8]| tag.trim_ascii().strip_prefix(b"W/").unwrap_or(tag.trim_ascii()).to_vec();
    let tag = opaque(tag.as_bytes());
    request.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let value = value.as_bytes();
        value == b"*" || value.split(|byte| *byte == b',').any(|other| opaque(other) == tag)
    })
}

/// Answers with JSON that is the same for all clients: compressed for a client that accepts gzip,
/// 304 for a client that has it already. A client may store it, but must revalidate it each time.
pub fn cached_json(app: &App, request: &HeaderMap, json: &CachedJson) -> Response {
    let mut response = if has_tag(request, json.tag()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let packed = takes_gzip(request);
        let bytes = if packed { json.gzip() } else { json.plain() };
        let mut response = Body::from(Bytes::from_owner(bytes)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if packed {
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let header_value =
        |text: &str| HeaderValue::from_str(text).expect("a tag and a time are visible ASCII");
    let headers = response.headers_mut();
    headers.insert(header::ETAG, header_value(json.tag()));
    headers.insert(SERVER_TIME, header_value(&app.now().to_string()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let takes = |value: &str| {
            takes_gzip(&[(header::ACCEPT_ENCODING, value.parse().unwrap())].into_iter().collect())
        };
        assert!(takes("gzip") && takes("br, GZIP;q=0.5") && takes("deflate, gzip ;q=1"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("gzip; q=0.000") && !takes(""));
    }

    #[test]
    fn tags_are_compared_weakly() {
        let has = |value: &str| {
            has_tag(
                &[(header::IF_NONE_MATCH, value.parse().unwrap())].into_iter().collect(),
                "W/\"a\"",
            )
        };
        assert!(has("W/\"a\"") && has("\"a\"") && has("\"b\", W/\"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a"));
    }
}
