//! Reads the session from a bearer token or the session cookie. For a [`Caller`], only the token
//! itself is checked here; the use case checks whether the session is alive, together with limits
//! and bans.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts, response::AppendHeaders};
use lambda_http::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::ClientAddress;
use crate::{
    app::{Admin, App, Caller},
    config::CookieSecure,
    domain::Timestamp,
    problem::Problem,
};

/// The cookie's name when it is `Secure`. Browsers accept this prefix only from this host, over TLS
/// and for all paths, so that another host of the domain can't plant a session.
const SECURE_COOKIE: &str = "__Host-session";
/// The cookie's name when it is not `Secure`, as the prefix requires that attribute.
const COOKIE: &str = "session";

/// The caller of a session. A request that carries only the cookie and changes something must come
/// from our own pages.
impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (bearer, cookie) = (bearer(&parts.headers), cookie(app, &parts.headers));
        if bearer.is_none()
            && cookie.is_some()
            && !parts.method.is_safe()
            && !same_origin(&parts.headers)
        {
            return Err(Problem::Forbidden(
                "a request with only the session cookie must come from this site's own pages",
            ));
        }
        let session = app.read_session(bearer.or(cookie).ok_or(Problem::Unauthenticated)?).await?;
        let ClientAddress(client) = ClientAddress::from_request_parts(parts, app).await?;
        Ok(Self { session, client })
    }
}

/// The caller, for an endpoint that needs a session for some requests only: what [`Caller`] would
/// have refused is refused when the caller is asked for.
#[derive(Debug)]
pub struct PossibleCaller(Result<Caller, Problem>);

impl PossibleCaller {
    /// The caller.
    ///
    /// # Errors
    /// Those of [`Caller`] as a handler's argument.
    pub fn caller(self) -> Result<Caller, Problem> {
        self.0
    }
}

impl FromRequestParts<App> for PossibleCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(Caller::from_request_parts(parts, app).await))
    }
}

/// An administrator admitted by [`App::enter_admin`]. Make it a handler's first argument, so that
/// other callers are refused before the rest of the request is validated.
impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        app.enter_admin(&Caller::from_request_parts(parts, app).await?).await
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn cookie<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    named(if is_secure(app, headers) { SECURE_COOKIE } else { COOKIE }, headers)
}

fn named<'a>(wanted: &str, headers: &'a HeaderMap) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == wanted && !value.is_empty()).then_some(value)
        })
}

/// Whether a browser says that the request comes from this site's own pages.
fn same_origin(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).is_some_and(|origin| is_own(origin, headers)),
    }
}

/// Whether a browser says that the request comes from a page of another site. Other programs send
/// no such header.
pub(super) fn is_from_another_site(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        // "none": the user used the address bar or a bookmark.
        Some(site) => site != "same-origin" && site != "none",
        None => headers.get(header::ORIGIN).is_some_and(|origin| !is_own(origin, headers)),
    }
}

fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

/// The headers that give the browser a session token.
#[must_use]
pub fn session_cookie(
    app: &App,
    headers: &HeaderMap,
    token: &str,
    expires_at: Timestamp,
) -> [(HeaderName, String); 1] {
    let max_age_seconds = expires_at.since_ms(app.now()) / 1_000;
    [set_cookie(is_secure(app, headers), token, max_age_seconds)]
}

/// The headers that end the session in the browser, under both names of the cookie.
pub fn no_session_cookie() -> AppendHeaders<[(HeaderName, String); 2]> {
    AppendHeaders([set_cookie(true, "", 0), set_cookie(false, "", 0)])
}

fn set_cookie(secure: bool, value: &str, max_age_seconds: u64) -> (HeaderName, String) {
    let (name, secure) = if secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    (
        header::SET_COOKIE,
        format!(
            "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_seconds}{secure}"
        ),
    )
}

fn is_secure(app: &App, headers: &HeaderMap) -> bool {
    match app.config.cookie_secure {
        CookieSecure::Always => true,
        CookieSecure::Never => false,
        // Behind a proxy, `Host` may be loopback although the shopper opened another address.
        CookieSecure::Auto => app.config.is_production() || !on_loopback(headers),
    }
}

fn on_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = if host.starts_with('[') {
        host.split(']').next().unwrap_or_default()
    } else {
        host.split(':').next().unwrap_or_default()
    };
    name == "localhost" || name == "127.0.0.1" || name == "[::1"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn tokens_are_found() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
        assert_eq!(named(COOKIE, &headers(&[("cookie", "a=b; session=abc; c=d")])), Some("abc"));
        assert_eq!(
            named(COOKIE, &headers(&[("cookie", "xsession=abc; session=; __Host-session=abc")])),
            None
        );
        assert_eq!(
            named(SECURE_COOKIE, &headers(&[("cookie", "session=abc; __Host-session=def")])),
            Some("def")
        );
        assert_eq!(
            named(SECURE_COOKIE, &headers(&[("cookie", "session=abc")])),
            None,
            "any page of the domain may have set it"
        );
    }

    #[test]
    fn a_cookie_alone_counts_only_from_our_pages() {
        assert!(same_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!same_origin(&headers(&[
            ("sec-fetch-site", "same-site"),
            ("origin", "http://a"),
            ("host", "a")
        ])));
        assert!(same_origin(&headers(&[
            ("origin", "https://shop.example"),
            ("host", "shop.example")
        ])));
        assert!(!same_origin(&headers(&[
            ("origin", "https://evil.example"),
            ("host", "shop.example")
        ])));
        assert!(!same_origin(&headers(&[("host", "shop.example")])));
    }

    #[test]
    fn pages_of_other_sites_are_known() {
        let foreign = |pairs: &[(&'static str, &str)]| is_from_another_site(&headers(pairs));
        for site in ["cross-site", "same-site", "nonsense"] {
            assert!(foreign(&[("sec-fetch-site", site), ("host", "a")]), "{site}");
        }
        for origin in ["https://evil.example", "null", "https://a.evil.example", "a"] {
            assert!(foreign(&[("origin", origin), ("host", "a")]), "{origin}");
        }
        assert!(foreign(&[("origin", "https://a")]), "there is nothing to compare it with");
        assert!(!foreign(&[("sec-fetch-site", "same-origin"), ("host", "a")]));
        assert!(!foreign(&[("sec-fetch-site", "none"), ("host", "a")]));
        assert!(!foreign(&[("origin", "https://a"), ("host", "a")]));
        assert!(!foreign(&[("host", "a")]), "no browser");
    }

    #[test]
    fn a_secure_cookie_is_this_host_s_alone() {
        assert_eq!(
            set_cookie(true, "abc", 7).1,
            "__Host-session=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age=7; Secure",
            "the prefix needs Secure and Path=/, and no Domain"
        );
        assert_eq!(
            set_cookie(false, "abc", 7).1,
            "session=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age=7"
        );
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
