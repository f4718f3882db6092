//! Everything that flashsale's functions share.
//!
//! Read in this order: [`domain`] says what a flash sale is, [`api`] what clients send and get, [`ports`] lists every trait
//! between the product and the outside, [`app`] holds the use cases, `adapters` hold the stores, and [`wire`] is the one
//! place that picks them.

pub mod api;
mod crypto;
pub mod domain;
pub mod http;
pub mod lambda;
pub mod logging;
pub mod metrics;
pub mod ports;
pub mod private_files;
pub mod problem;
mod request_context;
pub mod security;
pub mod trace;
pub mod wire;

pub mod adapters;
pub mod app;
pub mod config;

#[cfg(feature = "testing")]
pub mod testing;
