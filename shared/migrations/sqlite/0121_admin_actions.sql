-- Who changed what, and when; written in the transaction of the change.
CREATE TABLE admin_actions (
    action_id      TEXT    NOT NULL PRIMARY KEY,
    at_ms          INTEGER NOT NULL,
    admin_id       TEXT    NOT NULL,
    address_prefix TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    object         TEXT    NOT NULL,
    -- JSON: a list of fields with their values.
    changes        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
