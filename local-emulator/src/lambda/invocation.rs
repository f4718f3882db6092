//! Invocations and their results.

use std::{fmt, time::Duration};

use hyper::body::Bytes;
use serde_json::{Value, json};

/// Largest payload of an invocation and of its answer, as with Lambda.
pub const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

/// One call of a function.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// The event, JSON.
    pub payload: Bytes,
    /// The client context, JSON.
    pub client_context: Option<String>,
    /// An X-Ray trace header to pass on.
    pub trace_id: Option<String>,
    /// Whether the end of the log is wanted.
    pub log_tail: bool,
}

/// The answer of a function that was called.
#[derive(Debug, Clone)]
pub struct Reply {
    pub request_id: String,
    pub result: Result<Bytes, FunctionError>,
    /// The end of the log, when it was wanted.
    pub log: Option<Vec<u8>>,
}

/// The function failed: it reported an error, or the emulator detected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// `{"errorType", "errorMessage", …}`
    pub payload: Bytes,
    /// Whether it exceeded its time.
    pub timed_out: bool,
}

impl FunctionError {
    fn ours(kind: &str, request_id: &str, what: &str) -> Self {
        let payload = json!({ "errorType": kind, "errorMessage": format!("RequestId: {request_id} Error: {what}") });
        Self { payload: Bytes::from(payload.to_string()), timed_out: false }
    }

    /// An error that the function reported.
    pub fn reported(payload: Bytes) -> Self {
        Self { payload, timed_out: false }
    }

    /// The process ended during the invocation.
    pub fn crashed(request_id: &str, how: &str) -> Self {
        Self::ours("Runtime.ExitError", request_id, &format!("Runtime exited with error: {how}"))
    }

    /// The process did not become ready.
    pub fn init(request_id: &str, why: &str) -> Self {
        Self::ours("Runtime.InitError", request_id, why)
    }

    /// It exceeded its time.
    pub fn timed_out(request_id: &str, after: Duration) -> Self {
        let error = Self::ours(
            "Sandbox.Timedout",
            request_id,
            &format!("Task timed out after {:.2} seconds", after.as_secs_f64()),
        );
        Self { timed_out: true, ..error }
    }

    /// The answer exceeds [`PAYLOAD_BYTES_MAX`].
    pub fn response_too_large(request_id: &str) -> Self {
        let what = format!(
            "Response payload size exceeded maximum allowed payload size ({PAYLOAD_BYTES_MAX} bytes)."
        );
        Self::ours("Function.ResponseSizeTooLarge", request_id, &what)
    }

    /// The error in one line, for logs.
    pub fn brief(&self) -> String {
        let json: Value = serde_json::from_slice(&self.payload).unwrap_or_default();
        let field = |name: &str| json[name].as_str().unwrap_or("?").to_owned();
        format!("{}: {}", field("errorType"), field("errorMessage"))
    }
}

/// The function was not called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no function of this name.
    NoSuchFunction,
    /// The instances and the queue are full.
    Throttled,
    /// The emulator is stopping.
    Stopping,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchFunction => "there is no such function",
            Self::Throttled => "as many requests as may be are being worked on or waiting",
            Self::Stopping => "the emulator is about to end",
        })
    }
}
