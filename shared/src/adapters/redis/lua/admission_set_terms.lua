-- Replaces the terms of a sale that is loaded.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] overdue   KEYS[4] invited   KEYS[5] line
-- ARGV[1...9] the terms, see admission_terms.lua
--
-- Returns 1, or 0 when the sale is missing.
if redis.call('HEXISTS', KEYS[1], 'state') == 0 then return 0 end
put_terms(1)
return 1
