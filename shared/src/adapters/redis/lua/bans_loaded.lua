-- Records that all of the operators' bans are restored, unless the data was lost since the caller
-- began or another caller has begun.
--
-- KEYS  1 state of the restoration
-- ARGV  1 token of the caller

if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], 'loaded')
end
return 1
