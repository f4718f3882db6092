//! What a request's log lines carry when its span is not exported: the request's id, and the ids of
//! its trace if lines show them.
//!
//! It is kept beside the request's task, and read only when a line is written. A span would be made
//! for each request, also for the thousands of refusals that log nothing.

use lambda_http::http::HeaderValue;

use crate::trace::TraceContext;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The request that a task works on.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The request's id.
    pub(crate) id: HeaderValue,
    /// Its trace.
    pub(crate) trace: Option<TraceContext>,
}

impl RequestContext {
    /// Runs a future for this request.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Runs a function for this request.
    pub(crate) fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// The request that the current task works on, if any.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Names and values for a log line.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let id = self.id.to_str().unwrap_or_default().to_owned();
        let trace = self
            .trace
            .map(|trace| [("trace_id", trace.trace_id_text()), ("span_id", trace.span_id_text())]);
        std::iter::once(("request_id", id)).chain(trace.into_iter().flatten())
    }
}
