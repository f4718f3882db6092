-- Extends a lock that is still held under the same token and fence.
--
-- KEYS  1 lock
-- ARGV  1 "token:fence"; 2 lease, milliseconds

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
