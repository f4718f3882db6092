-- Adds invitations, and notes how many places were invited.
--
-- KEYS[1] sale   KEYS[2] invited
-- ARGV[1] places invited so far   ARGV[2] '1' when these are the last of them
-- ARGV[3...] for each invitation: its end in ms, its user's id
--
-- Returns 1, or 0 when nothing was done because the store has noted at least as many places, or the
-- sale is missing.
local sale = redis.call('HMGET', KEYS[1], 'state', 'invited', 'gc_at')
if not sale[1] then return 0 end
if tonumber(sale[2] or '0') >= tonumber(ARGV[1]) then return 0 end
if #ARGV > 2 then
  redis.call('ZADD', KEYS[2], unpack(ARGV, 3))
  redis.call('PEXPIREAT', KEYS[2], sale[3])
end
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'invited', ARGV[1]) end
return 1
