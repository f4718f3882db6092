ALTER TABLE orders
    ADD COLUMN rehearsal_note    VARCHAR(32) NULL FIRST,
    ADD COLUMN rehearsal_release VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'previous',
    ADD KEY orders_rehearsed (rehearsal_release, created_at_ms)
