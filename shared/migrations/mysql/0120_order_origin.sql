-- `address_prefix`: the network from which the order was placed. `opened_at_ms`: the sale's start when the order was recorded.
-- `cancellation_reason`: why an administrator has cancelled the order.
ALTER TABLE orders
    ADD COLUMN address_prefix      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN opened_at_ms        BIGINT NULL,
    ADD COLUMN cancellation_reason VARCHAR(500) NULL
