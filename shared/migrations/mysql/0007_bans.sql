-- The operators' bans. The fast store holds them too; what it loses comes back from here.
-- `version` counts the changes of a row. `share_due_at_ms`: when the fast store is to be told (again); NULL when nothing is left to tell.
CREATE TABLE bans (
    kind            VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    value           VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason          VARCHAR(500) NOT NULL,
    created_at_ms   BIGINT       NOT NULL,
    expires_at_ms   BIGINT,
    lifted_at_ms    BIGINT,
    changed_at_ms   BIGINT       NOT NULL,
    version         BIGINT       NOT NULL,
    share_due_at_ms BIGINT,
    PRIMARY KEY (kind, value),
    KEY bans_share_due (share_due_at_ms)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
