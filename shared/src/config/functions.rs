//! How the emulator runs the functions as processes: defaults for all, and overrides for each.

use serde::Deserialize;

use super::{
    error::{ConfigError, bad},
    ranges::check_ranges,
};

/// `[function_defaults]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionDefaults {
    instances_min: u32,
    instances_max: u32,
    concurrency: u32,
    timeout_ms: u64,
    memory_mb: u32,
    idle_ms: u64,
    queue_max: usize,
    queue_wait_ms: u64,
    environment: Vec<String>,
}

/// `[functions.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionOverrides {
    instances_min: Option<u32>,
    instances_max: Option<u32>,
    concurrency: Option<u32>,
    timeout_ms: Option<u64>,
    memory_mb: Option<u32>,
    idle_ms: Option<u64>,
    queue_max: Option<usize>,
    queue_wait_ms: Option<u64>,
    environment: Option<Vec<String>>,
    command: Option<Vec<String>>,
    routes: Option<Vec<String>>,
}

/// How to run one function's processes. The comments of `config.default.toml` explain each field.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct FunctionSettings {
    pub instances_min: u32,
    pub instances_max: u32,
    pub concurrency: u32,
    pub timeout_ms: u64,
    pub memory_mb: u32,
    pub idle_ms: u64,
    pub queue_max: usize,
    pub queue_wait_ms: u64,
    pub environment: Vec<String>,
    /// Program and arguments; empty: the binary of the function's name.
    pub command: Vec<String>,
    /// Paths that the gateway routes to the function, for functions that are not part of this
    /// service.
    pub routes: Vec<String>,
}

impl FunctionDefaults {
    pub(super) fn validate(&self, key: &str) -> Result<(), ConfigError> {
        FunctionSettings::new(self, None).validate(key)
    }
}

impl FunctionOverrides {
    /// Checks that need no defaults.
    pub(super) fn validate(&self, name: &str, is_ours: bool) -> Result<(), ConfigError> {
        let usable = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !usable {
            return Err(bad(
                format!("functions.{name}"),
                "a function's name has 1 to 64 letters, digits, hyphens and underscores",
            ));
        }
        if self.command.as_ref().is_some_and(Vec::is_empty) {
            return Err(bad(
                format!("functions.{name}.command"),
                "expected a program and its arguments",
            ));
        }
        if !is_ours && self.command.is_none() {
            return Err(bad(
                format!("functions.{name}.command"),
                "needed, because the product has no function of this name",
            ));
        }
        if is_ours && self.routes.is_some() {
            return Err(bad(
                format!("functions.{name}.routes"),
                "the routes of the product's own functions are in their code",
            ));
        }
        if self.routes.iter().flatten().any(|route| !route.starts_with('/')) {
            return Err(bad(
                format!("functions.{name}.routes"),
                "expected paths such as /hello or /hello/{name}",
            ));
        }
        Ok(())
    }
}

impl FunctionSettings {
    pub(super) fn new(defaults: &FunctionDefaults, overrides: Option<&FunctionOverrides>) -> Self {
        let FunctionDefaults {
            instances_min,
            instances_max,
            concurrency,
            timeout_ms,
            memory_mb,
            idle_ms,
            queue_max,
            queue_wait_ms,
            environment,
        } = defaults.clone();
        let mut settings = Self {
            instances_min,
            instances_max,
            concurrency,
            timeout_ms,
            memory_mb,
            idle_ms,
            queue_max,
            queue_wait_ms,
            environment,
            command: Vec::new(),
            routes: Vec::new(),
        };
        let Some(own) = overrides.cloned() else {
            return settings;
        };
        settings.instances_max = own.instances_max.unwrap_or(settings.instances_max);
        // A user who lowers only the upper bound should not have to know the lower one.
        settings.instances_min =
            own.instances_min.unwrap_or(settings.instances_min.min(settings.instances_max));
        // Runtime clients of other languages start a whole process for each concurrent call.
        let concurrency = if own.command.is_some() { 1 } else { settings.concurrency };
        settings.concurrency = own.concurrency.unwrap_or(concurrency);
        settings.timeout_ms = own.timeout_ms.unwrap_or(settings.timeout_ms);
        settings.memory_mb = own.memory_mb.unwrap_or(settings.memory_mb);
        settings.idle_ms = own.idle_ms.unwrap_or(settings.idle_ms);
        settings.queue_max = own.queue_max.unwrap_or(settings.queue_max);
        settings.queue_wait_ms = own.queue_wait_ms.unwrap_or(settings.queue_wait_ms);
        // Of two variables with the same name the later one wins, which is the function's own.
        settings.environment.extend(own.environment.into_iter().flatten());
        settings.command = own.command.unwrap_or_default();
        settings.routes = own.routes.unwrap_or_default();
        settings
    }

    pub(super) fn validate(&self, key: &str) -> Result<(), ConfigError> {
        check_ranges(
            key,
            [
                ("instances_max", self.instances_max.into(), 1, 1_000),
                ("instances_min", self.instances_min.into(), 0, self.instances_max.into()),
                ("concurrency", self.concurrency.into(), 1, 1_000),
                ("timeout_ms", self.timeout_ms, 1, 900_000),
                ("memory_mb", self.memory_mb.into(), 64, 10_240),
                ("idle_ms", self.idle_ms, 100, 86_400_000),
                ("queue_max", self.queue_max as u64, 0, 1_000_000),
                ("queue_wait_ms", self.queue_wait_ms, 1, 900_000),
            ],
        )?;
        if self
            .environment
            .iter()
            .any(|variable| variable.split_once('=').is_none_or(|(name, _)| name.is_empty()))
        {
            return Err(bad(format!("{key}.environment"), "expected NAME=value in each"));
        }
        if let Some((name, _)) = self
            .variables()
            .find(|(name, _)| name.starts_with("AWS_LAMBDA_") || *name == "_HANDLER")
        {
            return Err(bad(
                format!("{key}.environment"),
                format!("{name} is set by the emulator"),
            ));
        }
        Ok(())
    }

    /// The variables of `environment` as pairs.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().filter_map(|variable| variable.split_once('='))
    }
}
