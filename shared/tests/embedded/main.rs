//! Every contract suite on the embedded adapters: SQLite and memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod administration;
mod admission;
mod app;
mod buying;
mod caps;
mod challenges;
mod draw;
mod finding;
mod flood;
mod gate;
mod ledger;
mod phone_codes;
mod provider;
mod queue;
mod restart;
mod schema;
mod sharing;
mod sms;
mod spies;
mod sweeping;
