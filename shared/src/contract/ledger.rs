//! Suites of the ledger ports.
