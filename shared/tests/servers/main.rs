//! Every contract suite on real servers that this binary starts for itself. `infra/test` runs them
//! all; they are `#[ignore]`d so that a plain `cargo test` needs no server, and they fail, never
//! pass, where a server is missing.

mod admission;
mod gate;
mod ledger;
mod queue;
mod rebuild;
mod redis_faults;
mod schema;
mod support;
