INSERT INTO sale_prices (sale_id, price) SELECT sale_id, price FROM sales
