-- Raised by whatever ends a user's sessions: a session is opened only for the generation that was read with the password's hash.
ALTER TABLE users ADD COLUMN generation BIGINT NOT NULL DEFAULT 0
