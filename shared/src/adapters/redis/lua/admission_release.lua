-- Gives back the units of ended orders and remembers each order as ended, whatever the state of the
-- sale. An order that was given up counts once as an attempt of its user.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] overdue
-- ARGV[1] life of the marks of a sale that is not loaded, ms
-- ARGV[2...] for each order: its id, and its user's id if it was given up, or ''

-- Takes the order from those of its user and of its network.
local function forget(id, value)
  local user = 'u:' .. string.sub(value, 3, 38)
  local mine = redis.call('HGET', KEYS[1], user) or ''
  -- All ids have the same length and have hyphens at the same places, and no shift of an id
  -- matches those places, so a match is always a whole id.
  local from, to = string.find(mine, id, 1, true)
  if from then mine = string.sub(mine, 1, from - 1) .. string.sub(mine, to + 1) end
  if mine == '' then
    redis.call('HDEL', KEYS[1], user)
  else
    redis.call('HSET', KEYS[1], user, mine)
  end
  -- Reservations of earlier releases have no network and were not counted.
  local network = string.match(value, '^%S+ %S+ %S+ %S+ %S+ @(%S+)')
  if network and redis.call('HINCRBY', KEYS[1], 'n:' .. network, -1) <= 0 then
    redis.call('HDEL', KEYS[1], 'n:' .. network)
  end
end

local ids, fields = {}, {}
for i = 2, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  fields[#fields + 1] = 'e:' .. ARGV[i]
end
local held = redis.call('HMGET', KEYS[2], unpack(ids))
local known = redis.call('HMGET', KEYS[1], unpack(fields))

-- Order id -> its mark: 'g' when it counts as an attempt. An order may come twice in one call.
local mark = {}
for i, id in ipairs(ids) do
  if not mark[id] then
    mark[id] = known[i] or ''
    if held[i] then forget(id, held[i]) end
  end
  local user = ARGV[2 * i + 1]
  if user ~= '' and mark[id] ~= 'g' then
    mark[id] = 'g'
    redis.call('HINCRBY', KEYS[1], 'g:' .. user, 1)
  end
end
redis.call('HDEL', KEYS[2], unpack(ids))
redis.call('ZREM', KEYS[3], unpack(ids))
local marks = {}
for id, value in pairs(mark) do
  marks[#marks + 1] = 'e:' .. id
  marks[#marks + 1] = value
end
redis.call('HSET', KEYS[1], unpack(marks))
-- While the sale is not loaded, its end is unknown.
if redis.call('HEXISTS', KEYS[1], 'state') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
