//! Picks the adapters: the only place that names them. One `match` per address, by its scheme.

use crate::{config::Config, ports::Ports};

/// A backend can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum WireError {}

/// Connects.
pub async fn connect(_config: &Config) -> Result<Ports, WireError> {
    todo!()
}
