-- Reads the state of a sale. Changes nothing.
--
-- KEYS[1] sale   KEYS[2] held   KEYS[3] overdue
--
-- Returns nothing when the sale is missing, else {state, epoch, since, version, stock, held,
-- unsettled}.
local sale = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'since', 'version', 'stock')
if not sale[1] then return false end
-- As strings, so that all elements of the reply have one type.
sale[6] = tostring(redis.call('HLEN', KEYS[2]))
sale[7] = tostring(redis.call('ZCARD', KEYS[3]))
return sale
