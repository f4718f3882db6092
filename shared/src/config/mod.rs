//! The configuration: `config.default.toml`, then a file, then environment variables, then flags; read once at start
//! and checked whole, so that a bad value is named by its key before the first request.

mod functions;
mod network;
mod production;
mod reading;
mod traces;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use toml::Table;

pub use functions::FunctionSettings;
use functions::{FunctionDefaults, FunctionOverrides};
pub use network::{Network, is_private, public_address_of_this_machine};
use reading::{Effective, overlay, set};
pub use traces::{Sampling, Traces};

use crate::{
    domain::{Quota, Role},
    ports::PUBLISH_LIMIT_MS,
    private_files::Loose,
};

/// The defaults, with a comment on each.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");
/// Begins the name of every environment variable of ours.
const ENV_PREFIX: &str = "FLASHSALE_";
/// Variables of flags that are no settings.
const ENV_OF_FLAGS: [&str; 2] = ["FLASHSALE_DEMO", "FLASHSALE_NO_DEMO"];
/// The variable that names a file; not a setting by itself.
const ENV_FILE: &str = "FLASHSALE_CONFIG";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration file {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// A key that does not exist.
    #[error("{0}: no such setting; `local-emulator config` lists them all")]
    UnknownKey(String),
    /// A value that can't be.
    #[error("{key}: {expected}")]
    Value {
        /// The key as it was given.
        key: String,
        /// What would be right.
        expected: String,
    },
}

fn bad(key: impl Into<String>, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), expected: expected.into() }
}

/// How much is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For a laptop: keys are made when missing.
    Development,
    /// Weak settings are refused.
    Production,
}

/// Which servers hold the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServersMode {
    /// SQLite and memory.
    Embedded,
    /// Private servers, started by the emulator.
    Local,
    /// The configured addresses.
    External,
}

/// How the emulator runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostMode {
    /// All in the emulator's own process.
    InProcess,
    /// As processes of their own, over the Lambda Runtime API.
    Processes,
}

/// Whether captchas are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptchaMode {
    /// Drawn and spoken.
    Image,
    /// Never.
    Off,
}

/// Whether the session cookie is `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CookieSecure {
    /// Unless the page was opened on a loopback name.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One signing key: its name in token headers, and its bytes.
#[derive(Clone)]
pub struct SigningKey {
    /// The `kid`.
    pub kid: String,
    /// At least 32 bytes.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Everything that can be set. The comments of `config.default.toml` say what each means.
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
    pub trusted_proxies: Vec<Network>,
    plaintext_hosts: Vec<String>,
    pub admin_networks: Vec<Network>,
    pub cookie_secure: CookieSecure,
    session_keys: Vec<SecretString>,
    ticket_keys: Vec<SecretString>,
    pub log: String,
    pub log_format: LogFormat,
    pub gateway: Gateway,
    pub sessions: Sessions,
    pub tickets: Lifetime,
    pub captchas: Captchas,
    pub orders: Orders,
    pub login: Login,
    pub limits: Limits,
    pub abuse: Abuse,
    pub cache: CacheTimes,
    pub worker: Worker,
    pub sweeper: Sweeper,
    pub traces: Traces,
    function_defaults: FunctionDefaults,
    functions: BTreeMap<String, FunctionOverrides>,
    #[serde(skip)]
    effective: Effective,
}

/// How long something lives.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Lifetime {
    pub lifetime_seconds: u64,
}

impl Lifetime {
    /// In milliseconds.
    #[must_use]
    pub const fn ms(&self) -> u64 {
        self.lifetime_seconds.saturating_mul(1_000)
    }
}

/// `[gateway]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Gateway {
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub idle_timeout_ms: u64,
    pub write_timeout_ms: u64,
}

/// `[sessions]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Sessions {
    pub lifetime_seconds: u64,
    pub admin_lifetime_seconds: u64,
    pub lookups_at_once: usize,
    pub lookups_waiting_max: usize,
}

impl Sessions {
    /// How long a session of a user with the role lives, in milliseconds.
    #[must_use]
    pub const fn ms(&self, role: Role) -> u64 {
        let seconds = match role {
            Role::Shopper => self.lifetime_seconds,
            Role::Admin => self.admin_lifetime_seconds,
        };
        seconds.saturating_mul(1_000)
    }
}

/// `[captchas]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Captchas {
    pub lifetime_seconds: u64,
    pub drawn_ahead_max: usize,
    pub waiting_max: usize,
}

impl Captchas {
    /// The lifetime in milliseconds.
    #[must_use]
    pub const fn ms(&self) -> u64 {
        self.lifetime_seconds.saturating_mul(1_000)
    }
}

/// `[orders]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Orders {
    pub pay_within_seconds: u64,
    pub publish_group_max: usize,
    pub publish_waiting_max: usize,
    pub publish_wait_ms: u64,
}

/// `[login]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Login {
    pub failures_before_captcha: u32,
    pub address_failures_before_captcha: u32,
    pub failures_window_seconds: u64,
    pub hashes_at_once: usize,
    pub hashes_waiting_max: usize,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Limits {
    pub address: Quota,
    pub ticket: Quota,
    pub order: Quota,
    pub order_status: Quota,
    pub account: Quota,
    pub admin: Quota,
    pub captcha: Quota,
    pub register: Quota,
    pub login: Quota,
    pub login_phone: Quota,
}

/// `[abuse]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Abuse {
    pub refusals_max: u32,
    pub window_seconds: u64,
    pub ban_seconds: u64,
}

/// `[cache]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct CacheTimes {
    pub sale_local_ms: u64,
    pub sale_shared_ms: u64,
    pub sold_out_ms: u64,
    pub no_order_ms: u64,
    pub order_ms: u64,
}

/// `[worker]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Worker {
    pub batch_messages_max: u32,
    pub batch_wait_ms: u64,
    pub batch_window_ms: u64,
    pub record_orders_max: usize,
}

/// `[sweeper]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Sweeper {
    pub period_ms: u64,
    pub lease_ms: u64,
    pub batch_max: u32,
    pub overdue_ms: u64,
    pub reconcile_ms: u64,
    pub tail_seconds: u64,
    pub rebuild_wait_min_ms: u64,
    pub rebuild_wait_max_ms: u64,
}

impl Config {
    /// Reads the defaults, the file named by `file` (or by `FLASHSALE_CONFIG` in `env`), the variables in `env`, then
    /// `flags` as pairs of key and value.
    ///
    /// # Errors
    /// Names the first key, variable or flag with a bad value, and what would be right.
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

    /// The variables of this process's environment that are ours. Others may hold anything, also what is no text.
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

    /// The effective values as TOML, with secrets masked.
    #[must_use]
    pub fn shown(&self) -> String {
        self.effective.masked()
    }

    /// From here on the state is on these servers.
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

    /// The environment variables that give a function's process this same configuration; those with the default are left out.
    /// They hold secrets.
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

    /// The virtual host that the address of RabbitMQ ends with; `/` where it names none.
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

    /// How the function's processes are run.
    #[must_use]
    pub fn function(&self, name: &str) -> FunctionSettings {
        FunctionSettings::new(&self.function_defaults, self.functions.get(name))
    }

    /// Whether the profile is `production`.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.profile == Profile::Production
    }

    /// What is done about files with secrets that other users may read.
    #[must_use]
    pub fn loose_files(&self) -> Loose {
        if self.is_production() { Loose::Refuse } else { Loose::Tighten }
    }

    /// The configured session keys; empty when one is to be made.
    ///
    /// # Errors
    /// Names the key when one is not `kid:base64` of 32 bytes or more.
    pub fn session_keys(&self) -> Result<Vec<SigningKey>, ConfigError> {
        signing_keys("session_keys", &self.session_keys)
    }

    /// The configured ticket keys; empty when one is to be made.
    ///
    /// # Errors
    /// As [`Config::session_keys`].
    pub fn ticket_keys(&self) -> Result<Vec<SigningKey>, ConfigError> {
        signing_keys("ticket_keys", &self.ticket_keys)
    }

    fn validate(&self) -> Result<(), ConfigError> {
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
        for (name, quota) in [
            ("address", self.limits.address),
            ("ticket", self.limits.ticket),
            ("order", self.limits.order),
            ("order_status", self.limits.order_status),
            ("account", self.limits.account),
            ("admin", self.limits.admin),
            ("captcha", self.limits.captcha),
            ("register", self.limits.register),
            ("login", self.limits.login),
            ("login_phone", self.limits.login_phone),
        ] {
            let in_range = (1..=1_000_000).contains(&quota.limit)
                && (1..=86_400_000).contains(&quota.window_ms)
                && (1..=1_000_000).contains(&quota.burst)
                && quota.interval_us() > 0;
            if !in_range {
                return Err(bad(
                    format!("limits.{name}"),
                    "expected limit and burst of 1 to 1000000 and window_ms of 1 to 86400000, at most one per microsecond",
                ));
            }
        }
        const YEAR_SECONDS: u64 = 31_536_000;
        let rebuild_wait_min_ms = self.orders.publish_wait_ms.saturating_add(PUBLISH_LIMIT_MS + 1);
        let ranges = [
            ("gateway.connections_max", self.gateway.connections_max as u64, 16, 1_000_000),
            (
                "gateway.connections_per_address_max",
                self.gateway.connections_per_address_max as u64,
                1,
                1_000_000,
            ),
            ("gateway.idle_timeout_ms", self.gateway.idle_timeout_ms, 100, 3_600_000),
            ("gateway.write_timeout_ms", self.gateway.write_timeout_ms, 100, 3_600_000),
            ("sessions.lifetime_seconds", self.sessions.lifetime_seconds, 60, YEAR_SECONDS),
            (
                "sessions.admin_lifetime_seconds",
                self.sessions.admin_lifetime_seconds,
                60,
                YEAR_SECONDS,
            ),
            ("sessions.lookups_at_once", self.sessions.lookups_at_once as u64, 1, 8),
            (
                "sessions.lookups_waiting_max",
                self.sessions.lookups_waiting_max as u64,
                1,
                1_000_000,
            ),
            ("tickets.lifetime_seconds", self.tickets.lifetime_seconds, 1, 3_600),
            ("captchas.lifetime_seconds", self.captchas.lifetime_seconds, 10, 3_600),
            ("captchas.drawn_ahead_max", self.captchas.drawn_ahead_max as u64, 0, 10_000),
            ("captchas.waiting_max", self.captchas.waiting_max as u64, 1, 10_000),
            ("orders.pay_within_seconds", self.orders.pay_within_seconds, 1, 30 * 86_400),
            ("orders.publish_group_max", self.orders.publish_group_max as u64, 1, 5_000),
            ("orders.publish_waiting_max", self.orders.publish_waiting_max as u64, 1, 1_000_000),
            ("orders.publish_wait_ms", self.orders.publish_wait_ms, 1, 60_000),
            (
                "login.address_failures_before_captcha",
                u64::from(self.login.address_failures_before_captcha),
                1,
                1_000_000,
            ),
            ("login.failures_window_seconds", self.login.failures_window_seconds, 1, 86_400),
            ("login.hashes_at_once", self.login.hashes_at_once as u64, 0, 1_024),
            ("sweeper.tail_seconds", self.sweeper.tail_seconds, 60, YEAR_SECONDS),
            ("login.hashes_waiting_max", self.login.hashes_waiting_max as u64, 1, 10_000),
            ("abuse.refusals_max", self.abuse.refusals_max.into(), 1, 1_000_000),
            ("abuse.window_seconds", self.abuse.window_seconds, 1, 86_400),
            ("abuse.ban_seconds", self.abuse.ban_seconds, 1, YEAR_SECONDS),
            ("cache.sale_local_ms", self.cache.sale_local_ms, 1, 60_000),
            ("cache.sale_shared_ms", self.cache.sale_shared_ms, 1, 600_000),
            ("cache.sold_out_ms", self.cache.sold_out_ms, 1, 10_000),
            ("cache.no_order_ms", self.cache.no_order_ms, 1, 60_000),
            ("cache.order_ms", self.cache.order_ms, 20_000, 86_400_000),
            ("worker.batch_messages_max", self.worker.batch_messages_max.into(), 1, 1_000),
            ("worker.batch_wait_ms", self.worker.batch_wait_ms, 1, 20_000),
            ("worker.batch_window_ms", self.worker.batch_window_ms, 0, 300_000),
            ("worker.record_orders_max", self.worker.record_orders_max as u64, 1, 10_000),
            ("sweeper.period_ms", self.sweeper.period_ms, 10, 60_000),
            ("sweeper.lease_ms", self.sweeper.lease_ms, 1_000, 600_000),
            ("sweeper.batch_max", self.sweeper.batch_max.into(), 1, 5_000),
            ("sweeper.overdue_ms", self.sweeper.overdue_ms, 100, 600_000),
            ("sweeper.reconcile_ms", self.sweeper.reconcile_ms, 100, 3_600_000),
            (
                "sweeper.rebuild_wait_min_ms",
                self.sweeper.rebuild_wait_min_ms,
                rebuild_wait_min_ms,
                600_000,
            ),
            (
                "sweeper.rebuild_wait_max_ms",
                self.sweeper.rebuild_wait_max_ms,
                self.sweeper.rebuild_wait_min_ms,
                600_000,
            ),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(bad(key, format!("expected {min} to {max}, got {value}")));
            }
        }
        self.traces.validate()?;
        self.function_defaults.validate("function_defaults")?;
        let known: Table = DEFAULTS.parse().expect("the defaults are checked by a test");
        for (name, overrides) in &self.functions {
            let is_ours = known["functions"].get(name).is_some();
            overrides.validate(name, is_ours)?;
            self.function(name).validate(&format!("functions.{name}"))?;
        }
        if self.host == HostMode::Processes && self.servers == ServersMode::Embedded {
            return Err(bad(
                "--host",
                "\"processes\" needs --servers local or external: embedded state belongs to one process",
            ));
        }
        let session_keys = self.session_keys()?;
        let ticket_keys = self.ticket_keys()?;
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
        if self.is_production() {
            production::check(self, session_keys.is_empty(), ticket_keys.is_empty())?;
        }
        Ok(())
    }
}

fn signing_keys(key: &'static str, list: &[SecretString]) -> Result<Vec<SigningKey>, ConfigError> {
    const SECRET_BYTES_MIN: usize = 32;
    list.iter()
        .map(|entry| {
            let wrong =
                || bad(key, "expected \"kid:secret\" with the secret in base64, at least 32 bytes");
            let (kid, secret) = entry.expose_secret().split_once(':').ok_or_else(wrong)?;
            let secret = BASE64.decode(secret).map_err(|_| wrong())?;
            if kid.is_empty() || secret.len() < SECRET_BYTES_MIN {
                return Err(wrong());
            }
            Ok(SigningKey { kid: kid.to_owned(), secret })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        Config::load(None, env(pairs), []).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::load(None, [], []).unwrap();
        assert_eq!(config.limits.ticket, Quota::per(10, 10_000));
        assert_eq!(config.limits.order_status, Quota::per(20, 1_000));
        assert_eq!(config.limits.address, Quota { limit: 500, window_ms: 1_000, burst: 1_000 });
    }

    #[test]
    fn flags_win_over_variables() {
        let config = Config::load(
            None,
            env(&[("FLASHSALE_LISTEN", "0.0.0.0:1")]),
            [("listen", "0.0.0.0:2".to_owned())],
        )
        .unwrap();
        assert_eq!(config.listen, "0.0.0.0:2");
        let config =
            Config::load(None, env(&[("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS", "7")]), []).unwrap();
        assert_eq!(config.orders.pay_within_seconds, 7);
    }

    #[test]
    fn a_bad_value_is_named_by_its_key() {
        assert!(
            error(&[("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS", "soon")])
                .starts_with("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS: expected a whole")
        );
        assert!(
            error(&[("FLASHSALE_ORDRES", "1")]).starts_with("FLASHSALE_ORDRES: no such setting")
        );
        assert!(error(&[("FLASHSALE_LISTEN", "here")]).starts_with("listen: expected"));
        assert!(error(&[("FLASHSALE_TRUSTED_PROXIES", "10.0.0.0/33")]).contains("10.0.0.0/33"));
        assert!(error(&[("FLASHSALE_ADMIN_NETWORKS", "10.0.0.0/8,office")]).contains("office"));
        assert!(
            error(&[("FLASHSALE_SESSIONS__ADMIN_LIFETIME_SECONDS", "1")])
                .starts_with("sessions.admin_lifetime_seconds")
        );
        assert!(error(&[("FLASHSALE_SERVERS", "external")]).starts_with("--redis-url: needed"));
        assert!(error(&[("FLASHSALE_CAPTCHA", "no")]).contains("captcha"));
        assert!(error(&[("FLASHSALE_LIMITS__TICKET__LIMIT", "0")]).starts_with("limits.ticket"));
        let too_soon = [("FLASHSALE_SWEEPER__REBUILD_WAIT_MIN_MS", "8000")];
        assert!(
            error(&too_soon).starts_with("sweeper.rebuild_wait_min_ms: expected 8001 to"),
            "a publish may take longer"
        );
        let waits_longer = [("FLASHSALE_ORDERS__PUBLISH_WAIT_MS", "3000")];
        assert!(error(&waits_longer).starts_with("sweeper.rebuild_wait_min_ms: expected 9001 to"));
    }

    #[test]
    fn functions_have_settings_of_their_own() {
        let config = Config::load(
            None,
            env(&[
                ("FLASHSALE_FUNCTION_DEFAULTS__CONCURRENCY", "7"),
                ("FLASHSALE_FUNCTION_DEFAULTS__INSTANCES_MAX", "3"),
                ("FLASHSALE_FUNCTIONS__ORDER_WORKER__TIMEOUT_MS", "4321"),
                ("FLASHSALE_FUNCTIONS__ORDER_STATUS__TIMEOUT_MS", "99"),
                ("FLASHSALE_FUNCTIONS__HELLO__COMMAND", "python3,-m,awslambdaric,hello.handler"),
                ("FLASHSALE_FUNCTIONS__HELLO__ENVIRONMENT", "A=1,B=2=3"),
            ]),
            [],
        )
        .unwrap();
        assert_eq!(
            (config.function("seckill").concurrency, config.function("seckill").instances_max),
            (7, 3)
        );
        let worker = config.function("order-worker");
        assert_eq!(
            (worker.timeout_ms, worker.concurrency),
            (4_321, 1),
            "its own default concurrency stays"
        );
        assert_eq!(config.function("order-status").timeout_ms, 99);
        assert_eq!(config.function_names().filter(|name| name.starts_with("order")).count(), 2);
        let hello = config.function("hello");
        assert_eq!(
            hello.concurrency, 1,
            "many runtime clients start as many processes as they are told"
        );
        assert_eq!(hello.command, ["python3", "-m", "awslambdaric", "hello.handler"]);
        assert_eq!(hello.variables().collect::<Vec<_>>(), [("A", "1"), ("B", "2=3")]);
        assert!(config.function_names().any(|name| name == "hello"));
        assert!(!config.shown().contains("2=3"), "an environment may hold secrets");

        assert!(
            error(&[("FLASHSALE_FUNCTIONS__SECKILL__COLOUR", "1")])
                .starts_with("FLASHSALE_FUNCTIONS__SECKILL__COLOUR: no such")
        );
        assert!(
            error(&[("FLASHSALE_FUNCTIONS__SECKILL__CONCURRENCY", "0")])
                .starts_with("functions.seckill.concurrency: expected 1")
        );
        assert!(
            error(&[("FLASHSALE_FUNCTIONS__SALES__INSTANCES_MIN", "9")])
                .starts_with("functions.sales.instances_min: expected 0 to 2")
        );
        assert!(
            error(&[("FLASHSALE_FUNCTIONS__SEKILL__TIMEOUT_MS", "9")])
                .starts_with("functions.sekill.command: needed")
        );
        assert!(
            error(&[("FLASHSALE_FUNCTIONS__SALES__ENVIRONMENT", "AWS_LAMBDA_RUNTIME_API=x")])
                .starts_with("functions.sales.environment")
        );
        assert!(
            error(&[("FLASHSALE_FUNCTION_DEFAULTS__ENVIRONMENT", "A")])
                .starts_with("function_defaults.environment: expected")
        );
        assert!(
            error(&[("FLASHSALE_FUNCTIONS__SALES__ROUTES", "/hello")])
                .starts_with("functions.sales.routes: the routes of")
        );
        assert!(
            error(&[("FLASHSALE_HOST", "processes")])
                .starts_with("--host: \"processes\" needs --servers")
        );
    }

    #[test]
    fn the_virtual_host_is_read_from_the_address() {
        for (url, expected) in [
            ("amqp://u:p@h:5672", "/"),
            ("amqp://u:p@h:5672/", "/"),
            ("amqp://u:p@h:5672/%2f", "/"),
            ("amqps://h/shop?heartbeat=5", "shop"),
            ("", "/"),
        ] {
            let config = Config::load(None, env(&[("FLASHSALE_AMQP_URL", url)]), []).unwrap();
            assert_eq!(config.amqp_vhost(), expected, "{url}");
        }
    }

    #[test]
    fn a_file_may_name_new_functions_but_no_new_settings() {
        let dir = std::env::temp_dir();
        let load = |text: &str| {
            let path =
                dir.join(format!("flashsale-config-{}-{}.toml", std::process::id(), text.len()));
            std::fs::write(&path, text).unwrap();
            let loaded = Config::load(path.to_str(), [], []);
            std::fs::remove_file(path).unwrap();
            loaded
        };
        let config = load(
            "[functions.hello]\ncommand = [\"./hello\"]\n[functions.sweeper]\nmemory_mb = 100\n",
        )
        .unwrap();
        assert_eq!(config.function("hello").command, ["./hello"]);
        assert_eq!(
            (config.function("sweeper").memory_mb, config.function("sweeper").instances_max),
            (100, 1)
        );
        assert!(
            load("[functions.hello]\ncolour = 1\n")
                .unwrap_err()
                .to_string()
                .starts_with("functions.hello.colour: no such")
        );
        assert!(
            load("[functions.hello]\nmemory_mb = \"x\"\n")
                .unwrap_err()
                .to_string()
                .starts_with("functions.hello.memory_mb: expected a whole")
        );
        assert!(load("[functions]\nhello = 1\n").is_err());
    }

    #[test]
    fn a_function_process_gets_the_same_configuration() {
        let key = format!("a:{}", BASE64.encode([7; 32]));
        let given = [
            ("FLASHSALE_SESSION_KEYS", key.as_str()),
            ("FLASHSALE_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1"),
            ("FLASHSALE_LIMITS__TICKET__LIMIT", "77"),
            ("FLASHSALE_LISTEN", "0.0.0.0:1"),
            ("FLASHSALE_FUNCTIONS__SECKILL__CONCURRENCY", "3"),
        ];
        let mut config = Config::load(None, env(&given), []).unwrap();
        config.use_servers(
            "redis://r:1".to_owned(),
            "mysql://u:p@m:2/d".to_owned(),
            "amqp://u:p@q:3".to_owned(),
        );
        let variables = config.environment_for_functions();
        assert_eq!(variables.len(), 7, "only what differs: {variables:?}");
        let there = Config::load(None, variables, []).unwrap();
        assert_eq!(there.session_keys().unwrap()[0].secret, [7; 32]);
        assert_eq!((there.limits.ticket.limit, there.trusted_proxies.len()), (77, 2));
        assert_eq!(there.servers, ServersMode::External);
        assert_eq!(there.database_url.expose_secret(), "mysql://u:p@m:2/d");
        assert_eq!(
            (there.listen.as_str(), there.function("seckill").concurrency),
            ("127.0.0.1:8080", 32)
        );
    }

    #[test]
    fn secrets_are_masked() {
        let key = format!("a:{}", BASE64.encode([7; 32]));
        let config = Config::load(
            None,
            env(&[
                ("FLASHSALE_REDIS_URL", "redis://u:geheim@h:1"),
                ("FLASHSALE_SESSION_KEYS", &key),
            ]),
            [],
        )
        .unwrap();
        let shown = format!("{}{config:?}", config.shown());
        assert!(!shown.contains("geheim") && !shown.contains(&key), "{shown}");
        assert!(config.shown().contains("redis://***@h:1"));
    }
}
