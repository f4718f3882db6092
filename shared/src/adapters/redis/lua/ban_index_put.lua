-- Lists a ban, and removes some that ended long ago, so that the indexes stay small even if they
-- are never read.
--
-- KEYS  1 subjects by their ban's creation, 2 subjects by its end
-- ARGV  1 subject; 2 created at; 3 ends at, or 'never';
--       4 bans that ended at or before this are removed; all milliseconds

redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if ARGV[3] == 'never' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
end
for _, subject in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[4], 'LIMIT', 0, 100)) do
  if subject ~= ARGV[1] then
    redis.call('ZREM', KEYS[1], subject)
    redis.call('ZREM', KEYS[2], subject)
  end
end
return 1
