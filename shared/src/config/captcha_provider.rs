//! Which captcha provider is used, and how.

use lambda_http::http::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    error::{ConfigError, bad},
    ranges::check_ranges,
};
use crate::domain::ProviderName;

/// What happens to answers while the provider does not judge them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// They are refused as `unavailable`.
    Refuse,
    /// They count as right.
    Admit,
}

/// `[captchas.provider]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct ProviderCaptchas {
    pub name: ProviderName,
    pub site_key: String,
    pub secret: SecretString,
    verify_url: String,
    script_url: String,
    origins: Vec<String>,
    pub hostnames: Vec<String>,
    pub timeout_ms: u64,
    pub calls_max: usize,
    pub when_down: WhenDown,
}

impl ProviderCaptchas {
    /// Where tokens are judged.
    #[must_use]
    pub fn verify_url(&self) -> &str {
        or(&self.verify_url, self.name.verify_url())
    }

    /// The script that makes the widget.
    #[must_use]
    pub fn script_url(&self) -> &str {
        or(&self.script_url, self.name.script_url())
    }

    /// The origins that the pages' content security policy allows for the widget.
    #[must_use]
    pub fn origins(&self) -> Vec<&str> {
        if self.origins.is_empty() {
            return self.name.origins().to_vec();
        }
        self.origins.iter().map(String::as_str).collect()
    }

    /// `used`: whether captchas are the provider's.
    pub(super) fn validate(&self, used: bool) -> Result<(), ConfigError> {
        let key = |name: &str| format!("captchas.provider.{name}");
        for (name, url) in [("verify_url", self.verify_url()), ("script_url", self.script_url())] {
            let is_usable = |uri: &Uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            };
            if !url.parse().is_ok_and(|uri| is_usable(&uri)) {
                let expected = "expected an address such as https://challenges.cloudflare.com/turnstile/v0/siteverify, or nothing";
                return Err(bad(key(name), expected));
            }
        }
        // Anything else could end the directive or the policy.
        let is_source = |origin: &&str| {
            (origin.starts_with("https://") || origin.starts_with("http://"))
                && !origin.contains(|char: char| {
                    char.is_whitespace()
                        || char.is_control()
                        || [';', ',', '\'', '"'].contains(&char)
                })
                && origin.is_ascii()
        };
        if !self.origins().iter().all(is_source) {
            let expected = "expected origins such as https://challenges.cloudflare.com";
            return Err(bad(key("origins"), expected));
        }
        for (name, text) in
            [("site_key", self.site_key.as_str()), ("secret", self.secret.expose_secret())]
        {
            if used && text.trim().is_empty() {
                return Err(bad(key(name), "needed with captcha = \"provider\""));
            }
        }
        check_ranges(
            "captchas.provider",
            [
                // Below the time limit of a function.
                ("timeout_ms", self.timeout_ms, 100, 8_000),
                ("calls_max", self.calls_max as u64, 1, 10_000),
            ],
        )
    }
}

fn or<'s>(own: &'s str, other: &'s str) -> &'s str {
    if own.is_empty() { other } else { own }
}

#[cfg(test)]
mod tests {
    use crate::config::{CaptchaMode, Config};

    fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let env =
            pairs.iter().map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned()));
        Config::load(None, env, []).map_err(|error| error.to_string())
    }

    const USED: [(&str, &str); 3] = [
        ("CAPTCHA", "provider"),
        ("CAPTCHAS__PROVIDER__SITE_KEY", "site"),
        ("CAPTCHAS__PROVIDER__SECRET", "geheim"),
    ];

    #[test]
    fn a_provider_needs_its_keys_and_has_addresses_of_its_own() {
        let config = load(&USED).unwrap();
        assert_eq!(config.captcha, CaptchaMode::Provider);
        let provider = &config.captchas.provider;
        assert!(provider.verify_url().starts_with("https://challenges.cloudflare.com/"));
        assert_eq!(provider.origins(), ["https://challenges.cloudflare.com"]);
        assert!(!config.shown().contains("geheim") && !format!("{config:?}").contains("geheim"));
        for left_out in 1..3 {
            let mut some = USED.to_vec();
            let (name, _) = some.remove(left_out);
            let told = load(&some).unwrap_err();
            let key = name.to_ascii_lowercase().replace("__", ".");
            assert!(told.starts_with(&format!("{key}: needed")), "{told}");
        }
        for name in ["hcaptcha", "recaptcha"] {
            let more = [("CAPTCHAS__PROVIDER__NAME", name)];
            let config = load(&[&USED[..], &more].concat()).unwrap();
            assert!(config.captchas.provider.script_url().contains("captcha"), "{name}");
            assert!(config.captchas.provider.verify_url().contains("captcha"), "{name}");
        }
    }

    #[test]
    fn addresses_and_limits_are_checked() {
        for (name, value) in [
            ("NAME", "other"),
            ("VERIFY_URL", "challenges.example"),
            ("VERIFY_URL", "ftp://challenges.example"),
            ("SCRIPT_URL", "https://user:geheim@challenges.example/x.js"),
            ("ORIGINS", "https://a.example; script-src *"),
            ("ORIGINS", "*"),
            ("ORIGINS", "https://a.example 'unsafe-inline'"),
            ("TIMEOUT_MS", "0"),
            ("CALLS_MAX", "0"),
            ("WHEN_DOWN", "perhaps"),
        ] {
            let name = format!("CAPTCHAS__PROVIDER__{name}");
            let told = load(&[(name.as_str(), value)]).unwrap_err();
            assert!(!told.contains("geheim"), "{told}");
        }
        for (name, value) in [
            ("VERIFY_URL", "http://127.0.0.1:9/siteverify"),
            ("ORIGINS", "https://a.example,https://*.b.example"),
            ("HOSTNAMES", "shop.example"),
            ("WHEN_DOWN", "admit"),
        ] {
            let name = format!("CAPTCHAS__PROVIDER__{name}");
            load(&[(name.as_str(), value)]).unwrap();
        }
    }
}
