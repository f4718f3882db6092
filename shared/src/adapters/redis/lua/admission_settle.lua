-- Marks reservations as settled and adds missing ones, except for ended orders. Serves `settle`
-- (any state but missing) and `restore` (rebuilding under exactly the given epoch).
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] overdue
-- ARGV[1] the epoch of the rebuild, or '' for `settle`
-- ARGV[2...] for each order: its id, its user's id, its reservation as it is to be stored
--
-- Returns 1, or 0 when the state did not allow it and nothing was done.
local sale = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'gc_at')
if not sale[1] then return 0 end
if ARGV[1] ~= '' and (sale[1] ~= 'rebuilding' or sale[2] ~= ARGV[1]) then return 0 end
if #ARGV == 1 then return 1 end

local ids, marks = {}, {}
for i = 2, #ARGV, 3 do
  ids[#ids + 1] = ARGV[i]
  marks[#marks + 1] = 'e:' .. ARGV[i]
  marks[#marks + 1] = 'u:' .. ARGV[i + 1]
end
local held = redis.call('HMGET', KEYS[2], unpack(ids))
local known = redis.call('HMGET', KEYS[1], unpack(marks))

-- What to write. The tables also make an order or a user that appears twice in a batch count once.
local values, buyers, networks, settled = {}, {}, {}, {}
for i, id in ipairs(ids) do
  local value = held[i]
  if value then
    if string.sub(value, 1, 1) == 'r' then
      values[id] = 's' .. string.sub(value, 2)
      settled[#settled + 1] = id
    end
  elseif not known[2 * i - 1] and not values[id] then
    local user = marks[2 * i]
    values[id] = ARGV[3 * i + 1]
    buyers[user] = (buyers[user] or known[2 * i] or '') .. id
    local network = string.match(values[id], '^%S+ %S+ %S+ %S+ %S+ @(%S+)')
    if network then networks[network] = (networks[network] or 0) + 1 end
  end
end

local fields = {}
for id, value in pairs(values) do
  fields[#fields + 1] = id
  fields[#fields + 1] = value
end
if #fields > 0 then
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('PEXPIREAT', KEYS[2], sale[3])
end
fields = {}
for user, mine in pairs(buyers) do
  fields[#fields + 1] = user
  fields[#fields + 1] = mine
end
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('HINCRBY', KEYS[1], 'admissions', #fields / 2)
end
for network, units in pairs(networks) do redis.call('HINCRBY', KEYS[1], 'n:' .. network, units) end
if #settled > 0 then redis.call('ZREM', KEYS[3], unpack(settled)) end
return 1
