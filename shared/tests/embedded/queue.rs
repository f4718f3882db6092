//! Suites of the queue ports on the embedded adapters.
