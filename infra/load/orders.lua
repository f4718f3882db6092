-- wrk: turns each line of $TICKETS (token,ticket, or token,ticket,sale) into one order, once. Threads share the lines out.
-- A line without a sale is for $SALE. When the lines are used up, the threads stop.
local counter, threads = 0, tonumber(os.getenv("THREADS"))
function setup(thread)
  thread:set("number", counter)
  counter = counter + 1
end
function init()
  -- Read as they are needed: a thread must not wait while the next one prepares itself.
  lines, sale = assert(io.open(os.getenv("TICKETS"))), os.getenv("SALE")
  for _ = 1, number do lines:read() end
end
local headers = { ["Content-Type"] = "application/json" }
function request()
  local line = lines:read()
  if not line then
    wrk.thread:stop()
    return wrk.format("GET", "/healthz")
  end
  for _ = 2, threads do lines:read() end
  local token, ticket, own = line:match("^([^,]+),([^,]+),?(.*)$")
  headers.Authorization = "Bearer " .. token
  return wrk.format("POST", "/api/sales/" .. (own ~= "" and own or sale) .. "/orders", headers, '{"ticket":"' .. ticket .. '"}')
end
