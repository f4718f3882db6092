//! Adapters that keep everything in this process: fast, deterministic, gone when it ends.

mod admission;

pub use admission::MemoryAdmission;
