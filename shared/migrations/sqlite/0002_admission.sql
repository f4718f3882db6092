-- The admission store: per sale its state and terms, the orders that hold a unit, and the orders that have ended.
CREATE TABLE admission_sales (
    sale_id        TEXT    NOT NULL PRIMARY KEY,
    state          TEXT    NOT NULL CHECK (state IN ('open', 'rebuilding')),
    epoch          INTEGER NOT NULL,
    since_ms       INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    stock          INTEGER NOT NULL CHECK (stock >= 0),
    per_user_limit INTEGER NOT NULL,
    price          INTEGER NOT NULL,
    currency       TEXT    NOT NULL,
    starts_at_ms   INTEGER NOT NULL,
    ends_at_ms     INTEGER NOT NULL,
    -- Rows of admission_orders of this sale, and those of them that are settled. Kept by the triggers below and by
    -- nothing else, because counting the rows anew for every buyer would cost as much as there are winners.
    held           INTEGER NOT NULL DEFAULT 0,
    settled        INTEGER NOT NULL DEFAULT 0,
    CHECK (settled BETWEEN 0 AND held)
) STRICT;

CREATE TABLE admission_orders (
    -- The place in paging.
    place          INTEGER PRIMARY KEY,
    sale_id        TEXT    NOT NULL REFERENCES admission_sales,
    order_id       TEXT    NOT NULL,
    user_id        TEXT    NOT NULL,
    price          INTEGER NOT NULL,
    currency       TEXT    NOT NULL,
    admitted_at_ms INTEGER NOT NULL,
    traceparent    TEXT,
    -- When it was admitted or last claimed as overdue; NULL once it is settled.
    watched_ms     INTEGER,
    UNIQUE (sale_id, order_id)
) STRICT;

CREATE INDEX admission_orders_places ON admission_orders (sale_id);
CREATE INDEX admission_orders_buyers ON admission_orders (sale_id, user_id);
CREATE INDEX admission_orders_overdue ON admission_orders (sale_id, watched_ms, order_id) WHERE watched_ms IS NOT NULL;

-- Kept also for a sale that is not loaded, so that a rebuild does not bring an order back.
CREATE TABLE admission_ended (
    sale_id  TEXT NOT NULL,
    order_id TEXT NOT NULL,
    PRIMARY KEY (sale_id, order_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER admission_orders_added AFTER INSERT ON admission_orders BEGIN
    UPDATE admission_sales SET held = held + 1, settled = settled + (NEW.watched_ms IS NULL) WHERE sale_id = NEW.sale_id;
END;

CREATE TRIGGER admission_orders_removed AFTER DELETE ON admission_orders BEGIN
    UPDATE admission_sales SET held = held - 1, settled = settled - (OLD.watched_ms IS NULL) WHERE sale_id = OLD.sale_id;
END;

CREATE TRIGGER admission_orders_settled AFTER UPDATE OF watched_ms ON admission_orders
WHEN (OLD.watched_ms IS NULL) <> (NEW.watched_ms IS NULL) BEGIN
    UPDATE admission_sales SET settled = settled + (NEW.watched_ms IS NULL) - (OLD.watched_ms IS NULL) WHERE sale_id = NEW.sale_id;
END;
