-- Removes a phone's code if it is still the given one, so that only one caller uses it.
--
-- KEYS  1 code: "end attempts digest"
-- ARGV  1 now, milliseconds; 2 digest
--
-- Returns 1 if it was removed, else 0.

local value = redis.call('GET', KEYS[1])
local ends, digest
if value then
  ends, digest = string.match(value, '^(%d+) %d+ (%x+)$')
end
if digest ~= ARGV[2] or tonumber(ends) <= tonumber(ARGV[1]) then
  return 0
end
return redis.call('DEL', KEYS[1])
