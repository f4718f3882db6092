-- Reads the keys of users at regular distances. Changes nothing.
--
-- KEYS[1] line
-- ARGV[1] first place   ARGV[2] place to stop before   ARGV[3] distance
local keys = {}
for place = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1, tonumber(ARGV[3]) do
  local found = redis.call('ZRANGE', KEYS[1], place, place, 'WITHSCORES')
  if not found[2] then break end
  keys[#keys + 1] = found[2]
end
return keys
