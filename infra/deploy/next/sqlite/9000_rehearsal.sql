ALTER TABLE orders ADD COLUMN rehearsal_release TEXT NOT NULL DEFAULT 'previous';
