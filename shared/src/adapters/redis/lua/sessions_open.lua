-- Adds sessions of one user. Above the limit per user, the sessions that expire first are ended.
--
-- KEYS  1 sessions: id -> end, milliseconds, and after a space the role unless it is a shopper's
-- ARGV  1 limit; 2 now; 3 slack, milliseconds; then pairs of session id and its stored form

for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
local all = redis.call('HGETALL', KEYS[1])
local sessions = {}
for i = 1, #all, 2 do
  sessions[#sessions + 1] = {id = all[i], ends = tonumber(string.match(all[i + 1], '^%d+'))}
end
table.sort(sessions, function(a, b)
  return a.ends < b.ends or (a.ends == b.ends and a.id < b.id)
end)
for i = 1, #sessions - tonumber(ARGV[1]) do
  redis.call('HDEL', KEYS[1], sessions[i].id)
end
local life = math.max(sessions[#sessions].ends - tonumber(ARGV[2]), 0) + tonumber(ARGV[3])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
return 1
