-- Takes one attempt of a phone's code.
--
-- KEYS  1 code: "end attempts digest"
-- ARGV  1 now, milliseconds
--
-- Returns the digest, or nothing when there is no code, it has expired, or no attempt is left.

local value = redis.call('GET', KEYS[1])
if not value then
  return false
end
local ends, attempts, digest = string.match(value, '^(%d+) (%d+) (%x+)$')
if not ends then
  return 'unreadable'
end
attempts = tonumber(attempts)
if tonumber(ends) <= tonumber(ARGV[1]) or attempts == 0 then
  return false
end
-- KEEPTTL exists since Redis 6.0.
redis.call('SET', KEYS[1], string.format('%s %.0f %s', ends, attempts - 1, digest), 'KEEPTTL')
return digest
