-- Counts the users of a line. Changes nothing.
--
-- KEYS[1] line
-- ARGV[1] the lowest key of a late entry
--
-- Returns {users in time, late ones}.
local late = redis.call('ZCOUNT', KEYS[1], ARGV[1], '+inf')
return {redis.call('ZCARD', KEYS[1]) - late, late}
