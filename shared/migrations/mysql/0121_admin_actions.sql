-- Who changed what, and when; written in the transaction of the change. `changes`: JSON, a list of fields with their values.
CREATE TABLE admin_actions (
    action_id      CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    at_ms          BIGINT       NOT NULL,
    admin_id       CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    address_prefix VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    kind           VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object         VARCHAR(200) NOT NULL,
    changes        MEDIUMTEXT   NOT NULL,
    PRIMARY KEY (action_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
