//! How phone numbers are proved, and the gateway that sends the codes.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lambda_http::http::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    error::{ConfigError, bad},
    modes::PhoneVerification,
    ranges::check_ranges,
};

/// `[phone_codes]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct PhoneCodeSettings {
    pub lifetime_seconds: u64,
    pub attempts_max: u32,
    pub messages_per_day_max: u32,
}

impl PhoneCodeSettings {
    /// The lifetime in milliseconds.
    #[must_use]
    pub const fn ms(&self) -> u64 {
        self.lifetime_seconds.saturating_mul(1_000)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_ranges(
            "phone_codes",
            [
                ("lifetime_seconds", self.lifetime_seconds, 60, 3_600),
                ("attempts_max", self.attempts_max.into(), 1, 10),
                ("messages_per_day_max", self.messages_per_day_max.into(), 1, 100_000_000),
            ],
        )
    }
}

/// `[sms_webhook]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct SmsWebhook {
    pub url: String,
    secrets: Vec<SecretString>,
    pub timeout_ms: u64,
    pub attempt_timeout_ms: u64,
    pub attempts_max: u32,
    pub at_once_max: usize,
    pub waiting_max: usize,
}

impl SmsWebhook {
    /// The secrets that sign.
    ///
    /// # Errors
    /// Says what is expected, without the value, if one is not base64 of 24 to 64 bytes.
    pub fn secrets(&self) -> Result<Vec<Vec<u8>>, ConfigError> {
        let read = |secret: &SecretString| {
            let text = secret.expose_secret();
            let secret = BASE64.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok();
            secret.filter(|secret| (24..=64).contains(&secret.len())).ok_or_else(|| {
                bad(
                    "sms_webhook.secrets",
                    "expected base64 of 24 to 64 random bytes, with or without whsec_ before it",
                )
            })
        };
        self.secrets.iter().map(read).collect()
    }

    pub(super) fn validate(&self, mode: PhoneVerification) -> Result<(), ConfigError> {
        let usable = |uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                // A password in the address would show in errors.
                && uri.query().is_none()
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        if !self.url.is_empty() && !self.url.parse().is_ok_and(|uri| usable(&uri)) {
            let expected = "expected an address such as https://sms.example.com/codes (http or https, no user and no query), or nothing";
            return Err(bad("sms_webhook.url", expected));
        }
        let secrets = self.secrets()?;
        if mode == PhoneVerification::Webhook {
            if self.url.is_empty() {
                return Err(bad("sms_webhook.url", "needed with phone_verification = \"webhook\""));
            }
            if secrets.is_empty() {
                let expected = "needed with phone_verification = \"webhook\"";
                return Err(bad("sms_webhook.secrets", expected));
            }
        }
        check_ranges(
            "sms_webhook",
            [
                ("timeout_ms", self.timeout_ms, 100, 8_000),
                ("attempt_timeout_ms", self.attempt_timeout_ms, 50, self.timeout_ms),
                ("attempts_max", self.attempts_max.into(), 1, 10),
                ("at_once_max", self.at_once_max as u64, 1, 1_000),
                ("waiting_max", self.waiting_max as u64, 0, 10_000),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn load(settings: &[(&str, &str)]) -> Result<Config, String> {
        let env =
            settings.iter().map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned()));
        Config::load(None, env.collect::<Vec<_>>(), []).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(settings: &[(&str, &str)], told: &str) {
        let error = load(settings).unwrap_err();
        assert!(error.starts_with(told), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }

    #[test]
    fn a_webhook_needs_an_address_and_a_secret() {
        let mode = ("PHONE_VERIFICATION", "webhook");
        let (url, secret) = (
            ("SMS_WEBHOOK__URL", "https://sms.example.com/codes"),
            ("SMS_WEBHOOK__SECRETS", SECRET),
        );
        let config = load(&[mode, url, secret]).unwrap();
        assert_eq!(config.sms_webhook.secrets().unwrap()[0].len(), 24);
        let two = format!("{SECRET},{}", SECRET.trim_start_matches("whsec_"));
        let secrets = load(&[mode, url, ("SMS_WEBHOOK__SECRETS", &two)]).unwrap();
        let secrets = secrets.sms_webhook.secrets().unwrap();
        assert_eq!(secrets[0], secrets[1]);
        refused(&[mode, secret], "sms_webhook.url: needed");
        refused(&[mode, url], "sms_webhook.secrets: needed");
        assert!(load(&[("PHONE_VERIFICATION", "log")]).is_ok());
        for wrong in ["geheim", "whsec_Z2VoZWlt"] {
            refused(&[("SMS_WEBHOOK__SECRETS", wrong)], "sms_webhook.secrets: expected base64");
        }
        for wrong in [
            "sms.example.com",
            "ftp://sms.example.com",
            "https://u:geheim@sms.example.com/",
            "https://sms.example.com/?key=geheim",
        ] {
            refused(&[("SMS_WEBHOOK__URL", wrong)], "sms_webhook.url: expected an address");
        }
    }

    #[test]
    fn the_secrets_are_masked() {
        let config = load(&[("SMS_WEBHOOK__SECRETS", SECRET)]).unwrap();
        assert!(!config.shown().contains("MfKQ9r8G"), "{}", config.shown());
        assert!(config.shown().contains("***"), "{}", config.shown());
        assert!(!format!("{config:?}").contains("MfKQ9r8G"));
    }

    #[test]
    fn production_needs_a_gateway_that_is_reached_with_tls() {
        let key = "a:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        let production = |settings: &[(&str, &str)]| {
            let own = [("PROFILE", "production"), ("SESSION_KEYS", key), ("TICKET_KEYS", key)];
            load(&[&own, settings].concat()).map(drop)
        };
        assert_eq!(production(&[]), Ok(()), "it may be off");
        let told = production(&[("PHONE_VERIFICATION", "log")]).unwrap_err();
        assert!(told.starts_with("phone_verification: "), "{told}");
        let webhook = |url| {
            production(&[
                ("PHONE_VERIFICATION", "webhook"),
                ("SMS_WEBHOOK__SECRETS", SECRET),
                ("SMS_WEBHOOK__URL", url),
            ])
        };
        assert_eq!(webhook("https://sms.example.com/codes"), Ok(()));
        assert_eq!(webhook("http://10.0.0.7:8090/"), Ok(()));
        let told = webhook("http://sms.example.com/codes").unwrap_err();
        assert!(told.starts_with("sms_webhook.url: ") && told.contains("TLS"), "{told}");
    }

    #[test]
    fn bounds_are_checked() {
        for (name, value) in [
            ("PHONE_CODES__LIFETIME_SECONDS", "59"),
            ("PHONE_CODES__ATTEMPTS_MAX", "11"),
            ("PHONE_CODES__MESSAGES_PER_DAY_MAX", "0"),
            ("SMS_WEBHOOK__TIMEOUT_MS", "9000"),
            ("SMS_WEBHOOK__ATTEMPT_TIMEOUT_MS", "6000"),
            ("SMS_WEBHOOK__ATTEMPTS_MAX", "0"),
            ("SMS_WEBHOOK__AT_ONCE_MAX", "0"),
            ("SMS_WEBHOOK__WAITING_MAX", "10001"),
        ] {
            let key = name.to_ascii_lowercase().replace("__", ".");
            refused(&[(name, value)], &format!("{key}: expected "));
        }
    }
}
