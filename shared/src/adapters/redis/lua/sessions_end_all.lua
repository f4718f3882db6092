-- Ends all sessions of a user except one.
--
-- KEYS  1 sessions
-- ARGV  1 id of the session to be kept, or ''

for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
  if id ~= ARGV[1] then
    redis.call('HDEL', KEYS[1], id)
  end
end
return 1
