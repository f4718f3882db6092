-- By what the creation of a sale is recognised when it is asked for again: a digest of the caller and the caller's key, and one
-- of the request.
ALTER TABLE sales ADD COLUMN creation_key TEXT;
ALTER TABLE sales ADD COLUMN creation_request TEXT;
CREATE UNIQUE INDEX sales_created_once ON sales (creation_key);
