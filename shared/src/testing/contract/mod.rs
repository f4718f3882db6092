//! The contract of each port as a suite that takes `&dyn Port`: every adapter passes it.

pub mod admission;
pub mod gate;
mod holders;
pub mod ledger;
pub mod queue;
pub mod schema;

pub use holders::suite as holders;
