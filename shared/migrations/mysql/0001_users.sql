-- Ids are UUIDs in text, times are milliseconds since 1970 (UTC).
-- One statement per file: this server commits each change of the schema by itself.
CREATE TABLE users (
    user_id       CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    phone         VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    role          VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at_ms BIGINT       NOT NULL,
    PRIMARY KEY (user_id),
    CONSTRAINT users_phone_once UNIQUE (phone),
    CONSTRAINT users_role_known CHECK (role IN ('shopper', 'admin'))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
