//! Every contract suite on the embedded adapters: SQLite and memory.

mod admission;
mod app;
mod gate;
mod ledger;
mod queue;
mod support;
