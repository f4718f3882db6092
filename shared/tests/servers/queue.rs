//! Suites of the queue ports on real servers.
