//! Locks with a lease.

/// A held lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub name: String,
    /// The holder's secret.
    pub token: u128,
    /// Grows with every acquisition of this name; the guarded resource refuses smaller ones.
    pub fence: u64,
}
