-- Orders on their way to the ledger. AUTOINCREMENT: ids grow in the order of publishing and are never used again.
CREATE TABLE queue_messages (
    message_id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL,
    -- How often it was handed back.
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0)
) STRICT;

-- Messages that were put aside, for people to look at.
CREATE TABLE queue_parked (
    parked_id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL,
    reason TEXT NOT NULL
) STRICT;
