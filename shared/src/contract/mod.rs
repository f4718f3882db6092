//! What every adapter of a port must do, as one suite per port that takes `&dyn Port`, a clock to be set by hand, and
//! small makers of test data.

pub mod admission;
mod clock;
mod data;
pub mod gate;
mod holders;
pub mod ledger;
mod proxy;
pub mod queue;
pub mod runtime_api;
pub mod schema;

pub use clock::ManualClock;
pub use data::*;
pub use holders::suite as holders;
pub use proxy::{Fault, FaultProxy};
