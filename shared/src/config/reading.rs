//! Merges the sources of settings, and writes the result as text or as environment variables.

use std::fmt;

use toml::{Table, Value};

use super::error::{ConfigError, bad};

/// The defaults, with a comment on each.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");
/// The prefix of all our environment variables.
pub(super) const ENV_PREFIX: &str = "FLASHSALE_";

/// The section with one table per function. It may name functions that are missing in the defaults.
const FUNCTIONS: &str = "functions";
/// The section with the settings that each function's table may have.
const FUNCTION_DEFAULTS: &str = "function_defaults";
/// Keys that a function's table may have in addition.
const FUNCTION_LISTS: [&str; 2] = ["command", "routes"];

/// The effective values, as they were read. `Debug` does not show them, because they hold secrets.
#[derive(Clone, Default)]
pub(super) struct Effective(Table);

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Effective")
    }
}

impl Effective {
    pub(super) const fn new(table: Table) -> Self {
        Self(table)
    }

    /// Sets a top-level value.
    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), Value::String(value.to_owned()));
    }

    /// As TOML, with secrets masked.
    pub(super) fn masked(&self) -> String {
        let mut shown = self.0.clone();
        for key in ["redis_url", "database_url", "amqp_url"] {
            if let Some(Value::String(url)) = shown.get_mut(key)
                && let Some((scheme, rest)) = url.clone().split_once("://")
                && let Some((_, host)) = rest.rsplit_once('@')
            {
                *url = format!("{scheme}://***@{host}");
            }
        }
        for key in ["session_keys", "ticket_keys"] {
            mask(shown.get_mut(key), ':');
        }
        if let Some(secrets) =
            shown.get_mut("sms_webhook").and_then(|table| table.get_mut("secrets"))
        {
            for secret in secrets.as_array_mut().into_iter().flatten() {
                *secret = Value::String("***".to_owned());
            }
        }
        let provider = shown.get_mut("captchas").and_then(|table| table.get_mut("provider"));
        if let Some(Value::String(secret)) = provider.and_then(|table| table.get_mut("secret"))
            && !secret.is_empty()
        {
            "***".clone_into(secret);
        }
        mask(shown.get_mut("traces").and_then(|table| table.get_mut("headers")), '=');
        mask(shown.get_mut(FUNCTION_DEFAULTS).and_then(|table| table.get_mut("environment")), '=');
        if let Some(Value::Table(functions)) = shown.get_mut(FUNCTIONS) {
            for (_, function) in functions.iter_mut() {
                mask(function.get_mut("environment"), '=');
            }
        }
        toml::to_string(&shown).expect("a table read from TOML can be written as TOML")
    }

    /// As environment variables, without the keys left out and without values equal to the default.
    pub(super) fn as_environment(&self, left_out: &[&str]) -> Vec<(String, String)> {
        let defaults: Table = DEFAULTS.parse().expect("the defaults are checked by a test");
        let mut variables = Vec::new();
        for (key, value) in self.0.iter().filter(|(key, _)| !left_out.contains(&key.as_str())) {
            collect(
                ENV_PREFIX.to_owned() + &key.to_ascii_uppercase(),
                value,
                defaults.get(key),
                &mut variables,
            );
        }
        variables
    }
}

/// Masks the secret in each `name<separator>secret`.
fn mask(list: Option<&mut Value>, separator: char) {
    for entry in list.and_then(Value::as_array_mut).into_iter().flatten() {
        let name =
            entry.as_str().and_then(|text| text.split_once(separator)).map_or("", |(name, _)| name);
        *entry = Value::String(format!("{name}{separator}***"));
    }
}

fn collect(
    name: String,
    value: &Value,
    default: Option<&Value>,
    variables: &mut Vec<(String, String)>,
) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let default = default.and_then(|table| table.get(key));
                collect(format!("{name}__{}", key.to_ascii_uppercase()), value, default, variables);
            }
        }
        _ if Some(value) == default => {}
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            variables.push((name, items.join(",")));
        }
        Value::String(text) => variables.push((name, text.clone())),
        other => variables.push((name, other.to_string())),
    }
}

/// Merges a file's values over the defaults. A key that is missing in the defaults is refused.
pub(super) fn overlay(table: &mut Table, over: Table, path: &str) -> Result<(), ConfigError> {
    for (key, value) in over {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let (FUNCTIONS, Value::Table(function)) = (path, &value) {
            for (setting, value) in function {
                let full = format!("{full}.{setting}");
                let default = function_setting(table, &key, setting)
                    .ok_or_else(|| ConfigError::UnknownKey(full.clone()))?;
                if !default.same_type(value) {
                    return Err(bad(full, format!("expected {}", kind(&default))));
                }
            }
            let old = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            if let (Value::Table(old), Value::Table(new)) = (old, value) {
                old.extend(new);
            }
            continue;
        }
        match (table.get_mut(&key), value) {
            (None, _) => return Err(ConfigError::UnknownKey(full)),
            (Some(Value::Table(inner)), Value::Table(over)) => overlay(inner, over, &full)?,
            (Some(old), new) if old.same_type(&new) => *old = new,
            (Some(old), _) => return Err(bad(full, format!("expected {}", kind(old)))),
        }
    }
    Ok(())
}

/// An example value of the kind that a function's setting has. `functions` is the table of all
/// functions.
fn function_setting(functions: &Table, name: &str, setting: &str) -> Option<Value> {
    if FUNCTION_LISTS.contains(&setting) {
        return Some(Value::Array(Vec::new()));
    }
    let known = functions.get(name).and_then(|function| function.get(setting)).cloned();
    known.or_else(|| {
        let defaults: Table = DEFAULTS.parse().expect("the defaults are checked by a test");
        defaults.get(FUNCTION_DEFAULTS)?.get(setting).cloned()
    })
}

/// Sets one value given as text, parsed as the type of the default.
pub(super) fn set(
    table: &mut Table,
    path: &[&str],
    given: &str,
    text: &str,
) -> Result<(), ConfigError> {
    let unknown = || ConfigError::UnknownKey(given.to_owned());
    if let ([FUNCTIONS, name, setting], Some(Value::Table(functions))) =
        (path, table.get_mut(FUNCTIONS))
    {
        // Variable names can't contain the hyphen that a function's name may have.
        let name = functions
            .keys()
            .find(|known| known.replace('-', "_") == **name)
            .cloned()
            .unwrap_or_else(|| (*name).to_owned());
        let value =
            read(&function_setting(functions, &name, setting).ok_or_else(unknown)?, given, text)?;
        if let Value::Table(function) =
            functions.entry(name).or_insert_with(|| Value::Table(Table::new()))
        {
            function.insert((*setting).to_owned(), value);
        }
        return Ok(());
    }
    let (last, sections) = path.split_last().ok_or_else(unknown)?;
    let mut table = table;
    for section in sections {
        table = table.get_mut(*section).and_then(Value::as_table_mut).ok_or_else(unknown)?;
    }
    let old = table.get_mut(*last).ok_or_else(unknown)?;
    *old = read(old, given, text)?;
    Ok(())
}

/// Parses a text as a value of the same type as `like`.
fn read(like: &Value, given: &str, text: &str) -> Result<Value, ConfigError> {
    Ok(match like {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Integer(_) => Value::Integer(
            text.parse().map_err(|_| bad(given, format!("expected {}", kind(like))))?,
        ),
        Value::Array(_) => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        ),
        _ => return Err(ConfigError::UnknownKey(given.to_owned())),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "a whole number",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
        _ => "a text",
    }
}
