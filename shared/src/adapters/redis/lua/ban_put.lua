-- Stores a ban and clears the subject's strikes.
--
-- KEYS  1 ban, 2 strikes
-- ARGV  1 until, milliseconds, or 'never'; 2 the ban as stored, starting with `until`;
--       3 time to live of the key in milliseconds, 0 for none;
--       4 'automatic' (also when restored after a loss): keep a ban that lasts at least as long
--
-- Returns 1, or 0 when the earlier ban was kept.

if ARGV[4] == 'automatic' then
  local earlier = redis.call('GET', KEYS[1])
  if earlier then
    local ends = string.match(earlier, '^%S+')
    if ends == 'never' or (ARGV[1] ~= 'never' and tonumber(ends) >= tonumber(ARGV[1])) then
      return 0
    end
  end
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[2])
return 1
