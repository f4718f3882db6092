-- Takes back one counted text message.
--
-- KEYS  1 count of the day

if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then
  redis.call('DECR', KEYS[1])
end
