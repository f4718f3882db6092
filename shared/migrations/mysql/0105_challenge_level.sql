-- How hard proofs of work are, as an operator set it last: one row, or none when nobody has. `version` counts its changes.
CREATE TABLE challenge_level (
    id            BIGINT      NOT NULL,
    level         VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    changed_at_ms BIGINT      NOT NULL,
    version       BIGINT      NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
