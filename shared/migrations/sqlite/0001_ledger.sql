-- Filled by the ledger adapter.
SELECT 1;
