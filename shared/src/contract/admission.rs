//! Suites of the admission ports.
