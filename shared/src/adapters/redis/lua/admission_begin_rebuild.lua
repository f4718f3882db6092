-- Begins a rebuild of a sale that is not open: closes admission under a new epoch. Keeps the
-- reservations and the ended orders.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] overdue   KEYS[4] invited   KEYS[5] line
-- ARGV[1] epoch   ARGV[2] now, ms   ARGV[3...11] the terms, see admission_terms.lua
--
-- Returns 1, or 0 when the sale is open, or the store has this epoch or a later one.
local sale = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if sale[1] == 'open' or (sale[2] and not below(sale[2], ARGV[1])) then return 0 end
redis.call('HSET', KEYS[1], 'state', 'rebuilding', 'epoch', ARGV[1], 'since', ARGV[2])
put_terms(3)
return 1
