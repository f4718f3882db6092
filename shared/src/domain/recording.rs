//! Recording.

use super::Order;

/// An order that can never be recorded, whatever is tried: what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unrecordable(pub String);

/// An order that recording found in the ledger or put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The order as the ledger holds it now: its status is never `Queued`.
    pub order: Order,
    /// Whether this call inserted it; `false` when it was there already, in whatever status.
    pub fresh: bool,
}
