//! Suites of the gate ports on real servers.
