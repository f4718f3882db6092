//! Test support: a manual clock, test data, a shop of in-memory ports, a proxy that injects faults,
//! a Runtime API for one function, an SMS gateway, and [`contract`], the suites that every adapter of a port
//! passes.

mod clock;
pub mod contract;
mod data;
mod fake_provider;
mod proof;
mod proxy;
pub mod runtime_api;
mod shop;
mod sms;

pub use clock::ManualClock;
pub use data::*;
pub use fake_provider::{Behaviour, FakeProvider, PROVIDER_HOSTNAME, PROVIDER_SECRET};
pub use proof::work_answer;
pub use proxy::{Fault, FaultProxy};
pub use shop::{KnownAnswer, PASSWORD, Reply, Shop, Site, TempDir, admin, client_at};
pub use sms::{GatewayAnswer, Received, SmsBox, SmsGateway};
