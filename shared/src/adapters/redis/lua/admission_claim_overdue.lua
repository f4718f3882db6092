-- Returns unsettled reservations whose time is at or before a given one, oldest first, and sets
-- their time to now.
--
-- KEYS[1] held   KEYS[2] overdue
-- ARGV[1] the latest time to be handed out, ms   ARGV[2] now, ms   ARGV[3] how many at most
--
-- Returns order id and reservation in turn.
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
if #ids == 0 then return {} end
local held = redis.call('HMGET', KEYS[1], unpack(ids))
local times, claimed = {}, {}
for i, id in ipairs(ids) do
  if held[i] then
    times[#times + 1] = ARGV[2]
    times[#times + 1] = id
    claimed[#claimed + 1] = id
    claimed[#claimed + 1] = held[i]
  else
    -- Happens only when one key was lost alone: without its reservation the order can't be claimed,
    -- now or later.
    redis.call('ZREM', KEYS[2], id)
  end
end
if #times > 0 then redis.call('ZADD', KEYS[2], unpack(times)) end
return claimed
