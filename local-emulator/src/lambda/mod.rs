//! A small Lambda service: runs functions as processes, gives them events over the Lambda Runtime API, and takes their
//! answers.
//!
//! ```text
//! gateway ┐                            ┌ Instance: one process, and the Runtime API on a port of its own
//! poller  ├ Fleet ── Function ── Pool ──┤
//! invoke  ┘  by name             queue  └ Instance …
//! ```
//!
//! A [`dispatcher::Dispatcher`] decides everything (which request waits, which instance works on it, what is started and ended)
//! and is pure; the pool holds it under one lock and carries its decisions out; an instance moves bytes and reports the end of
//! its process. Sources: the Runtime API and the Invoke API as AWS's developer guide describes them.
//!
//! Deliberately absent: versions and aliases, layers, extensions, response streaming, SnapStart, credentials for AWS, and
//! a memory of asynchronous invocations that outlives the emulator.

mod catalogue;
mod dispatcher;
mod fleet;
mod function;
mod http_event;
mod ids;
mod instance;
mod invocation;
mod logs;
mod pool;
mod process;
mod runtime_api;

pub use catalogue::{HTTP_FUNCTIONS, function_names, http_function, is_ours, reference, routes};
pub use fleet::Fleet;
#[cfg(test)]
pub use fleet::RESERVED;
pub use http_event::{HttpEvent, answer_to_response};
pub use ids::new_id;
pub use invocation::{FunctionError, Invocation, PAYLOAD_BYTES_MAX, Refusal, Reply};
