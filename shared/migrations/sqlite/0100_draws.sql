-- Columns of a sale by draw; NULL in a sale whose units go to the first who order.
ALTER TABLE sales ADD COLUMN entries_open_at_ms INTEGER;
ALTER TABLE sales ADD COLUMN invite_seconds INTEGER;
ALTER TABLE sales ADD COLUMN seed_hash TEXT;
ALTER TABLE sales ADD COLUMN beacon TEXT;
ALTER TABLE sales ADD COLUMN eligible_registered_before_ms INTEGER;

-- The draw of each sale by draw. `in_time` and `late` count its entries, `invited` its invitations; they change only together with those rows.
CREATE TABLE draws (
    sale_id      TEXT    NOT NULL PRIMARY KEY,
    seed         BLOB    NOT NULL,
    beacon_value TEXT,
    closed_at_ms INTEGER,
    in_time      INTEGER NOT NULL,
    late         INTEGER NOT NULL,
    invited      INTEGER NOT NULL,
    CONSTRAINT draws_counts_not_negative CHECK (in_time >= 0 AND late >= 0 AND invited >= 0),
    CONSTRAINT draws_invited_are_in_line CHECK (invited <= in_time + late),
    CONSTRAINT draws_invited_after_close CHECK (invited = 0 OR closed_at_ms IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- `arrival`: the number of a late entry, from 0 on; NULL when it was in time.
CREATE TABLE entries (
    sale_id       TEXT    NOT NULL,
    user_id       TEXT    NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    arrival       INTEGER,
    PRIMARY KEY (sale_id, user_id),
    CONSTRAINT entries_arrive_one_by_one UNIQUE (sale_id, arrival),
    CONSTRAINT entries_arrival_not_negative CHECK (arrival >= 0)
) STRICT, WITHOUT ROWID;

-- Users of the line who were asked to buy; `place` is the user's place in the line, from 0 on.
CREATE TABLE invitations (
    sale_id       TEXT    NOT NULL,
    place         INTEGER NOT NULL,
    user_id       TEXT    NOT NULL,
    invited_at_ms INTEGER NOT NULL,
    until_ms      INTEGER NOT NULL,
    PRIMARY KEY (sale_id, place),
    CONSTRAINT invitations_once UNIQUE (sale_id, user_id),
    CONSTRAINT invitations_place_not_negative CHECK (place >= 0),
    CONSTRAINT invitations_last CHECK (invited_at_ms < until_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX invitations_by_end ON invitations (sale_id, until_ms);
