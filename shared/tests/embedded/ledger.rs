//! Suites of the ledger ports on the embedded adapters.
