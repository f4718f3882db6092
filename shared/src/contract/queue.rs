//! Suites of the queue ports.
