-- By what the creation of a sale is recognised when it is asked for again: a digest of the caller and the caller's key, and one
-- of the request.
ALTER TABLE sales
    ADD COLUMN creation_key     CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN creation_request CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD UNIQUE KEY sales_created_once (creation_key)
