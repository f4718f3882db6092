//! Suites of the ledger ports on real servers.
