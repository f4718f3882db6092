-- The ledger. Ids are UUIDs in text, times are milliseconds since 1970 (UTC), money is in minor units.

CREATE TABLE users (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    phone         TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    CONSTRAINT users_phone_once UNIQUE (phone),
    CONSTRAINT users_role_known CHECK (role IN ('shopper', 'admin'))
) STRICT, WITHOUT ROWID;

CREATE TABLE sales (
    sale_id        TEXT    NOT NULL PRIMARY KEY,
    title          TEXT    NOT NULL,
    description    TEXT    NOT NULL,
    image_url      TEXT    NOT NULL,
    price          INTEGER NOT NULL,
    original_price INTEGER NOT NULL,
    currency       TEXT    NOT NULL,
    stock          INTEGER NOT NULL,
    -- Units held by active orders; changed only together with the order's row.
    sold           INTEGER NOT NULL,
    per_user_limit INTEGER NOT NULL,
    starts_at_ms   INTEGER NOT NULL,
    ends_at_ms     INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    CONSTRAINT sales_never_oversold CHECK (sold <= stock),
    CONSTRAINT sales_sold_not_negative CHECK (sold >= 0),
    CONSTRAINT sales_limit_positive CHECK (per_user_limit >= 1),
    CONSTRAINT sales_price_not_negative CHECK (price >= 0),
    CONSTRAINT sales_window CHECK (starts_at_ms < ends_at_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX sales_by_end ON sales (ends_at_ms, sale_id);

CREATE TABLE orders (
    order_id             TEXT    NOT NULL PRIMARY KEY,
    -- No foreign key: an order of an unknown sale is kept too, as rejected.
    sale_id              TEXT    NOT NULL,
    user_id              TEXT    NOT NULL,
    status               TEXT    NOT NULL,
    reason               TEXT,
    -- Which of the user's units of the sale this is, from 1 on; NULL once the order holds none.
    active_slot          INTEGER,
    price                INTEGER NOT NULL,
    currency             TEXT    NOT NULL,
    created_at_ms        INTEGER NOT NULL,
    pay_by_ms            INTEGER,
    updated_at_ms        INTEGER NOT NULL,
    -- When the admission store got the unit back; NULL while it has not.
    stock_returned_at_ms INTEGER,
    version              INTEGER NOT NULL,
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
) STRICT, WITHOUT ROWID;

CREATE INDEX orders_due ON orders (status, pay_by_ms);
CREATE INDEX orders_stock_to_return ON orders (status, stock_returned_at_ms);
CREATE INDEX orders_of_user ON orders (user_id, order_id);
CREATE INDEX orders_of_sale ON orders (sale_id, order_id);

CREATE TABLE signing_keys (
    name   TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;
