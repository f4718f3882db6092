-- wrk: asks for tickets for the sale $SALE, each request with the next token of $TOKENS (user_id,phone,token). Threads share
-- the users out.
local counter, threads = 0, tonumber(os.getenv("THREADS"))
function setup(thread)
  thread:set("number", counter)
  counter = counter + 1
end
function init()
  tokens, at, path = {}, 0, "/api/sales/" .. os.getenv("SALE") .. "/tickets"
  local row = 0
  for line in io.lines(os.getenv("TOKENS")) do
    local token = line:match("^[^,]+,[^,]+,(%S+)$")
    if token ~= "token" then
      if row % threads == number then tokens[#tokens + 1] = token end
      row = row + 1
    end
  end
end
function request()
  at = at % #tokens + 1
  return wrk.format("POST", path, { Authorization = "Bearer " .. tokens[at] })
end
