INSERT INTO rehearsals (order_id) SELECT order_id FROM orders
