//! The configuration: `config.default.toml`, then a file, then environment variables, then flags.
//! It is read once at start and checked as a whole, so that an invalid value is reported by its key
//! before the first request.
//!
//! Each section has a file that checks its values. [`Config`] holds the sections and the settings
//! outside of them.

mod abuse;
mod cache;
mod captcha_provider;
mod captchas;
mod error;
mod functions;
mod gateway;
mod keys;
mod limits;
mod login;
mod modes;
mod network;
mod orders;
mod phone_codes;
mod production;
mod ranges;
mod reading;
mod sessions;
mod settings;
mod sweeper;
mod tickets;
mod traces;
mod worker;

use std::net::SocketAddr;

use secrecy::ExposeSecret as _;
use toml::Table;

pub use abuse::Abuse;
pub use cache::CacheTimes;
pub use captcha_provider::{ProviderCaptchas, WhenDown};
pub use captchas::{Captchas, WorkCaptchas};
pub use error::ConfigError;
pub use functions::FunctionSettings;
pub use gateway::Gateway;
pub use keys::SigningKey;
pub use limits::Limits;
pub use login::Login;
pub use modes::{
    CaptchaMode, CookieSecure, HostMode, LogFormat, PhoneVerification, Profile, ServersMode,
};
pub use network::{Network, is_private, public_address_of_this_machine};
pub use orders::Orders;
pub use phone_codes::{PhoneCodeSettings, SmsWebhook};
pub use reading::DEFAULTS;
pub use sessions::Sessions;
pub use settings::Config;
pub use sweeper::Sweeper;
pub use tickets::Tickets;
pub use traces::{Sampling, Traces};
pub use worker::Worker;

use error::bad;
use reading::{ENV_PREFIX, Effective, overlay, set};

/// Variables of flags that are not settings.
const ENV_OF_FLAGS: [&str; 2] = ["FLASHSALE_DEMO", "FLASHSALE_NO_DEMO"];
/// The variable that names a file. Not a setting itself.
const ENV_FILE: &str = "FLASHSALE_CONFIG";

impl Config {
    /// Reads the defaults, the file named by `file` (or by `FLASHSALE_CONFIG` in `env`), the
    /// variables in `env`, then `flags` as pairs of key and value.
    ///
    /// # Errors
    /// Names the first key, variable or flag with an invalid value, and what is expected.
    pub fn load(
        file: Option<&str>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table: Table = DEFAULTS.parse().expect("the defaults are checked by a test");
        let ours: Vec<(String, String)> = env
            .into_iter()
            .filter(|(name, _)| {
                name.starts_with(ENV_PREFIX) && !ENV_OF_FLAGS.contains(&name.as_str())
            })
            .collect();
        let named = ours.iter().find(|(name, _)| name == ENV_FILE).map(|(_, path)| path.as_str());
        if let Some(path) = file.or(named) {
            let failed = |cause: String| ConfigError::File { path: path.to_owned(), cause };
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            let over: Table = text
                .parse()
                .map_err(|error: toml::de::Error| failed(error.message().to_owned()))?;
            overlay(&mut table, over, "")?;
        }
        for (name, text) in ours.iter().filter(|(name, _)| name != ENV_FILE) {
            let path = name[ENV_PREFIX.len()..].to_ascii_lowercase();
            set(&mut table, &path.split("__").collect::<Vec<_>>(), name, text)?;
        }
        for (key, text) in flags {
            set(&mut table, &[key], &format!("--{}", key.replace('_', "-")), &text)?;
        }
        let effective = Effective::new(table.clone());
        let mut config: Self = table.try_into().map_err(|error: toml::de::Error| {
            bad("configuration", error.to_string().replace('\n', " "))
        })?;
        config.effective = effective;
        config.validate()?;
        Ok(config)
    }

    /// This process's environment variables with our prefix. Others are ignored, so they may hold
    /// invalid UTF-8.
    pub fn environment() -> impl Iterator<Item = (String, String)> {
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
    }

    /// The defaults alone, for tests and tools.
    #[must_use]
    pub fn defaults() -> Self {
        Self::load(None, [], []).expect("the defaults are checked by a test")
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.validate_addresses()?;
        self.limits.validate()?;
        self.gateway.validate()?;
        self.sessions.validate()?;
        self.tickets.validate()?;
        self.captchas.validate(self.captcha)?;
        self.orders.validate()?;
        self.login.validate()?;
        self.phone_codes.validate()?;
        self.sms_webhook.validate(self.phone_verification)?;
        self.abuse.validate()?;
        self.cache.validate()?;
        self.worker.validate()?;
        self.sweeper.validate(self.orders.publish_wait_ms)?;
        self.traces.validate()?;
        self.validate_functions()?;
        self.validate_servers()?;
        production::check(self)
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        self.listen
            .parse::<SocketAddr>()
            .map_err(|_| bad("listen", "expected address:port such as 127.0.0.1:8080"))?;
        if !self.admin_listen.is_empty() {
            self.admin_listen
                .parse::<SocketAddr>()
                .map_err(|_| bad("admin_listen", "expected address:port, or nothing"))?;
        }
        if !self.invoke_listen.is_empty()
            && !self
                .invoke_listen
                .parse::<SocketAddr>()
                .is_ok_and(|address| address.ip().is_loopback())
        {
            return Err(bad(
                "invoke_listen",
                "expected a loopback address and a port such as 127.0.0.1:9001, or nothing",
            ));
        }
        if self.drain_ms > 60_000 {
            return Err(bad("drain_ms", format!("expected 0 to 60000, got {}", self.drain_ms)));
        }
        Ok(())
    }

    fn validate_functions(&self) -> Result<(), ConfigError> {
        self.function_defaults.validate("function_defaults")?;
        let known: Table = DEFAULTS.parse().expect("the defaults are checked by a test");
        for (name, overrides) in &self.functions {
            let is_ours = known["functions"].get(name).is_some();
            overrides.validate(name, is_ours)?;
            self.function(name).validate(&format!("functions.{name}"))?;
        }
        Ok(())
    }

    fn validate_servers(&self) -> Result<(), ConfigError> {
        if self.host == HostMode::Processes && self.servers == ServersMode::Embedded {
            return Err(bad(
                "--host",
                "\"processes\" needs --servers local or external: embedded state belongs to one process",
            ));
        }
        self.session_keys()?;
        self.ticket_keys()?;
        if self.servers == ServersMode::External {
            for (key, url) in [
                ("redis-url", &self.redis_url),
                ("database-url", &self.database_url),
                ("amqp-url", &self.amqp_url),
            ] {
                if url.expose_secret().is_empty() {
                    return Err(bad(format!("--{key}"), "needed with --servers external"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
