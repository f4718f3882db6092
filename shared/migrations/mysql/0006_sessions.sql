-- Every sign-in and its end. The fast store holds the living ones too; what it loses comes back from here.
-- `end_due_at_ms`: when the fast store is to be told (again) that the session has ended; NULL when nothing is left to tell.
CREATE TABLE sessions (
    session_id    CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id       CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    role          VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    expires_at_ms BIGINT      NOT NULL,
    ended_at_ms   BIGINT,
    end_due_at_ms BIGINT,
    PRIMARY KEY (session_id),
    KEY sessions_of_user (user_id),
    KEY sessions_by_expiry (expires_at_ms),
    KEY sessions_ends_due (end_due_at_ms),
    CONSTRAINT sessions_role_known CHECK (role IN ('shopper', 'admin')),
    CONSTRAINT sessions_due_when_ended CHECK (end_due_at_ms IS NULL OR ended_at_ms IS NOT NULL)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
