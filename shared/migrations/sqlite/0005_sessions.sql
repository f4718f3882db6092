-- Sessions and the operators' bans become a part of the ledger; the journal that the embedded gate had is taken over.

-- Raised by whatever ends a user's sessions: a session is opened only for the generation that was read with the password's hash.
ALTER TABLE users ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

ALTER TABLE sessions RENAME TO journal_sessions;
ALTER TABLE bans RENAME TO journal_bans;

CREATE TABLE sessions (
    session_id    TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER,
    -- When the fast store is to be told (again) that the session has ended; NULL when nothing is left to tell.
    end_due_at_ms INTEGER,
    CONSTRAINT sessions_role_known CHECK (role IN ('shopper', 'admin')),
    CONSTRAINT sessions_due_when_ended CHECK (end_due_at_ms IS NULL OR ended_at_ms IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);
CREATE INDEX sessions_ends_due ON sessions (end_due_at_ms) WHERE end_due_at_ms IS NOT NULL;

INSERT INTO sessions (session_id, user_id, role, expires_at_ms)
SELECT session_id, user_id, users.role, expires_at FROM journal_sessions JOIN users USING (user_id);

CREATE TABLE bans (
    kind            TEXT    NOT NULL,
    value           TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER,
    lifted_at_ms    INTEGER,
    changed_at_ms   INTEGER NOT NULL,
    -- Counts the changes of the row.
    version         INTEGER NOT NULL,
    -- When the fast store is to be told (again); NULL when nothing is left to tell.
    share_due_at_ms INTEGER,
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;

CREATE INDEX bans_share_due ON bans (share_due_at_ms) WHERE share_due_at_ms IS NOT NULL;

INSERT INTO bans (kind, value, reason, created_at_ms, expires_at_ms, changed_at_ms, version)
SELECT kind, value, reason, created_at, expires_at, created_at, 1 FROM journal_bans;

DROP TABLE journal_sessions;
DROP TABLE journal_bans;
