//! Suites of the admission ports on real servers.
