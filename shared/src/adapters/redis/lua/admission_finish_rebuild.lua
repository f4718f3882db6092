-- Ends a rebuild: opens admission.
--
-- KEYS[1] sale
-- ARGV[1] epoch
--
-- Returns 1, also when the sale is already open under this epoch; 0 when the store has another
-- epoch or none.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'open')
return 1
