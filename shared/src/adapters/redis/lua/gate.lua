-- Checks a session, bans and limits in one step, and charges the limits when all pass.
--
-- KEYS  bans, then limits, then one strike counter per limit whose refusals count, then the sessions of the user
-- ARGV  1 'enter', or 'check' to change nothing
--       2 now, milliseconds
--       3 session id, or '' when none is asked for
--       4 number of bans
--       5 number of limits
--       6 refusals that are borne
--       7 window of the refusals, milliseconds
--       8 slack, milliseconds: how much longer than needed a key is kept
--       then per limit: interval and tolerance (burst * interval), microseconds; index of its strike counter in KEYS, or 0
--
-- Returns {0} entered; {1} no session; {2, until} banned, -1 without end; {3, limit, retry_after_ms, due} limited, where
-- `limit` counts from 0 and `due` is 1 when the user is to be banned.
--
-- Numbers are doubles: microseconds since 1970 stay below 2^53 until the year 2255, and are written with %.0f because
-- the default format rounds at 14 digits.

local changing, now, session = ARGV[1] == 'enter', tonumber(ARGV[2]), ARGV[3]
local bans, limits = tonumber(ARGV[4]), tonumber(ARGV[5])
local slack = tonumber(ARGV[8])

if session ~= '' then
  local ends = redis.call('HGET', KEYS[#KEYS], session)
  if not ends or tonumber(ends) <= now then
    return {1}
  end
end
if bans + limits == 0 then
  return {0}
end
local values = redis.call('MGET', unpack(KEYS, 1, bans + limits))

local banned = nil
for i = 1, bans do
  if values[i] then
    local ends = string.match(values[i], '^%S+')
    if ends == 'never' then
      return {2, -1}
    end
    ends = tonumber(ends)
    if ends > now and ends > (banned or 0) then
      banned = ends
    end
  end
end
if banned then
  return {2, banned}
end

-- GCRA as virtual scheduling (ITU-T I.371): a limit is the theoretical arrival time (TAT) of its next request.
local now_us = now * 1000
local refused, wait_us, tats = nil, 0, {}
for i = 1, limits do
  local interval, tolerance = tonumber(ARGV[6 + 3 * i]), tonumber(ARGV[7 + 3 * i])
  local tat = tonumber(values[bans + i] or 0)
  -- Further ahead than a full burst and the slack: from a clock that has been set back since.
  if tat < now_us or tat > now_us + tolerance + slack * 1000 then
    tat = now_us
  end
  tat = tat + interval
  local over = tat - now_us - tolerance
  if over > 0 then
    refused = refused or i
    wait_us = math.max(wait_us, over)
  end
  tats[i] = tat
end

if refused then
  local due, counter = 0, tonumber(ARGV[8 + 3 * refused])
  if changing and counter > 0 then
    local count, ends = 0, now + tonumber(ARGV[7])
    local value = redis.call('GET', KEYS[counter])
    if value then
      local old_count, old_ends = string.match(value, '^(%d+) (%d+)$')
      if tonumber(old_ends) > now then
        count, ends = tonumber(old_count), tonumber(old_ends)
      end
    end
    count = count + 1
    redis.call('SET', KEYS[counter], string.format('%.0f %.0f', count, ends), 'PX', string.format('%.0f', ends - now + slack))
    if count > tonumber(ARGV[6]) then
      due = 1
    end
  end
  return {3, refused - 1, math.ceil(wait_us / 1000), due}
end

if changing then
  for i = 1, limits do
    local life = math.ceil((tats[i] - now_us) / 1000) + slack
    redis.call('SET', KEYS[bans + i], string.format('%.0f', tats[i]), 'PX', string.format('%.0f', life))
  end
end
return {0}
