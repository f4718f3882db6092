-- Lifts a ban unless it is too new.
--
-- KEYS  1 ban
-- ARGV  1 lift a ban that was created at or before this, milliseconds
--
-- Returns 1, 0 when there was none, or -1 when it was created later.

local ban = redis.call('GET', KEYS[1])
if not ban then
  return 0
end
if tonumber(string.match(ban, '^%S+ (%S+)')) > tonumber(ARGV[1]) then
  return -1
end
redis.call('DEL', KEYS[1])
return 1
