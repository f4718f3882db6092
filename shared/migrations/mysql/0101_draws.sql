-- The draw of each sale by draw. `in_time` and `late` count its entries, `invited` its invitations; they change only together with those rows.
CREATE TABLE draws (
    sale_id      CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seed         BINARY(32)   NOT NULL,
    beacon_value VARCHAR(200) NULL,
    closed_at_ms BIGINT       NULL,
    in_time      BIGINT       NOT NULL,
    late         BIGINT       NOT NULL,
    invited      BIGINT       NOT NULL,
    PRIMARY KEY (sale_id),
    CONSTRAINT draws_counts_not_negative CHECK (in_time >= 0 AND late >= 0 AND invited >= 0),
    CONSTRAINT draws_invited_are_in_line CHECK (invited <= in_time + late),
    CONSTRAINT draws_invited_after_close CHECK (invited = 0 OR closed_at_ms IS NOT NULL)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
