-- How many active orders may be placed from one network; NULL: any number.
ALTER TABLE sales
    ADD COLUMN units_per_prefix BIGINT NULL,
    ADD CONSTRAINT sales_units_per_prefix_positive CHECK (units_per_prefix >= 1)
