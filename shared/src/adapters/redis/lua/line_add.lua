-- Adds users to the line of a sale that is loaded.
--
-- KEYS[1] sale   KEYS[2] line
-- ARGV[1...] for each user: key, user id as bytes
--
-- Returns 1, or 0 when the sale is missing.
local gc_at = redis.call('HGET', KEYS[1], 'gc_at')
if not gc_at then return 0 end
redis.call('ZADD', KEYS[2], unpack(ARGV))
-- A line that holds no more than this call added may be new and have no expiry yet.
if redis.call('ZCARD', KEYS[2]) <= #ARGV / 2 then redis.call('PEXPIREAT', KEYS[2], gc_at) end
return 1
