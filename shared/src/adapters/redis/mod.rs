//! Redis 6.0 or newer, a single server or a cluster.
//!
//! All decisions are Lua scripts, so each is atomic and takes one round trip. Their sources are in
//! `lua/`, beside the code that loads them. The keys of one script share a hash tag, `{user}` or
//! `{sale}`, so that a cluster can run it; on a single server a script may use several. [`keys`] lists every key of the gate, the locks and the
//! cache.

mod admission;
mod blacklist;
mod cache;
mod calls;
mod captchas;
mod checkout;
mod connection;
mod consumer_reports;
mod errors;
mod failures;
mod gate;
mod health;
mod keys;
mod line;
mod locks;
mod phone_codes;
mod script;
mod sentinel;
mod sessions;
mod slot;

pub use checkout::SingleRedis;
pub use connection::{Redis, RedisUrlError};
