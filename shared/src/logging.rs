//! Log lines: text for people, JSON for machines, always on standard error.

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

use crate::config::{Config, ConfigError, LogFormat};

/// Starts logging as configured. A second call in one process changes nothing.
///
/// # Errors
/// When the filter can't be read.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| ConfigError::Value {
        key: "log".to_owned(),
        expected: format!("a level such as info, or a filter such as info,flashsale=debug ({error})"),
    })?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    // An error says only that logging was started before.
    drop(started);
    Ok(())
}
