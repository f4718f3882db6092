-- wrk: asks how each line of $ENTRIES (token,entry) stands in the draw of the sale $SALE. Threads share the lines out.
local counter, threads = 0, tonumber(os.getenv("THREADS"))
function setup(thread)
  thread:set("number", counter)
  counter = counter + 1
end
function init()
  lines, at, path = {}, 0, "/api/sales/" .. os.getenv("SALE") .. "/entries/current"
  local row = 0
  for line in io.lines(os.getenv("ENTRIES")) do
    if row % threads == number then
      local token, entry = line:match("^([^,]+),(.+)$")
      lines[#lines + 1] = { Authorization = "Bearer " .. token, Entry = entry }
    end
    row = row + 1
  end
end
function request()
  at = at % #lines + 1
  return wrk.format("GET", path, lines[at])
end
