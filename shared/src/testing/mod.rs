//! Test support: a manual clock, test data, a shop of in-memory ports, a proxy that injects faults,
//! a Runtime API for one function, and [`contract`], the suites that every adapter of a port
//! passes.

mod clock;
pub mod contract;
mod data;
mod proof;
mod proxy;
pub mod runtime_api;
mod shop;

pub use clock::ManualClock;
pub use data::*;
pub use proof::work_answer;
pub use proxy::{Fault, FaultProxy};
pub use shop::{KnownAnswer, PASSWORD, Reply, Shop, Site, TempDir, admin, client_at};
