-- Releases a lock that is still held under the same token and fence.
--
-- KEYS  1 lock
-- ARGV  1 "token:fence"

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
