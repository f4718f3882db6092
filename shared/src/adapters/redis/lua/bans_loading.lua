-- Records that the operators' bans are being restored, unless all of them already were.
--
-- KEYS  1 state of the restoration
-- ARGV  1 token of the caller
--
-- Returns 1, or 0 when all are restored.

if redis.call('GET', KEYS[1]) == 'loaded' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
