-- Every price that a sale has had, also the present one: an order can only have been admitted at one of them.
CREATE TABLE sale_prices (
    sale_id TEXT    NOT NULL,
    price   INTEGER NOT NULL,
    PRIMARY KEY (sale_id, price)
) STRICT, WITHOUT ROWID;

INSERT INTO sale_prices (sale_id, price) SELECT sale_id, price FROM sales;
