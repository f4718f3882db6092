//! Suites of the gate ports.
