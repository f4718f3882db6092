-- `arrival`: the number of a late entry, from 0 on; NULL when it was in time.
CREATE TABLE entries (
    sale_id       CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id       CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    entered_at_ms BIGINT   NOT NULL,
    arrival       BIGINT   NULL,
    PRIMARY KEY (sale_id, user_id),
    CONSTRAINT entries_arrive_one_by_one UNIQUE (sale_id, arrival),
    CONSTRAINT entries_arrival_not_negative CHECK (arrival >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
