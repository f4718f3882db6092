-- wrk: turns each line of $TICKETS (token,ticket) into one order for the sale $SALE, once. Threads share the lines out.
local lines, path, threads = {}, "/api/sales/" .. os.getenv("SALE") .. "/orders", tonumber(os.getenv("THREADS"))
local counter = 0
function setup(thread)
  thread:set("number", counter)
  counter = counter + 1
end
function init()
  local row = 0
  for line in io.lines(os.getenv("TICKETS")) do
    if row % threads == number then lines[#lines + 1] = line end
    row = row + 1
  end
  at = 0
end
function request()
  at = at + 1
  if at > #lines then return wrk.format("GET", "/healthz") end
  local token, ticket = lines[at]:match("^([^,]+),(.+)$")
  local headers = { Authorization = "Bearer " .. token, ["Content-Type"] = "application/json" }
  return wrk.format("POST", path, headers, '{"ticket":"' .. ticket .. '"}')
end
