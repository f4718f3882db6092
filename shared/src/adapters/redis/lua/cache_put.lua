-- Stores values unless the cache has them with a higher version.
--
-- KEYS  entries; a key may appear more than once
-- ARGV  1... for each key: its content, that is the version (twenty digits, so that they compare as
--       text) and the value; its life, milliseconds

local known, stored = redis.call('MGET', unpack(KEYS)), {}
for i, key in ipairs(KEYS) do
  local entry, earlier = ARGV[2 * i - 1], stored[key] or known[i]
  if not (earlier and string.sub(earlier, 1, 20) > string.sub(entry, 1, 20)) then
    redis.call('SET', key, entry, 'PX', ARGV[2 * i])
    stored[key] = entry
  end
end
return 1
