//! Redis 6.0 or newer, a single server or a cluster.
//!
//! All decisions are Lua scripts, so each is atomic and takes one round trip. Their sources are in
//! `lua/`, beside the code that loads them. The keys of one script share a hash tag, `{user}` or
//! `{sale}`, so that a cluster can run it. [`keys`] lists every key of the gate, the locks and the
//! cache.

mod admission;
mod blacklist;
mod cache;
mod calls;
mod captchas;
mod connection;
mod consumer_reports;
mod errors;
mod failures;
mod gate;
mod health;
mod keys;
mod locks;
mod phone_codes;
mod script;
mod sentinel;
mod sessions;
mod slot;

pub use connection::{Redis, RedisUrlError};
