-- When a code sent to the phone first proved that the user has it; NULL: never. Users registered without verification have none.
ALTER TABLE users ADD COLUMN phone_verified_at_ms INTEGER;
