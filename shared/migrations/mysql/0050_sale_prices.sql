-- Every price that a sale has had, also the present one: an order can only have been admitted at one of them.
CREATE TABLE sale_prices (
    sale_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    price   BIGINT   NOT NULL,
    PRIMARY KEY (sale_id, price)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
