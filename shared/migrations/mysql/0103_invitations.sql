-- Users of the line who were asked to buy; `place` is the user's place in the line, from 0 on.
CREATE TABLE invitations (
    sale_id       CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    place         BIGINT   NOT NULL,
    user_id       CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    invited_at_ms BIGINT   NOT NULL,
    until_ms      BIGINT   NOT NULL,
    PRIMARY KEY (sale_id, place),
    KEY invitations_by_end (sale_id, until_ms),
    CONSTRAINT invitations_once UNIQUE (sale_id, user_id),
    CONSTRAINT invitations_place_not_negative CHECK (place >= 0),
    CONSTRAINT invitations_last CHECK (invited_at_ms < until_ms)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
