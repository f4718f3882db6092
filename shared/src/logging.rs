//! Log lines: text for people, JSON for machines, always on standard error.
//!
//! A JSON line has the fields of its event and, beside them, those of its request: `request_id`,
//! `trace_id`, `span_id`.

use std::{
    fmt::{self, Write as _},
    io::IsTerminal as _,
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    field::RecordFields,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{DefaultFields, Format, Json, JsonFields, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{Config, ConfigError, LogFormat},
    request_context::RequestContext,
    trace,
};

/// A layer that sees the spans in addition to the log.
pub type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging as configured. A second call in one process changes nothing.
///
/// # Errors
/// When the filter can't be parsed.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    start_with(config, None)
}

/// Like [`start`], with a layer that also sees the spans of [`trace`].
///
/// # Errors
/// As [`start`].
pub fn start_with(config: &Config, spans: Option<SpanLayer>) -> Result<(), ConfigError> {
    let filter = filter(&config.log)?;
    // Without a layer for spans the filter applies to the whole process, so that a rejected span or
    // event costs one comparison.
    let started = match spans {
        None => Registry::default().with(lines(config.log_format)).with(filter).try_init(),
        Some(spans) => {
            let lines = lines(config.log_format).with_filter(filter);
            Registry::default().with(spans).with(lines).try_init()
        }
    };
    // An error only says that logging was started before.
    if started.is_ok() && config.log_format == LogFormat::Json {
        trace::log_ids();
    }
    Ok(())
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            lines.with_ansi(std::io::stderr().is_terminal()).fmt_fields(TextFields).boxed()
        }
        LogFormat::Json => {
            lines.fmt_fields(JsonFields::new()).event_format(JsonLine::new()).boxed()
        }
    }
}

/// The fields of a line of text, followed by the request's.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        DefaultFields::new().format_fields(writer.by_ref(), fields)?;
        for (name, value) in RequestContext::current().iter().flat_map(RequestContext::fields) {
            write!(writer, " {name}={value}")?;
        }
        Ok(())
    }
}

/// One JSON object per line: the library's, with the fields of the event's span or of its request
/// added.
struct JsonLine(Format<Json>);

impl JsonLine {
    fn new() -> Self {
        Self(
            tracing_subscriber::fmt::format()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
        )
    }
}

impl<S, F> FormatEvent<S, F> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    F: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, F>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let span = context.lookup_current();
        let extensions = span.as_ref().map(|span| span.extensions());
        // Another JSON object.
        let fields =
            extensions.as_ref().and_then(|extensions| extensions.get::<FormattedFields<F>>());
        let fields = fields
            .and_then(|fields| fields.strip_prefix('{')?.strip_suffix('}'))
            .filter(|fields| !fields.is_empty());
        let mut more = fields.map(str::to_owned).unwrap_or_default();
        for (name, value) in RequestContext::current().iter().flat_map(RequestContext::fields) {
            let comma = if more.is_empty() { "" } else { "," };
            write!(more, "{comma}\"{name}\":{}", serde_json::Value::from(value))?;
        }
        match line.trim_end().strip_suffix('}') {
            Some(line) if !more.is_empty() => writeln!(writer, "{line},{more}}}"),
            _ => writer.write_str(&line),
        }
    }
}

/// The target that is silent unless the filter names it. lapin logs errors again that it has
/// returned to us, and reports a cleanly closed connection as broken if the server's goodbye and
/// the end of the stream arrive together. Our adapter logs what matters of it.
const SILENT: &str = "lapin";

fn filter(log: &str) -> Result<Targets, ConfigError> {
    let silent = if log.contains(SILENT) { String::new() } else { format!(",{SILENT}=off") };
    // Of the spans made for an exporter, log lines show only the requests, which have the highest
    // level. The others are switched off here, so that they cost nothing without an exporter.
    let log: Vec<_> = log.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let log = log.join(",");
    format!("{log}{silent},{}=error,{}=off", trace::TARGET, trace::STEP).parse().map_err(|error| {
        ConfigError::Value {
            key: "log".to_owned(),
            expected: format!(
                "a level such as info, or a filter such as info,flashsale=debug ({error})"
            ),
        }
    })
}

/// Passes one line per second: an outage fails thousands of requests, all for the same reason.
pub type OncePerSecond = OncePer<1>;
/// Passes one line per minute: for problems that every request meets until an operator mends them.
pub type OncePerMinute = OncePer<60>;

/// Passes one line per this many seconds.
pub struct OncePer<const SECONDS: i64> {
    last_ms: AtomicI64,
    left_out: AtomicU64,
}

impl<const SECONDS: i64> OncePer<SECONDS> {
    const PERIOD_MS: i64 = SECONDS * 1_000;

    /// No line has passed yet.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "made in statics, where Default can't be called"
    )]
    pub const fn new() -> Self {
        Self { last_ms: AtomicI64::new(0), left_out: AtomicU64::new(0) }
    }

    /// `Some(lines suppressed since the last one)` if a line may be written now.
    pub fn pass(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        // Only a rate limit, so the process's own clock is enough. The first line passes at once.
        let since_ms = START.get_or_init(Instant::now).elapsed().as_millis() as i64;
        self.pass_at(since_ms + Self::PERIOD_MS)
    }

    fn pass_at(&self, now: i64) -> Option<u64> {
        let last = self.last_ms.load(Ordering::Relaxed);
        let due = now - last >= Self::PERIOD_MS
            && self
                .last_ms
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
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
        assert_eq!(
            filter("info").unwrap().to_string(),
            "flashsale::trace::step=off,flashsale::trace=error,lapin=off,info"
        );
        assert_eq!(
            filter("warn,flashsale=debug").unwrap().to_string(),
            "flashsale::trace::step=off,flashsale::trace=error,flashsale=debug,lapin=off,warn"
        );
        assert_eq!(
            filter("info,lapin=trace").unwrap().to_string(),
            "flashsale::trace::step=off,flashsale::trace=error,lapin=trace,info"
        );
        assert_eq!(filter("info, ").unwrap().to_string(), filter("info").unwrap().to_string());
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
        assert_eq!(
            (lines.pass_at(60_000), lines.pass_at(119_999), lines.pass_at(120_000)),
            (Some(0), None, Some(1))
        );
    }
}
