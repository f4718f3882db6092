//! A small Lambda service: runs functions as processes, gives them events over the Lambda Runtime API, and takes their
//! answers.
//!
//! ```text
//! gateway ┐                       ┌ Instance: one process, and the Runtime API on a port of its own
//! poller  ├ Fleet ── Function ────┤
//! invoke  ┘  by name  queue, scale└ Instance …
//! ```
//!
//! A [`Function`] holds everything that is decided (who waits, who works, who is started) under one lock; an instance
//! only carries bytes and tells what happened to its process. Sources: the Runtime API and the Invoke API as AWS's
//! developer guide describes them.
//!
//! Deliberately absent: versions and aliases, layers, extensions, response streaming, SnapStart, credentials for AWS, and
//! a memory of asynchronous invocations that outlives the emulator.

mod catalogue;
mod fleet;
mod function;
mod http_event;
mod instance;
mod invocation;
mod logs;
mod process;
mod runtime_api;

pub use catalogue::{HTTP_FUNCTIONS, function_names, http_function, is_ours, reference, routes};
pub use fleet::Fleet;
#[cfg(test)]
pub use fleet::RESERVED;
pub use function::new_id;
pub use http_event::{HttpEvent, answer_to_response};
pub use invocation::{FunctionError, Invocation, PAYLOAD_BYTES_MAX, Refusal, Reply};
