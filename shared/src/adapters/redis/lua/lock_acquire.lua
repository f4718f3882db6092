-- Acquires a lock, or renews it for the token that holds it.
--
-- KEYS  1 lock: "token:fence", 2 last fence given out
-- ARGV  1 token; 2 lease, milliseconds; 3 now, milliseconds
--
-- Returns the fence, or nothing when another token holds the lock. A fence is at least `now`, so
-- that it still grows after the server has lost its data.

local held = redis.call('GET', KEYS[1])
if held then
  local token, fence = string.match(held, '^(%x+):(%d+)$')
  if token ~= ARGV[1] then
    return false
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return fence
end
local fence = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, tonumber(ARGV[3]))
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[2], fence)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. fence, 'NX', 'PX', ARGV[2])
return fence
