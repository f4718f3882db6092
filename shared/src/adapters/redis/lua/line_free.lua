-- Forgets invitations that have ended and counts the units that nobody holds and nobody is invited
-- to buy.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] invited
-- ARGV[1] now, ms
--
-- Returns nothing when the sale is not open, else {free units, invitations that last, places
-- invited}.
local sale = redis.call('HMGET', KEYS[1], 'state', 'stock', 'invited')
if sale[1] ~= 'open' then return false end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[1])
local invited = redis.call('ZCARD', KEYS[3])
local free = tonumber(sale[2]) - redis.call('HLEN', KEYS[2]) - invited
return {math.max(0, free), invited, tonumber(sale[3] or '0')}
