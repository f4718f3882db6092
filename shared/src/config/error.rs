//! Errors of the configuration.

/// An error of the configuration.
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
    /// An invalid value.
    #[error("{key}: {expected}")]
    Value {
        /// The key as it was given.
        key: String,
        /// What is expected instead.
        expected: String,
    },
}

pub(super) fn bad(key: impl Into<String>, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), expected: expected.into() }
}
