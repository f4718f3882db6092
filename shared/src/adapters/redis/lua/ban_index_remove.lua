-- Removes a subject from the indexes unless it has been banned again since the caller read it.
--
-- KEYS  1 subjects by the time their ban was put, 2 subjects by the time it ends
-- ARGV  1 subject; 2 the time it was seen with, milliseconds

local put = redis.call('ZSCORE', KEYS[1], ARGV[1])
if put and tonumber(put) == tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 1
end
return 0
