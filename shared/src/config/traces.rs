//! Where traces are sent, and how many.

use lambda_http::http::{HeaderName, HeaderValue, Uri};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    error::{ConfigError, bad},
    ranges::check_ranges,
};

/// What decides whether a request is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// This process.
    Own,
    /// A trusted proxy, for requests in which it says so.
    Proxy,
}

/// `[traces]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Traces {
    pub endpoint: String,
    headers: Vec<SecretString>,
    pub sampled_per_million: u64,
    pub sampling: Sampling,
    pub timeout_ms: u64,
    pub spans_waiting_max: usize,
    pub batch_spans_max: usize,
    pub batch_wait_ms: u64,
}

impl Traces {
    /// The name and the value of each header. The values may be secrets.
    ///
    /// # Errors
    /// Says what is expected, without the value, if one is not a header.
    pub fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        let wrong = || {
            bad(
                "traces.headers",
                "expected \"NAME=value\" with a name and a value that HTTP headers may have",
            )
        };
        let split = |header: &SecretString| {
            let (name, value) = header.expose_secret().split_once('=')?;
            Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
        };
        self.headers.iter().map(|header| split(header).ok_or_else(wrong)).collect()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let usable = |uri: &Uri| {
            let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
            // A password in the address would show in errors; it belongs in a header.
            scheme
                && uri.query().is_none()
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        if !self.endpoint.is_empty() && !self.endpoint.parse().is_ok_and(|uri| usable(&uri)) {
            let expected = "expected the address of a collector such as http://127.0.0.1:4318 (http or https, no user and no query), or nothing";
            return Err(bad("traces.endpoint", expected));
        }
        self.headers()?;
        check_ranges(
            "traces",
            [
                ("sampled_per_million", self.sampled_per_million, 0, 1_000_000),
                ("timeout_ms", self.timeout_ms, 10, 60_000),
                ("spans_waiting_max", self.spans_waiting_max as u64, 1, 1_000_000),
                ("batch_spans_max", self.batch_spans_max as u64, 1, self.spans_waiting_max as u64),
                ("batch_wait_ms", self.batch_wait_ms, 10, 60_000),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn load(name: &str, value: &str) -> Result<Config, String> {
        Config::load(None, [(format!("FLASHSALE_TRACES__{name}"), value.to_owned())], [])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_the_address_of_a_collector() {
        for good in
            ["", "http://127.0.0.1:4318", "https://collector.example/prefix/", "http://[::1]:4318"]
        {
            assert_eq!(load("ENDPOINT", good).unwrap().traces.endpoint, good);
        }
        for bad in [
            "127.0.0.1:4318",
            "collector",
            "grpc://collector:4317",
            "http://u:geheim@collector:4318",
            "http://c/?key=geheim",
        ] {
            let told = load("ENDPOINT", bad).unwrap_err();
            assert!(
                told.starts_with("traces.endpoint: expected the address of a collector")
                    && !told.contains("geheim"),
                "{told}"
            );
        }
    }

    #[test]
    fn headers_are_secrets() {
        let config = load("HEADERS", "authorization=Bearer geheim=, x-tenant=1").unwrap();
        let headers = config.traces.headers().unwrap();
        assert_eq!(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect::<Vec<_>>(),
            [("authorization", "Bearer geheim="), ("x-tenant", "1")]
        );
        let shown = format!("{}{config:?}", config.shown());
        assert!(!shown.contains("geheim") && shown.contains("authorization=***"), "{shown}");
        for bad in ["geheim", "a b=geheim", "=geheim", "a=\u{1}geheim"] {
            let told = load("HEADERS", bad).unwrap_err();
            assert!(
                told.starts_with("traces.headers: expected") && !told.contains("geheim"),
                "{bad:?}: {told}"
            );
        }
        let variables = config.environment_for_functions();
        assert!(variables.is_empty(), "functions export nothing: {variables:?}");
    }

    #[test]
    fn bounds_are_checked() {
        for (name, value) in [
            ("SAMPLED_PER_MILLION", "1000001"),
            ("TIMEOUT_MS", "0"),
            ("SPANS_WAITING_MAX", "0"),
            ("SPANS_WAITING_MAX", "511"),
            ("BATCH_SPANS_MAX", "4097"),
            ("BATCH_WAIT_MS", "0"),
            ("SAMPLING", "always"),
        ] {
            assert!(load(name, value).is_err(), "{name}={value}");
        }
    }
}
