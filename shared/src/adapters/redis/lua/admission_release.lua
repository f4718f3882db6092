-- Gives back the units of ended orders and remembers each order as ended, whatever the state of the
-- sale.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] overdue
-- ARGV[1] life of the marks of a sale that is not loaded, ms
-- ARGV[2...] order ids
local ids, marks = {}, {}
for i = 2, #ARGV do
  ids[#ids + 1] = ARGV[i]
  marks[#marks + 1] = 'e:' .. ARGV[i]
  marks[#marks + 1] = ''
end
for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  if value then
    local user = 'u:' .. string.sub(value, 3, 38)
    local mine = redis.call('HGET', KEYS[1], user) or ''
    -- All ids have the same length and have hyphens at the same places, and no shift of an id
    -- matches those places, so a match is always a whole id.
    local from, to = string.find(mine, ids[i], 1, true)
    if from then mine = string.sub(mine, 1, from - 1) .. string.sub(mine, to + 1) end
    if mine == '' then
      redis.call('HDEL', KEYS[1], user)
    else
      redis.call('HSET', KEYS[1], user, mine)
    end
  end
end
redis.call('HDEL', KEYS[2], unpack(ids))
redis.call('ZREM', KEYS[3], unpack(ids))
redis.call('HSET', KEYS[1], unpack(marks))
-- While the sale is not loaded, its end is unknown.
if redis.call('HEXISTS', KEYS[1], 'state') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
