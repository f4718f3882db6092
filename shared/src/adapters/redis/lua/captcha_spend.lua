-- Notes which captcha a token answered, unless it has answered one before. 1 when it was this one.
--
-- KEYS  1 token
-- ARGV  1 captcha's id  2 time to live, ms

local by = redis.call('GET', KEYS[1])
if by then
  return by == ARGV[1] and 1 or 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
