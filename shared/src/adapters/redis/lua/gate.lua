-- Checks a session, bans and limits in one step, and charges the limits when all pass.
--
-- KEYS  bans, then limits, then one strike counter per limit whose refusals count, then the
--       user's sessions
-- ARGV  1 numbers, as little-endian doubles (a separate argument would cost as much as reading a
--         key):
--         whether to enter (1), or to check and change nothing (0); now; number of bans;
--         number of limits; refusals allowed; their window; slack: how much further ahead than
--         possible a limit may be; refusals that were answered without this script and are
--         counted along with the next one; times in milliseconds
--         then per limit: interval and tolerance (burst * interval), microseconds; index of its
--         strike counter in KEYS, or 0
--       2 session id, or '' to skip its check
--       3 the role that the session must have, or '' for any
--       then per limit: life of its key, milliseconds
--
-- Returns {0} entered; {1} no session; {2, until} banned, -1 without end; {3, limit,
-- retry_after_ms, due} limited, where `limit` (the one with the longest wait) counts from 0 and
-- `due` is 1 when the user is to be banned; {4} the session has another role.
--
-- Lua's numbers are doubles: microseconds since 1970 stay below 2^53 until the year 2255. As an
-- argument of redis.call they are written with 17 digits, exactly; Lua's own conversion to text
-- would round to 14.

local changing, now, bans, limits, refusals_max, window, slack, also_refused = struct.unpack('<dddddddd', ARGV[1])
local session = ARGV[2]

if session ~= '' then
  -- `END`, or `END ROLE` when it is not a shopper's.
  local record = redis.call('HGET', KEYS[#KEYS], session)
  if not record then
    return {1}
  end
  local ends, role = string.match(record, '^(%d+) ?(%a*)$')
  if tonumber(ends) <= now then
    return {1}
  end
  if ARGV[3] ~= '' and ARGV[3] ~= (role == '' and 'shopper' or role) then
    return {4}
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

-- GCRA as virtual scheduling (ITU-T I.371): a limit's state is the theoretical arrival time (TAT)
-- of its next request.
local now_us = now * 1000
local refused, wait_us, tats = nil, 0, {}
for i = 1, limits do
  local interval, tolerance = struct.unpack('<dd', ARGV[1], 41 + 24 * i)
  local tat = tonumber(values[bans + i] or 0)
  -- More than a full burst and the slack ahead: the clock has been set back since.
  if tat < now_us or tat > now_us + tolerance + slack * 1000 then
    tat = now_us
  end
  tat = tat + interval
  local over = tat - now_us - tolerance
  if over > wait_us then
    refused, wait_us = i, over
  end
  tats[i] = tat
end

if refused then
  local due, counter = 0, struct.unpack('<d', ARGV[1], 57 + 24 * refused)
  if changing == 1 and counter > 0 then
    local count, ends = 0, now + window
    local value = redis.call('GET', KEYS[counter])
    if value then
      local old_count, old_ends = string.match(value, '^(%d+) (%d+)$')
      if tonumber(old_ends) > now then
        count, ends = tonumber(old_count), tonumber(old_ends)
      end
    end
    count = count + 1 + also_refused
    redis.call('SET', KEYS[counter], string.format('%.0f %.0f', count, ends), 'PX', ends - now + slack)
    if count > refusals_max then
      due = 1
    end
  end
  return {3, refused - 1, math.ceil(wait_us / 1000), due}
end

if changing == 1 then
  for i = 1, limits do
    redis.call('SET', KEYS[bans + i], tats[i], 'PX', ARGV[3 + i])
  end
end
return {0}
