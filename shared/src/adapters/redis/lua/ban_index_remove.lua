-- Removes a subject from the indexes unless it has been banned again since the caller read it.
--
-- KEYS  1 subjects by their ban's creation, 2 subjects by its end
-- ARGV  1 subject; 2 its ban's creation as the caller read it, milliseconds

local put = redis.call('ZSCORE', KEYS[1], ARGV[1])
if put and tonumber(put) == tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 1
end
return 0
