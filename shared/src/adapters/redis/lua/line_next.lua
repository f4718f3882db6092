-- Reads the users behind a given one. Changes nothing.
--
-- KEYS[1] line
-- ARGV[1] user id as bytes, or '' for the front   ARGV[2] how many at most
--
-- Returns nothing when the user is not in the line, else pairs of user id and key.
local from = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZRANK', KEYS[1], ARGV[1])
  if not rank then return false end
  from = rank + 1
end
local count = tonumber(ARGV[2])
if count == 0 then return {} end
local flat = redis.call('ZRANGE', KEYS[1], from, from + count - 1, 'WITHSCORES')
local pairs_ = {}
for i = 1, #flat, 2 do pairs_[#pairs_ + 1] = {flat[i], flat[i + 1]} end
return pairs_
