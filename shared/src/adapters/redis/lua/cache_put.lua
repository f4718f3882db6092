-- Stores a value unless the cache has one with a higher version.
--
-- KEYS  1 entry
-- ARGV  1 version, twenty digits, so that they compare as text; 2 value; 3 life, milliseconds

local kept = redis.call('HGET', KEYS[1], 'version')
if kept and kept > ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'value', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
