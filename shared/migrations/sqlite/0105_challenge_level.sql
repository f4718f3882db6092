-- How hard proofs of work are, as an operator set it last: one row, or none when nobody has. `version` counts its changes.
CREATE TABLE challenge_level (
    id            INTEGER NOT NULL PRIMARY KEY,
    level         TEXT    NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    version       INTEGER NOT NULL
) STRICT;
