-- Increments a counter whose window starts at the first failure.
--
-- KEYS  1 counter: "count end"
-- ARGV  1 now; 2 window; 3 slack; all milliseconds
--
-- Returns the count.

local now = tonumber(ARGV[1])
local count, ends = 0, now + tonumber(ARGV[2])
local value = redis.call('GET', KEYS[1])
if value then
  local old_count, old_ends = string.match(value, '^(%d+) (%d+)$')
  if tonumber(old_ends) > now then
    count, ends = tonumber(old_count), tonumber(old_ends)
  end
end
count = count + 1
redis.call('SET', KEYS[1], string.format('%.0f %.0f', count, ends), 'PX', string.format('%.0f', ends - now + tonumber(ARGV[3])))
return count
