//! The contract of each port as a suite that takes `&dyn Port`; every adapter passes it.

pub mod admission;
mod consumer_reports;
pub mod gate;
pub mod ledger;
pub mod queue;
pub mod schema;

pub use consumer_reports::suite as consumer_reports;
