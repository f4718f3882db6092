//! Redis 6.0 or newer, a single server or a cluster.
//!
//! All decisions are Lua scripts, so each is atomic and one round trip; their sources stand in `lua/` beside the code
//! that loads them. The keys of one script share a hash tag, `{user}` or `{sale}`, so that a cluster can run it.

mod admission;
mod connection;

pub use connection::Redis;
