-- Columns of a sale by draw; NULL in a sale whose units go to the first who order.
ALTER TABLE sales
    ADD COLUMN entries_open_at_ms            BIGINT       NULL,
    ADD COLUMN invite_seconds                BIGINT       NULL,
    ADD COLUMN seed_hash                     CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN beacon                        VARCHAR(200) NULL,
    ADD COLUMN eligible_registered_before_ms BIGINT       NULL
