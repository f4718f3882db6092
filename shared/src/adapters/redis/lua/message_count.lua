-- Counts a text message unless the day has had as many as it may.
--
-- KEYS  1 count of the day
-- ARGV  1 most per day; 2 time to live, milliseconds
--
-- Returns 1 if it was counted, else 0.

if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return 0
end
redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
