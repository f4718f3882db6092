//! Log lines: text for people, JSON for machines, always on standard error.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

use crate::config::{Config, ConfigError, LogFormat};

/// Starts logging as configured. A second call in one process changes nothing.
///
/// # Errors
/// When the filter can't be read.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let lines = fmt().with_env_filter(filter(&config.log)?).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    // An error says only that logging was started before.
    drop(started);
    Ok(())
}

/// Whose lines are not shown unless the filter names it. lapin logs again what it has returned to us as an error, and reports a
/// connection that was closed in good order as broken when the server's goodbye and the end of the stream arrive together.
/// What matters of it our adapter says in its own words.
const SILENT: &str = "lapin";

fn filter(log: &str) -> Result<EnvFilter, ConfigError> {
    let log = if log.contains(SILENT) { log.to_owned() } else { format!("{log},{SILENT}=off") };
    EnvFilter::try_new(log).map_err(|error| ConfigError::Value {
        key: "log".to_owned(),
        expected: format!("a level such as info, or a filter such as info,flashsale=debug ({error})"),
    })
}

/// Lets one line a second through: an outage fails thousands of requests, all for the same reason.
pub type OncePerSecond = OncePer<1>;
/// Lets one line a minute through: what an operator has to mend, and every request meets.
pub type OncePerMinute = OncePer<60>;

/// Lets one line through in so many seconds.
pub struct OncePer<const SECONDS: i64> {
    last_ms: AtomicI64,
    left_out: AtomicU64,
}

impl<const SECONDS: i64> OncePer<SECONDS> {
    const PERIOD_MS: i64 = SECONDS * 1_000;

    /// None was let through yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made in statics, where Default can't be called")]
    pub const fn new() -> Self {
        Self { last_ms: AtomicI64::new(0), left_out: AtomicU64::new(0) }
    }

    /// `Some(lines left out since the last one)` when a line may be written now.
    pub fn pass(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        // Not a time of the product, only a pace; the first line is let through at once.
        let since_ms = START.get_or_init(Instant::now).elapsed().as_millis() as i64;
        self.pass_at(since_ms + Self::PERIOD_MS)
    }

    fn pass_at(&self, now: i64) -> Option<u64> {
        let last = self.last_ms.load(Ordering::Relaxed);
        let due = now - last >= Self::PERIOD_MS && self.last_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_s_library_is_silent_unless_it_is_named() {
        assert_eq!(filter("info").unwrap().to_string(), "lapin=off,info");
        assert_eq!(filter("warn,flashsale=debug").unwrap().to_string(), "flashsale=debug,lapin=off,warn");
        assert_eq!(filter("info,lapin=trace").unwrap().to_string(), "lapin=trace,info");
        assert!(filter("info,flashsale=loud").is_err());
    }

    #[test]
    fn one_line_a_second_counts_those_left_out() {
        let lines = OncePerSecond::new();
        assert_eq!(lines.pass_at(1_000), Some(0));
        assert_eq!(lines.pass_at(1_001), None);
        assert_eq!(lines.pass_at(1_999), None);
        assert_eq!(lines.pass_at(2_000), Some(2));
        let lines = OncePerMinute::new();
        assert_eq!((lines.pass_at(60_000), lines.pass_at(119_999), lines.pass_at(120_000)), (Some(0), None, Some(1)));
    }
}
