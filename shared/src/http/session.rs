//! Who is signed in: a bearer token, or the `session` cookie. Only the signature is checked here; whether the session
//! is alive is asked by the use case, together with limits and bans.

use axum::{extract::FromRequestParts, http::request::Parts};
use lambda_http::http::{HeaderMap, header};

use crate::{
    app::{App, SessionClaims},
    config::CookieSecure,
    domain::Timestamp,
    problem::Problem,
};

const COOKIE: &str = "session";

/// A signed-in user who reads.
#[derive(Debug, Clone)]
pub struct Signed(pub SessionClaims);

/// A signed-in user who changes something: with only a cookie, the request must come from our own pages.
#[derive(Debug, Clone)]
pub struct SignedWriter(pub SessionClaims);

impl FromRequestParts<App> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).or_else(|| cookie(&parts.headers)).ok_or(Problem::Unauthenticated)?;
        app.read_session(token).map(Self)
    }
}

impl FromRequestParts<App> for SignedWriter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if bearer(&parts.headers).is_none() && cookie(&parts.headers).is_some() && !same_origin(&parts.headers) {
            return Err(Problem::Forbidden("a request with only the session cookie must come from this site's own pages"));
        }
        Signed::from_request_parts(parts, app).await.map(|Signed(claims)| Self(claims))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE && !value.is_empty()).then_some(value)
    })
}

fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        _ => false,
    }
}

/// The value of `Set-Cookie` that carries a session token, or that ends it when there is none.
#[must_use]
pub fn session_cookie(app: &App, headers: &HeaderMap, token: Option<(&str, Timestamp)>) -> String {
    let (value, max_age_seconds) = match token {
        Some((token, expires_at)) => (token, expires_at.since_ms(app.now()) / 1_000),
        None => ("", 0),
    };
    let secure = match app.config.cookie_secure {
        CookieSecure::Always => true,
        CookieSecure::Never => false,
        // Behind a proxy the host may look like loopback to us, whatever the shopper opened.
        CookieSecure::Auto => app.config.is_production() || !on_loopback(headers),
    };
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_seconds}{secure}")
}

fn on_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = if host.starts_with('[') { host.split(']').next().unwrap_or_default() } else { host.split(':').next().unwrap_or_default() };
    name == "localhost" || name == "127.0.0.1" || name == "[::1"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn tokens_are_found() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
        assert_eq!(cookie(&headers(&[("cookie", "a=b; session=abc; c=d")])), Some("abc"));
        assert_eq!(cookie(&headers(&[("cookie", "xsession=abc; session=")])), None);
    }

    #[test]
    fn a_cookie_alone_counts_only_from_our_pages() {
        assert!(same_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!same_origin(&headers(&[("sec-fetch-site", "same-site"), ("origin", "http://a"), ("host", "a")])));
        assert!(same_origin(&headers(&[("origin", "https://shop.example"), ("host", "shop.example")])));
        assert!(!same_origin(&headers(&[("origin", "https://evil.example"), ("host", "shop.example")])));
        assert!(!same_origin(&headers(&[("host", "shop.example")])));
    }

    #[test]
    fn loopback_names_are_known() {
        for name in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
            assert!(on_loopback(&headers(&[("host", name)])), "{name}");
        }
        for name in ["shop.example", "localhost.evil.example:80", "127.0.0.1.evil.example"] {
            assert!(!on_loopback(&headers(&[("host", name)])), "{name}");
        }
    }
}
