//! The emulator from the outside: the real binary, over HTTP, on the embedded stores and on real
//! servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod books;
mod browser;
mod client;
mod crash;
mod draw;
mod embedded;
mod emulator;
mod events;
mod gateway;
mod idempotency;
mod keys;
mod lambda;
mod load;
mod metrics;
mod needs;
mod openapi;
mod phone_codes;
mod progress;
mod sessions;
mod shop;
mod stopping;
mod storm;
mod supervised;
mod traces;
mod watch;
