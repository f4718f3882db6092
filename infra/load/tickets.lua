-- wrk: asks for tickets, each request with the next token of $TOKENS (user_id,phone,token), for the sale $SALE.
local tokens = {}
for line in io.lines(os.getenv("TOKENS")) do
  local token = line:match("^[^,]+,[^,]+,(%S+)$")
  if token and token ~= "token" then tokens[#tokens + 1] = token end
end
local path, at = "/api/sales/" .. os.getenv("SALE") .. "/tickets", 0
function request()
  at = at % #tokens + 1
  return wrk.format("POST", path, { Authorization = "Bearer " .. tokens[at] })
end
