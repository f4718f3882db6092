//! A small Lambda service: runs functions as processes, sends them events over the Lambda Runtime
//! API, and receives their answers.
//!
//! ```text
//! gateway ┐                            ┌ Instance: one process, and the Runtime API on a port of its own
//! poller  ├ Fleet ── Function ── Pool ──┤
//! invoke  ┘  by name             queue  └ Instance …
//! ```
//!
//! A [`dispatcher::Dispatcher`], a pure state machine, makes all decisions: which request waits,
//! which instance works on it, and which instances are started and ended. The pool holds it under
//! one lock and carries out its decisions. An instance transfers events and answers and reports the
//! end of its process. Sources: the Runtime API and the Invoke API as AWS's developer guide
//! describes them.
//!
//! Deliberately absent: versions and aliases, layers, extensions, response streaming, SnapStart,
//! credentials for AWS, and persistence of asynchronous invocations.

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
