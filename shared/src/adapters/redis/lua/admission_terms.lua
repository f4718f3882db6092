-- Prepended to the scripts that write terms. Their KEYS are sale, held, overdue,
-- invited and line.

-- Compares two decimal numbers over the whole range of u64: a double has only 53 bits.
local function below(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- Writes the terms in ARGV[first...], unless the store has newer ones: version, stock, limit,
-- price, currency, starts_at, ends_at (both ms), '1' in a sale by draw, units_per_prefix or ''.
local function put_terms(first)
  local version = redis.call('HGET', KEYS[1], 'version')
  if version and below(ARGV[first], version) then return end
  -- For garbage collection only, by the server's clock: eight days after the end, or after this
  -- call if that is later, so that what was just written does not vanish at once. Never decides
  -- validity.
  local time = redis.call('TIME')
  local from = math.max(tonumber(ARGV[first + 6]), tonumber(time[1]) * 1000)
  local gc_at = string.format('%.0f', from + 8 * 86400000)
  redis.call('HSET', KEYS[1], 'version', ARGV[first], 'stock', ARGV[first + 1], 'limit', ARGV[first + 2],
    'price', ARGV[first + 3], 'currency', ARGV[first + 4], 'starts_at', ARGV[first + 5], 'ends_at', ARGV[first + 6],
    'gc_at', gc_at, 'draw', ARGV[first + 7], 'units_per_prefix', ARGV[first + 8])
  for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, gc_at) end
end

