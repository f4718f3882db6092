//! Every contract suite on real servers that this binary starts itself. `infra/test` runs them all.
//! They are `#[ignore]`d so that a plain `cargo test` needs no server; if a server is missing they
//! fail and never pass.

mod admission;
mod gate;
mod ledger;
mod queue;
mod rebuild;
mod redis_faults;
mod schema;
mod support;
