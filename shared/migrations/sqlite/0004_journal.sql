-- What the embedded gate, which works in memory, must find again after a restart.

CREATE TABLE sessions (
    session_id TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL,
    expires_at INTEGER NOT NULL            -- epoch ms
) STRICT, WITHOUT ROWID;

CREATE TABLE bans (
    kind       TEXT    NOT NULL CHECK (kind IN ('user', 'address', 'phone')),
    value      TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,           -- epoch ms
    expires_at INTEGER,                    -- epoch ms; NULL: without end
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;
