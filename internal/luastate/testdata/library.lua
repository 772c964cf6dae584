-- table.concat
same('1,2,3', table.concat({1, 2, 3}, ','))
same('2-3', table.concat({1, 2, 3}, '-', 2))
same('2', table.concat({1, 2, 3}, '-', 2, 2))
same('', table.concat({1, 2, 3}, '-', 3, 2))
same('', table.concat({}))
same('a1b', table.concat({'a', 'b'}, 1))
same('x', table.concat({[math.maxinteger] = 'x'}, '-', math.maxinteger, math.maxinteger))
same('a b', table.concat(setmetatable({}, {__index = function(_, i) return ({'a', 'b'})[i] end, __len = function() return 2 end}), ' '))
fails("invalid value (at index 1) in table for 'concat'", table.concat, {{}})
fails("invalid value (at index 2) in table for 'concat'", table.concat, {1, nil, 3}, ',', 1, 3)
fails("invalid value (at index 1) in table for 'concat'", table.concat, {}, 'x', 1, 2 ^ 53)
fails('table expected', table.concat, 'x')

-- table.insert and remove
local t = {1, 2, 3}
table.insert(t, 4)
table.insert(t, 1, 0)
table.insert(t, 6, 5)
same('0 1 2 3 4 5', table.unpack(t))
fails('position out of bounds', table.insert, t, 8, 1)
fails('position out of bounds', table.insert, t, 0, 1)
fails("wrong number of arguments to 'insert'", table.insert, t)
fails("wrong number of arguments to 'insert'", table.insert, t, 1, 2, 3)
fails('number expected', table.insert, t, 'x', 1)
same('5 0 4', table.remove(t), table.remove(t, 1), table.remove(t, 4))
same('1 2 3', table.unpack(t))
same('nil', table.remove(t, 4))
same('nil nil', table.remove({}), table.remove({}, 0))
fails('position out of bounds', table.remove, t, 6)
fails('position out of bounds', table.remove, t, -1)
t = {1, 2, 3}
t[3] = nil
same('2 1', table.remove(t), #t)
t = setmetatable({}, {__index = {'a', 'b'}, __len = function() return 2 end})
same('b', table.remove(t))
local log = {}
t = setmetatable({}, {__newindex = function(_, k, v) log[#log + 1] = k .. '=' .. tostring(v) end, __len = function() return 2 end})
table.insert(t, 'x')
same('3=x', table.concat(log, ' '))

-- table.unpack and pack
same('1 nil 3', table.unpack({1, nil, 3}, 1, 3))
same('', table.unpack({}, 2, 1))
same('nil', table.unpack({}, -1, -1))
same('a', table.unpack(setmetatable({}, {__index = {'a'}, __len = function() return 1 end})))
fails('too many results to unpack', table.unpack, {}, 1, 1e8)
fails('too many results to unpack', unpack, {}, 1, 1e8)
fails('too many results to unpack', table.unpack, {}, math.mininteger, math.maxinteger)
fails('too many results to unpack', table.unpack, {}, 0, math.maxinteger)
same('3 nil', table.pack(1, nil, 3).n, table.pack(1, nil, 3)[2])
same('0', table.pack().n)

-- table.move
same('1,1,2,3', table.concat(table.move({1, 2, 3}, 1, 3, 2), ','))
same('2,3,3', table.concat(table.move({1, 2, 3}, 2, 3, 1), ','))
same('1,2,3', table.concat(table.move({1, 2, 3}, 1, 3, 1, {}), ','))
same('1,2', table.concat(table.move({1, 2}, 2, 1, 5), ','))
same('30', table.move(setmetatable({}, {__index = function(_, i) return i * 10 end}), 3, 3, 1, {})[1])
same('x', table.move({[-5] = 'x'}, -5, -5, 1)[1])
fails('too many elements to move', table.move, {}, math.mininteger, math.maxinteger, 1)
fails('too many elements to move', table.move, {}, 0, math.maxinteger, 1)
fails('destination wrap around', table.move, {}, 1, math.maxinteger, 2)

-- table.sort
local function sorted(t, ...) table.sort(t, ...) return table.concat(t, ' ') end
same('1 2 3', sorted({3, 1, 2}))
same('3 2 1', sorted({3, 1, 2}, function(a, b) return a > b end))
same('a b c', sorted({'c', 'b', 'a'}))
same('', sorted({}))
same('1', sorted({1}))
local many = {}
for i = 1, 1000 do many[i] = i * 7919 % 1009 end
table.sort(many)
for i = 2, #many do assert(many[i - 1] <= many[i]) end
for _, n in ipairs {10, 100, 101, 500} do
  for _, arrangement in ipairs {function(i) return i end, function(i) return -i end, function() return 1 end, function(i) return i % 3 end} do
    local t = {}
    for i = 1, n do t[i] = arrangement(i) end
    table.sort(t)
    for i = 2, n do assert(t[i - 1] <= t[i]) end
    assert(#t == n)
  end
end
local box1, box2 = setmetatable({1}, {__lt = function(a, b) return a[1] < b[1] end}), nil
box2 = setmetatable({0}, getmetatable(box1))
t = {box1, box2}
table.sort(t)
same('0 1', t[1][1], t[2][1])
fails('invalid order function for sorting', table.sort, table.move(many, 1, 100, 1, {}), function() return true end)
fails('attempt to compare', table.sort, {1, 'x'})
fails('attempt to compare', table.sort, {1, {}, 3})
fails('in the order', table.sort, {1, 2, 3}, function() error('in the order') end)
fails('function expected', table.sort, {2, 1}, 5)
t = {3, 1, 2}
pcall(table.sort, t, function() error('x') end)
same('3 1 2', table.unpack(t))
t = {5, 4, 3, 2, 1}
table.sort(t, function(a, b) t[1] = nil return a < b end)
same('1 2 3 4 5', table.unpack(t))
same('3 2 1', sorted(setmetatable({1, 2, 3}, {__index = {}}), function(a, b) return a > b end))

-- math
fails('wrong number of arguments', math.random, 1, 2, 3)
fails('interval is empty', math.random, 0.0 - 5)
fails('interval is empty', math.random, 2, 1)
fails('number has no integer representation', math.random, 1.5)
same('true', math.random(math.mininteger, math.maxinteger) ~= nil)
same('7', math.random(7, 7))
same('inf 0', math.modf(1 / 0))
same('3 0.5', math.modf(3.5))
same('-3 -0.5', math.modf(-3.5))
same('true', math.ult(1, -1))
same('3', math.log('8', 2))

-- tonumber and tostring
same('-1', tonumber('ffffffffffffffff', 16))
same('-255', tonumber('-ff', 16))
same('255', tonumber(' FF\n', 16))
same('nil nil nil nil', tonumber('', 16), tonumber('-', 10), tonumber('1.5', 10), tonumber('1_0', 10))
same('nil', tonumber('9', 9))
same('inf', tonumber('1' .. ('0'):rep(400)))
same('nil', tonumber('1e'))
same('16', tonumber('0x1p4'))
fails('base out of range', tonumber, '1', 37)
fails('string expected', tonumber, {}, 10)
same('Thing: ', tostring(setmetatable({}, {__name = 'Thing'})):sub(1, 7))

-- select, next, rawlen
same('b c', select(2, 'a', 'b', 'c'))
same('c', select(-1, 'a', 'b', 'c'))
same('3', select('#', nil, nil, nil))
fails('out of range', select, -5, 1)
same('1 nil', select('#', next({})), next({}))
same('true', pairs({}) == next)

-- load
same('nil true', load(('x = 1 '):rep(1e5)), select(2, load(('x = 1 '):rep(1e5))):find('chunk has more than 65536 bytes', 1, true) ~= nil)
fails('reader function must return a string', load, function() return 1 end)
same('7', load('return ...')(7))
same('nil', load('return x', 'x', 't', {})())
same('nil', (load('return 1e400')))

-- coroutines
local co, main = coroutine.running()
same('thread true', type(co), main)
same('false true', coroutine.wrap(function() return select(2, coroutine.running()), coroutine.isyieldable() end)())
co = coroutine.create(function() coroutine.yield(1) end)
same('true 1', coroutine.resume(co))
same('true', coroutine.close(co))
same('dead', coroutine.status(co))
same('false', (coroutine.resume(co)))
same('true', coroutine.close(co))
same('true', coroutine.close(coroutine.create(print)))
fails('cannot close a running coroutine', coroutine.close, (coroutine.running()))
fails('cannot close a running coroutine', coroutine.wrap(function() coroutine.close((coroutine.running())) end))
fails('attempt to yield from outside a coroutine', coroutine.yield)
same('false true', coroutine.wrap(function()
  local ok, err = pcall(function() coroutine.yield() end)
  return ok, err:find('attempt to yield across a C-call boundary', 1, true) ~= nil
end)())
fails('across a C-call boundary', coroutine.wrap(function() table.sort({3, 2, 1}, coroutine.yield) end))
fails('across a C-call boundary', coroutine.wrap(function() ('x'):gsub('x', function() coroutine.yield() end) end))
same('1 2 3', (function()
  local f = coroutine.wrap(function() local function deep(n) if n == 0 then coroutine.yield(1) else deep(n - 1) end end deep(50) coroutine.yield(2) return 3 end)
  return f(), f(), f()
end)())
same('true 5', coroutine.resume(coroutine.create(coroutine.yield), 5))
local outer
outer = coroutine.create(function()
  return coroutine.wrap(function() return pcall(coroutine.close, outer) end)()
end)
same('true false', (function(a, b) return a, b end)(coroutine.resume(outer)))

-- os.date and os.time
same('1970-01-01 00:00:00', os.date('!%Y-%m-%d %H:%M:%S', 0))
same('Thu Thursday Jan January 01 %', os.date('!%a %A %b %B %d %%', 0))
same('01/01/70 70 19  1 12 AM', os.date('!%D %y %C %e %I %p', 0))
same('001 4 4 00 00 01 1970 70', os.date('!%j %u %w %U %W %V %G %g', 0))
same('Thu Jan  1 00:00:00 1970', os.date('!%c', 0))
same('00:00 00:00:00 12:00:00 AM +0000 UTC', os.date('!%R %T %r %z %Z', 0))
same('\n\t', os.date('!%n%t', 0))
same('70 01', os.date('!%Ey %Od', 0))
same('53 2020 00', os.date('!%V %G %W', 1609459200))
same('2001 9 9 1 46 40 1 252 false', (function(d) return d.year, d.month, d.day, d.hour, d.min, d.sec, d.wday, d.yday, d.isdst end)(os.date('!*t', 1e9)))
same('true', os.time() > 1e9)
same('86400', os.time({year = 2000, month = 1, day = 2}) - os.time({year = 2000, month = 1, day = 1}))
same('0', os.time({year = 2000, month = 13, day = 1}) - os.time({year = 2001, month = 1, day = 1}))
same('0', os.time({year = 2000, month = 1, day = 1}) - os.time({year = '2000', month = 1, day = 1, hour = 12}))
local d = {year = 2000, month = 14, day = 1}
os.time(d)
same('2001 2 1 12 32', d.year, d.month, d.day, d.hour, d.yday)
fails("field 'day' missing in date table", os.time, {year = 2000, month = 1})
fails("field 'day' is not an integer", os.time, {year = 2000, month = 1, day = 1.5})
fails("field 'day' is not an integer", os.time, {year = 2000, month = 1, day = 'x'})
fails("field 'year' is out-of-bound", os.time, {year = 1e12, month = 1, day = 1})
fails("invalid conversion specifier '%Q'", os.date, '%Q')
fails("invalid conversion specifier '%Ez'", os.date, '%Ez')
fails("invalid conversion specifier '%'", os.date, '%')
fails('cannot be represented', os.date, '%c', 2 ^ 62)
fails('resulting string too large', os.date, ('%c'):rep(1e6))
same('1000000', #os.date(('%%'):rep(1e6)))
same('nil', os.getenv('A_VARIABLE_THAT_IS_NOT_SET'))
