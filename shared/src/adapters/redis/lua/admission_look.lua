-- Reads what a ticket request needs. Changes nothing.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] invited
-- ARGV[1] user id   ARGV[2] network, or '' for none
--
-- Returns nothing when the sale is not open, else {units available, an order id when the user's
-- limit is reached or '', orders that ever got a unit, the epoch under which the sale is open, the end of the user's
-- invitation in ms or '', orders that the user gave up, 1 when the network's limit is reached or 0}.
local sale = redis.call('HMGET', KEYS[1], 'state', 'stock', 'limit', 'u:' .. ARGV[1], 'admissions', 'epoch', 'draw',
  'g:' .. ARGV[1], 'units_per_prefix', 'n:' .. ARGV[2])
if sale[1] ~= 'open' then return false end
local mine = sale[4] or ''
local ends = sale[7] == '1' and redis.call('ZSCORE', KEYS[3], ARGV[1]) or ''
local bought = ''
if #mine > 0 and #mine >= 36 * tonumber(sale[3]) then bought = string.sub(mine, 1, 36) end
local full, units_per_prefix = 0, sale[9] or ''
if ARGV[2] ~= '' and units_per_prefix ~= '' and tonumber(sale[10] or '0') >= tonumber(units_per_prefix) then full = 1 end
return {math.max(0, tonumber(sale[2]) - redis.call('HLEN', KEYS[2])), bought, tonumber(sale[5] or '0'), sale[6] or '0', ends,
  tonumber(sale[8] or '0'), full}
