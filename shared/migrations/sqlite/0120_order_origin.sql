-- The network from which the order was placed; the sale's start when the order was recorded; why an administrator has cancelled it.
ALTER TABLE orders ADD COLUMN address_prefix TEXT;
ALTER TABLE orders ADD COLUMN opened_at_ms INTEGER;
ALTER TABLE orders ADD COLUMN cancellation_reason TEXT;
