CREATE TABLE signing_keys (
    name   VARCHAR(64)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    secret VARBINARY(512) NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
