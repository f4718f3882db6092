//! What the shared cache keeps.

/// A value for the shared cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Where it is found.
    pub key: String,
    /// Never replaces a value with a higher version.
    pub version: u64,
    /// The bytes to keep.
    pub value: Vec<u8>,
    /// How long to keep them, in milliseconds; at least 1.
    pub ttl_ms: u64,
}
