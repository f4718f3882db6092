//! Which trace a piece of work belongs to (W3C trace context), and the spans that an exporter may
//! see.
//!
//! A request gets a [`TraceContext`] if something uses it: JSON logs, whose lines contain its ids,
//! or an installed [`Exporter`]. The context travels with an order through the queue, and to a
//! function's process in the header `traceparent`. Nothing here depends on OpenTelemetry: the
//! emulator installs the exporter, a function has none.
//!
//! Spans have the target [`TARGET`], or [`STEP`] below one of those. Without an exporter both
//! targets are switched off when logging starts, so a span costs the check of one flag. With an
//! exporter only sampled work makes spans: code that begins a trace calls [`sample`] first, and a
//! step is made only inside a span that is exported.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use lambda_http::http::Method;
use tracing::Span;

use crate::domain::{AdmittedOrder, OrderId};

/// The target of spans that begin a trace, or continue one from another process. They are made only
/// when sampled.
pub const TARGET: &str = "flashsale::trace";
/// The target of the steps within them. Log lines never show a step.
pub const STEP: &str = "flashsale::trace::step";

/// The header that carries a context, as W3C names it.
pub const TRACEPARENT: &str = "traceparent";

/// A reference to a span: its trace, its own id, and whether it is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: u128,
    /// 8 bytes, not all zero.
    pub span_id: u64,
    /// Whether the span is exported.
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace that is not exported.
    fn unsampled() -> Self {
        let trace_id = u128::from(random()) << 64 | u128::from(random());
        // Zero would mean "no id"; a random zero is as unlikely as any other number.
        Self { trace_id: trace_id.max(1), span_id: random().max(1), sampled: false }
    }

    /// The trace's id as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span's id as 16 hexadecimal digits.
    #[must_use]
    pub fn span_id_text(&self) -> String {
        format!("{:016x}", self.span_id)
    }
}

/// In the format of the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// The text is not a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a W3C traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)]
pub struct NoTraceContext;

impl FromStr for TraceContext {
    type Err = NoTraceContext;

    /// Parses version 00, and of later versions the part that version 00 has, as the standard
    /// demands.
    fn from_str(text: &str) -> Result<Self, NoTraceContext> {
        const BYTES: usize = 55;
        let bytes = text.as_bytes();
        let (version, rest) = (text.get(..2), bytes.get(BYTES));
        let shaped = bytes.len() >= BYTES
            && [2, 35, 52].iter().all(|at| bytes[*at] == b'-')
            && bytes[..BYTES].iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'f'))
            && match version {
                Some("ff") | None => false,
                Some("00") => rest.is_none(),
                Some(_) => rest.is_none_or(|byte| *byte == b'-'),
            };
        if !shaped {
            return Err(NoTraceContext);
        }
        let hex = |part: &str| u128::from_str_radix(part, 16).map_err(|_| NoTraceContext);
        let (trace_id, flags) = (hex(&text[3..35])?, hex(&text[53..55])?);
        let span_id = u64::from_str_radix(&text[36..52], 16).map_err(|_| NoTraceContext)?;
        if trace_id == 0 || span_id == 0 {
            return Err(NoTraceContext);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// An unpredictable number, made without a system call.
#[must_use]
pub fn random() -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    KEY.get_or_init(RandomState::new).hash_one(NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Converts spans for a collector. A process has at most one exporter.
pub trait Exporter: fmt::Debug + Send + Sync {
    /// Decides whether to export the next trace that begins here.
    fn samples(&self) -> bool;
    /// Makes a new span a child of `parent`, which belongs to another process.
    fn continues(&self, span: &Span, parent: TraceContext);
    /// The span's context, for references to it; `None` if it is not exported.
    fn context(&self, span: &Span) -> Option<TraceContext>;
    /// Links a span to another one.
    fn link(&self, span: &Span, other: TraceContext);
    /// Records in a request's span how it was answered.
    fn answered(&self, span: &Span, answered: &Answered<'_>);
}

/// The exported fields of a request. Without its path, which is the client's text and may contain
/// anything.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of every HTTP request")]
pub struct Answered<'a> {
    pub method: &'a Method,
    pub status: u16,
    /// The function and its route; `None` if no function was reached.
    pub route: Option<&'a Route>,
}

/// The function that answered a request; stored in the extensions of a sampled request's response.
#[derive(Debug, Clone)]
pub struct Route {
    /// The function's name.
    pub function: String,
    /// The route's pattern, such as `/api/sales/{sale_id}`.
    pub pattern: String,
}

static EXPORTER: OnceLock<Box<dyn Exporter>> = OnceLock::new();
/// Whether log lines contain the ids of traces.
static LOGGED: AtomicBool = AtomicBool::new(false);

/// Installs the exporter. A second call in one process changes nothing.
pub fn install(exporter: Box<dyn Exporter>) {
    // The error contains the second exporter, which is not needed.
    let _ = EXPORTER.set(exporter);
}

/// Makes log lines contain the ids of traces from now on.
pub(crate) fn log_ids() {
    LOGGED.store(true, Ordering::Relaxed);
}

/// The installed exporter, if any.
#[must_use]
pub fn exporter() -> Option<&'static dyn Exporter> {
    EXPORTER.get().map(AsRef::as_ref)
}

/// Whether a request gets a context.
pub(crate) fn wanted() -> bool {
    LOGGED.load(Ordering::Relaxed) || exporter().is_some()
}

/// The exporter, if the next trace that begins here is to be exported.
#[must_use]
pub fn sample() -> Option<&'static dyn Exporter> {
    exporter().filter(|exporter| exporter.samples())
}

/// The context of a request that is not exported. An incoming context is passed on unchanged,
/// because another process may export it; but if an exporter has decided against it here, the
/// sampled flag is cleared.
pub(crate) fn unexported(incoming: Option<TraceContext>) -> TraceContext {
    let mut context = incoming.unwrap_or_else(TraceContext::unsampled);
    context.sampled &= exporter().is_none();
    context
}

/// The context that travels with an order: that of the step that publishes it, or of its request.
pub(crate) fn carried(step: &Span, request: Option<TraceContext>) -> Option<String> {
    let step = exporter().and_then(|exporter| exporter.context(step));
    step.or(request).map(|context| context.to_string())
}

/// The id of an order's trace, for a log line.
pub(crate) fn trace_id(request: &AdmittedOrder) -> Option<String> {
    Some(request.traceparent.as_deref()?.parse::<TraceContext>().ok()?.trace_id_text())
}

/// The spans of one batch of the order worker: one for the batch, and one in the trace of each
/// order whose request was exported. The batch has as many parents as orders, so it is linked to
/// them instead.
#[derive(Debug)]
pub(crate) struct BatchSpans {
    pub(crate) batch: Span,
    orders: Vec<(OrderId, Span)>,
}

impl BatchSpans {
    pub(crate) fn begin(requests: &[AdmittedOrder]) -> Self {
        let mut spans = Self { batch: Span::none(), orders: Vec::new() };
        let Some(exporter) = exporter() else { return spans };
        for request in requests {
            let parent =
                request.traceparent.as_deref().and_then(|text| text.parse::<TraceContext>().ok());
            let Some(parent) = parent.filter(|parent| parent.sampled) else { continue };
            if spans.batch.is_none() {
                spans.batch = tracing::info_span!(target: TARGET, parent: None, "record orders", flashsale.orders = requests.len());
            }
            let span = tracing::info_span!(
                target: TARGET, parent: None, "process order", otel.kind = "consumer", flashsale.order_id = %request.order_id
            );
            exporter.continues(&span, parent);
            exporter.link(&spans.batch, parent);
            if let Some(batch) = exporter.context(&spans.batch) {
                exporter.link(&span, batch);
            }
            spans.orders.push((request.order_id, span));
        }
        spans
    }

    fn of(&self, requests: &[AdmittedOrder]) -> impl Iterator<Item = &(OrderId, Span)> {
        self.orders
            .iter()
            .filter(|(order_id, _)| requests.iter().any(|request| request.order_id == *order_id))
    }

    /// Spans of the ledger's transaction in the traces of these orders. They are open until
    /// dropped.
    pub(crate) fn recording(&self, requests: &[AdmittedOrder]) -> Vec<Span> {
        let spans = self.of(requests);
        spans.map(|(_, order)| tracing::info_span!(target: TARGET, parent: order, "ledger.record", otel.kind = "client")).collect()
    }

    /// Like [`BatchSpans::recording`], for settling the orders in the admission store.
    pub(crate) fn settling(&self, requests: &[AdmittedOrder]) -> Vec<Span> {
        let spans = self.of(requests);
        spans.map(|(_, order)| tracing::info_span!(target: TARGET, parent: order, "admission.settle", otel.kind = "client")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context: TraceContext = GIVEN.parse().unwrap();
        assert_eq!(
            (context.trace_id_text().as_str(), context.span_id_text().as_str()),
            (&GIVEN[3..35], &GIVEN[36..52])
        );
        assert!(context.sampled);
        assert_eq!(context.to_string(), GIVEN);
        let unsampled: TraceContext = GIVEN.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.sampled);
        // An unknown flag is ignored.
        assert!(!GIVEN.replace("-01", "-02").parse::<TraceContext>().unwrap().sampled);
        let later = GIVEN.replacen("00", "01", 1) + "-more";
        assert_eq!(later.parse(), Ok(context));
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for bad in [
            String::new(),
            "x".repeat(55),
            "\u{e9}".repeat(30),
            GIVEN.to_uppercase(),
            GIVEN[..54].to_owned(),
            format!("{GIVEN}0"),
            format!("{GIVEN}-more"),
            GIVEN.replacen("00", "ff", 1),
            GIVEN.replacen("00", "01", 1) + "more",
            GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GIVEN.replace("b7ad6b7169203331", &"0".repeat(16)),
            GIVEN.replace("-b7", "b7-"),
            GIVEN.replace("-01", "--1"),
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(NoTraceContext), "{bad}");
        }
    }

    #[test]
    fn a_new_context_is_one_of_its_own() {
        let (one, other) = (TraceContext::unsampled(), TraceContext::unsampled());
        assert_ne!(one.trace_id, other.trace_id);
        assert_ne!(one.span_id, other.span_id);
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
