-- `active_slot`: which of the user's units of the sale this is, from 1 on; NULL once the order holds none.
-- `stock_returned_at_ms`: when the admission store got the unit back; NULL while it has not.
-- No foreign key to the sales: an order of an unknown sale is kept too, as rejected.
CREATE TABLE orders (
    order_id             CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    sale_id              CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id              CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    status               VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason               VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
    active_slot          BIGINT      NULL,
    price                BIGINT      NOT NULL,
    currency             CHAR(3)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at_ms        BIGINT      NOT NULL,
    pay_by_ms            BIGINT      NULL,
    updated_at_ms        BIGINT      NOT NULL,
    stock_returned_at_ms BIGINT      NULL,
    version              BIGINT      NOT NULL,
    PRIMARY KEY (order_id),
    KEY orders_due (status, pay_by_ms),
    KEY orders_stock_to_return (status, stock_returned_at_ms),
    KEY orders_of_user (user_id, order_id),
    KEY orders_of_sale (sale_id, order_id),
    CONSTRAINT orders_slot_held_once UNIQUE (sale_id, user_id, active_slot),
    CONSTRAINT orders_status_known CHECK (status IN ('confirmed', 'paid', 'cancelled', 'expired', 'rejected')),
    CONSTRAINT orders_slot_while_active CHECK ((active_slot IS NOT NULL) = (status IN ('confirmed', 'paid'))),
    CONSTRAINT orders_slot_positive CHECK (active_slot >= 1),
    CONSTRAINT orders_reason_known CHECK (reason IN ('sold-out', 'already-bought', 'unknown-sale')),
    CONSTRAINT orders_reason_when_rejected CHECK ((reason IS NOT NULL) = (status = 'rejected')),
    CONSTRAINT orders_pay_by_while_active CHECK (active_slot IS NULL OR pay_by_ms IS NOT NULL),
    CONSTRAINT orders_returned_when_inactive CHECK (stock_returned_at_ms IS NULL OR active_slot IS NULL),
    CONSTRAINT orders_price_not_negative CHECK (price >= 0),
    CONSTRAINT orders_version_positive CHECK (version >= 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
