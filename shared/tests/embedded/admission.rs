//! Suites of the admission ports on the embedded adapters.
