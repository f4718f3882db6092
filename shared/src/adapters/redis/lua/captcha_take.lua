-- Reads and deletes, so that only one caller gets the value. (GETDEL is newer than Redis 6.0.)
--
-- KEYS  1 captcha

local captcha = redis.call('GET', KEYS[1])
if captcha then
  redis.call('DEL', KEYS[1])
end
return captcha
