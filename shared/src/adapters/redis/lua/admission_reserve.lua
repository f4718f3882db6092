-- Gives an order a unit. The checks come in the order in which `AdmissionDecision` lists its
-- variants.
--
-- KEYS[1] sale     state, terms, `admissions` -> orders that ever got a unit,
--                  `u:<user>` -> order ids held, `e:<order>` for ended orders
-- KEYS[2] held     order id -> reservation
-- KEYS[3] overdue  unsettled order ids by the time of admission or last claim
-- ARGV[1] order id   ARGV[2] user id   ARGV[3] '1' when the ticket has expired   ARGV[4] now, ms
--
-- Returns the variant's word, and what it carries.
local user = 'u:' .. ARGV[2]
local sale = redis.call('HMGET', KEYS[1], user, 'e:' .. ARGV[1], 'state', 'starts_at', 'ends_at', 'limit', 'stock',
  'price', 'currency', 'gc_at', 'admissions')
-- Order ids are concatenated, 36 characters each. An order that holds a unit is among them.
local mine = sale[1] or ''
if mine ~= '' then
  local held = redis.call('HGET', KEYS[2], ARGV[1])
  if held then return {'again', held} end
end
if sale[2] then return {'ended'} end
if sale[3] ~= 'open' then return {'closed'} end
if ARGV[3] == '1' then return {'ticket-expired'} end

local now = tonumber(ARGV[4])
if now < tonumber(sale[4]) then return {'not-open', sale[4]} end
if now >= tonumber(sale[5]) then return {'sale-ended'} end

if mine ~= '' and #mine >= 36 * tonumber(sale[6]) then return {'already-bought', string.sub(mine, 1, 36)} end

local count = redis.call('HLEN', KEYS[2])
if count >= tonumber(sale[7]) then return {'sold-out'} end

-- Numbers are stored as the strings they arrived as: Lua prints at most 14 digits of a number.
local value = 'r ' .. ARGV[2] .. ' ' .. ARGV[4] .. ' ' .. sale[8] .. ' ' .. sale[9]
redis.call('HSET', KEYS[2], ARGV[1], value)
redis.call('HSET', KEYS[1], user, mine .. ARGV[1], 'admissions', (sale[11] or 0) + 1)
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
-- A key that was empty before is new and has no expiry yet.
if count == 0 then redis.call('PEXPIREAT', KEYS[2], sale[10]) end
if redis.call('ZCARD', KEYS[3]) == 1 then redis.call('PEXPIREAT', KEYS[3], sale[10]) end
return {'reserved', value}
