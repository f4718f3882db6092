-- Gives an order a unit. The checks come in the order in which `AdmissionDecision` lists its
-- variants.
--
-- KEYS[1] sale     state, terms, `admissions` -> orders that ever got a unit,
--                  `u:<user>` -> order ids held, `e:<order>` for ended orders, `g:<user>` -> orders given up,
--                  `n:<network>` -> units held by orders from the network
-- KEYS[2] held     order id -> reservation
-- KEYS[3] overdue  unsettled order ids by the time of admission or last claim
-- KEYS[4] invited  user id -> end of the invitation, in a sale by draw
-- ARGV[1] order id   ARGV[2] user id   ARGV[3] '1' when the ticket has expired   ARGV[4] now, ms
-- ARGV[5] network   ARGV[6] orders that a user may give up, 0 for any number
--
-- Returns the variant's word, and what it carries.

-- The answer, unless the order holds a unit already. That comes before all other checks, but is
-- looked up only when no unit is given to it.
local function unless_held(answer)
  local held = redis.call('HGET', KEYS[2], ARGV[1])
  if held then return {'again', held} end
  return answer
end

local user, network = 'u:' .. ARGV[2], 'n:' .. ARGV[5]
local sale = redis.call('HMGET', KEYS[1], user, 'e:' .. ARGV[1], 'state', 'starts_at', 'ends_at', 'limit', 'stock',
  'price', 'currency', 'gc_at', 'admissions', 'draw', 'g:' .. ARGV[2], network, 'units_per_prefix')
if sale[2] then return unless_held({'ended'}) end
if sale[3] ~= 'open' then return unless_held({'closed'}) end
if ARGV[3] == '1' then return unless_held({'ticket-expired'}) end

local now = tonumber(ARGV[4])
if now < tonumber(sale[4]) then return unless_held({'not-open', sale[4]}) end
if now >= tonumber(sale[5]) then return unless_held({'sale-ended'}) end

-- Order ids are concatenated, 36 characters each.
local mine = sale[1] or ''
if #mine > 0 and #mine >= 36 * tonumber(sale[6]) then
  return unless_held({'already-bought', string.sub(mine, 1, 36)})
end

local attempts_max = tonumber(ARGV[6])
if attempts_max > 0 and tonumber(sale[13] or '0') >= attempts_max then return unless_held({'too-many-attempts'}) end

local by_draw = sale[12] == '1'
if by_draw then
  local ends = redis.call('ZSCORE', KEYS[4], ARGV[2])
  if not ends or tonumber(ends) <= now then return unless_held({'not-invited'}) end
end

local count = redis.call('HLEN', KEYS[2])
if count >= tonumber(sale[7]) then return unless_held({'sold-out'}) end

-- Counted in every sale, so that a limit that is set later finds the orders before it.
local of_network = tonumber(sale[14] or '0')
local units_per_prefix = sale[15] or ''
if units_per_prefix ~= '' and of_network >= tonumber(units_per_prefix) then
  return unless_held({'network-sold-out'})
end

-- Numbers are stored as the strings they arrived as: Lua prints at most 14 digits of a number.
local value = 'r ' .. ARGV[2] .. ' ' .. ARGV[4] .. ' ' .. sale[8] .. ' ' .. sale[9] .. ' @' .. ARGV[5]
if redis.call('HSETNX', KEYS[2], ARGV[1], value) == 0 then return unless_held() end
redis.call('HSET', KEYS[1], user, mine .. ARGV[1], 'admissions', (sale[11] or 0) + 1, network, of_network + 1)
if by_draw then redis.call('ZREM', KEYS[4], ARGV[2]) end
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
-- A key that was empty before is new and has no expiry yet.
if count == 0 then redis.call('PEXPIREAT', KEYS[2], sale[10]) end
if redis.call('ZCARD', KEYS[3]) == 1 then redis.call('PEXPIREAT', KEYS[3], sale[10]) end
return {'reserved', value}
