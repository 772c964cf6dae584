-- Checks that name themselves by the line that calls them.
local function show(...)
  local all = {}
  for i = 1, select('#', ...) do
    all[i] = tostring((select(i, ...)))
  end
  return table.concat(all, ' ')
end

-- same compares all results, as tostring writes them.
function same(want, ...)
  local got = show(...)
  if got ~= want then
    error('got [' .. got .. '], want [' .. want .. ']', 2)
  end
end

function fails(text, f, ...)
  local ok, err = pcall(f, ...)
  if ok then error('no error', 2) end
  if not tostring(err):find(text, 1, true) then error('got the error ' .. tostring(err), 2) end
end

-- each collects what a generic for yields.
function each(...)
  local all = {}
  for a, b in ... do all[#all + 1] = b and tostring(a) .. '=' .. tostring(b) or tostring(a) end
  return table.concat(all, ' ')
end
