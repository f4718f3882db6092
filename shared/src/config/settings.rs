//! All settings in one value, and values derived from them.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    abuse::Abuse,
    cache::CacheTimes,
    captchas::Captchas,
    error::ConfigError,
    functions::{FunctionDefaults, FunctionOverrides, FunctionSettings},
    gateway::Gateway,
    keys::{SigningKey, signing_keys},
    limits::Limits,
    login::Login,
    modes::{
        CaptchaMode, CookieSecure, HostMode, LogFormat, PhoneVerification, Profile, ServersMode,
    },
    network::Network,
    orders::Orders,
    phone_codes::{PhoneCodeSettings, SmsWebhook},
    reading::Effective,
    sessions::Sessions,
    sweeper::Sweeper,
    tickets::Tickets,
    traces::Traces,
    worker::Worker,
};
use crate::private_files::Loose;

/// All settings. The comments of `config.default.toml` explain each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Config {
    pub profile: Profile,
    pub listen: String,
    pub admin_listen: String,
    pub invoke_listen: String,
    pub drain_ms: u64,
    pub host: HostMode,
    pub functions_dir: PathBuf,
    pub data_dir: PathBuf,
    pub servers: ServersMode,
    pub redis_url: SecretString,
    pub database_url: SecretString,
    pub amqp_url: SecretString,
    pub redis_key_prefix: String,
    pub amqp_queue: String,
    pub captcha: CaptchaMode,
    pub phone_verification: PhoneVerification,
    pub trusted_proxies: Vec<Network>,
    pub(super) plaintext_hosts: Vec<String>,
    pub admin_networks: Vec<Network>,
    pub cookie_secure: CookieSecure,
    session_keys: Vec<SecretString>,
    ticket_keys: Vec<SecretString>,
    pub log: String,
    pub log_format: LogFormat,
    pub gateway: Gateway,
    pub sessions: Sessions,
    pub tickets: Tickets,
    pub captchas: Captchas,
    pub orders: Orders,
    pub login: Login,
    pub phone_codes: PhoneCodeSettings,
    pub sms_webhook: SmsWebhook,
    pub limits: Limits,
    pub abuse: Abuse,
    pub cache: CacheTimes,
    pub worker: Worker,
    pub sweeper: Sweeper,
    pub traces: Traces,
    pub(super) function_defaults: FunctionDefaults,
    pub(super) functions: BTreeMap<String, FunctionOverrides>,
    #[serde(skip)]
    pub(super) effective: Effective,
}

impl Config {
    /// The effective values as TOML, with secrets masked.
    #[must_use]
    pub fn shown(&self) -> String {
        self.effective.masked()
    }

    /// Replaces the servers that hold the state.
    pub fn use_servers(&mut self, redis_url: String, database_url: String, amqp_url: String) {
        for (key, value) in [
            ("servers", "external"),
            ("redis_url", &redis_url),
            ("database_url", &database_url),
            ("amqp_url", &amqp_url),
        ] {
            self.effective.put(key, value);
        }
        (self.redis_url, self.database_url, self.amqp_url) =
            (redis_url.into(), database_url.into(), amqp_url.into());
    }

    /// The environment variables that give a function's process this same configuration, without
    /// those that have the default. They hold secrets.
    #[must_use]
    pub fn environment_for_functions(&self) -> Vec<(String, String)> {
        self.effective.as_environment(&[
            "listen",
            "admin_listen",
            "invoke_listen",
            "host",
            "functions_dir",
            "function_defaults",
            "functions",
            "traces",
        ])
    }

    /// The virtual host at the end of RabbitMQ's address; `/` if there is none.
    #[must_use]
    pub fn amqp_vhost(&self) -> String {
        let url = self.amqp_url.expose_secret();
        let path = url
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map_or("", |(_, path)| path);
        let name = path.split('?').next().unwrap_or_default();
        if name.is_empty() { "/".to_owned() } else { name.replace("%2f", "/").replace("%2F", "/") }
    }

    /// The functions that have settings of their own.
    pub fn function_names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// How to run the function's processes.
    #[must_use]
    pub fn function(&self, name: &str) -> FunctionSettings {
        FunctionSettings::new(&self.function_defaults, self.functions.get(name))
    }

    /// Whether the profile is `production`.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.profile == Profile::Production
    }

    /// Whether a phone number must be proved.
    #[must_use]
    pub fn verifies_phones(&self) -> bool {
        self.phone_verification != PhoneVerification::Off
    }

    /// What to do about files with secrets that other users may read.
    #[must_use]
    pub fn loose_files(&self) -> Loose {
        if self.is_production() { Loose::Refuse } else { Loose::Tighten }
    }

    /// The configured session keys. Empty if one is to be created.
    ///
    /// # Errors
    /// Names the key if one is not `kid:base64` of 32 bytes or more.
    pub fn session_keys(&self) -> Result<Vec<SigningKey>, ConfigError> {
        signing_keys("session_keys", &self.session_keys)
    }

    /// The configured ticket keys. Empty if one is to be created.
    ///
    /// # Errors
    /// As [`Config::session_keys`].
    pub fn ticket_keys(&self) -> Result<Vec<SigningKey>, ConfigError> {
        signing_keys("ticket_keys", &self.ticket_keys)
    }
}
