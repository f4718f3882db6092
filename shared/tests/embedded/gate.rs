//! Suites of the gate ports on the embedded adapters.
