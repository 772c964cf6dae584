-- What Lua 5.4 scripts expect of the library. Every check names itself by its line.
local function same(got, want)
  if got ~= want then
    error(string.format('got %s, want %s', tostring(got), tostring(want)), 2)
  end
end
local function fails(text, f, ...)
  local ok, err = pcall(f, ...)
  if ok then error('no error', 2) end
  if not tostring(err):find(text, 1, true) then error('got the error ' .. tostring(err), 2) end
end

-- table
same(select('#', table.unpack({1, nil, 3}, 1, 3)), 3)
same(select(2, table.unpack({1, 2, 3}, 2)), 3)
same(select('#', table.unpack({})), 0)
same(table.pack(1, nil, 3).n, 3)
same(table.concat(table.move({1, 2, 3}, 1, 3, 2), ','), '1,1,2,3')
same(table.concat(table.move({1, 2, 3}, 2, 3, 1), ','), '2,3,3')
same(table.concat({1, 'a', 2.5}, '-', 2, 3), 'a-2.5')
same(table.concat({}), '')
fails("invalid value (at index 2) in table for 'concat'", table.concat, {1}, ',', 1, 2)
local many = {}
for i = 1, 100000 do many[i] = i end
same(select('#', table.unpack(many)), 100000)
same(#table.concat(many, ','), 588894)
fails('too many results', table.unpack, {}, 1, 1e9)

-- load
same(load('return 1 + 1')(), 2)
same(load('return a', 'name', 't', {a = 5})(), 5)
local pieces = {'return ', '7'}
same(load(function() return table.remove(pieces, 1) end)(), 7)
local f, err = load('return +', '=chunk')
same(f, nil)
same(err:match('^chunk:1:'), 'chunk:1:')
same(select(2, load("return '\\x41'", '@file.lua')):match('^file.lua:1: escape'), 'file.lua:1: escape')
same(load('x', 'x', 'b'), nil)
same(loadstring('return 3')(), 3)

-- numbers
same(math.type(3), 'integer')
same(math.type(3.5), 'float')
same(math.type('3'), nil)
same(math.tointeger(3.0), 3)
same(math.tointeger(3.5), nil)
same(math.tointeger('8'), 8)
same(math.maxinteger > 9e18, true)
same(math.mininteger, -2 ^ 63)
same(math.huge > 1.7976931348623157e308, true)
same(math.log(8, 2), 3)
same(math.log(100, 10), 2)
same(math.atan(1, -1) > 2, true)
same(math.ult(1, 2), true)
math.randomseed(42)
local a, b = math.random(1000), math.random(5, 6)
math.randomseed(42)
same(math.random(1000), a)
same(b == 5 or b == 6, true)
same(math.random() < 1, true)
fails('interval is empty', math.random, 2, 1)
same(tonumber('1e5'), 100000)
same(tonumber(' 0x1F\r\n'), 31)
same(tonumber('-0x10'), -16)
same(tonumber('0x.8'), 0.5)
same(tonumber('775', 8), 509)
same(tonumber('zz', 36), 1295)
same(tonumber('010'), 10)
same(tonumber('1_000'), nil)
same(tonumber('inf'), nil)
same(tonumber('nan'), nil)
same(tonumber('--1'), nil)
same(tonumber(''), nil)
same(tonumber('1 2'), nil)
same(tonumber({}), nil)
same(tostring(1 / 0), 'inf')
same(tostring(3.0), '3')

same(tostring(-1 / 0), '-inf')
same(tostring(0 / 0), 'nan')
same(tonumber('8', 8), nil)
same(math.log(81, 3) > 3.99, true)
same(math.random(0) ~= math.random(0), true)
fails('base out of range', tonumber, '1', 40)

-- utf8
same(utf8.offset('Hä€', 0, 3), 2)
same(utf8.offset('Hä€', -2), 2)
same(utf8.offset('Hä€', -9), nil)
same(utf8.len('Hä€', -3), 1)
fails('continuation byte', utf8.offset, 'ä', 1, 2)
same(utf8.char(72, 228, 8364), 'Hä€')
same(utf8.len('Hä€'), 3)
same(select(2, utf8.len('H\255')), 2)
same(select('#', utf8.codepoint('Hä€', 1, -1)), 3)
same(utf8.codepoint('ä'), 228)
same(utf8.offset('Hä€', 3), 4)
same(utf8.offset('Hä€', -1), 4)
same(utf8.offset('Hä€', 9), nil)
local at = {}
for p, c in utf8.codes('Hä€') do at[#at + 1] = p .. ':' .. c end
same(table.concat(at, ' '), '1:72 2:228 4:8364')
fails('invalid UTF-8', function() for _ in utf8.codes('\255') do end end)
local chars = {}
for c in ('Hä€'):gmatch(utf8.charpattern) do chars[#chars + 1] = c end
same(table.concat(chars, '|'), 'H|ä|€')
fails('out of bounds', utf8.codepoint, 'a', 5)

-- string
same(string.format('%d %i', 3.0, -2), '3 -2')
fails('number has no integer representation', string.format, '%d', 3.5)
same(string.format('%5.2f|%-5d|%05d|%+d', 3.14159, 7, 7, 7), ' 3.14|7    |00007|+7')
same(string.format('%g %g %g %.3g', 0.1, 1e20, 100000, 1234.5), '0.1 1e+20 100000 1.23e+03')
same(string.format('%e', 12345.678), '1.234568e+04')
same(string.format('%x %X %o', 255, 255, 8), 'ff FF 10')
same(string.format('%x', -1), 'ffffffffffffffff')
same(string.format('%c%c', 72, 105), 'Hi')
same(string.format('%q', 'a"b\\c\nd\0001\r'), '"a\\"b\\\\c\\\nd\\0001\\13"')
same(string.format('%-4s|%4s|%.2s', 'ä', 'ä', 'abc'), 'ä  |  ä|ab')
same(string.format('%s %s %s %s', nil, true, 1.5, 'x'), 'nil true 1.5 x')
same(string.format('100%% %s', 'x'), '100% x')
same(string.format('%s', setmetatable({}, {__tostring = function() return 'object' end})), 'object')
same(string.format('%s', 'with %d inside'), 'with %d inside')
same(string.format('%f', 1 / 0), 'inf')
fails("bad argument #2", string.format, '%s')
same(string.format('%+f|%5s', 1 / 0, 'a'), '+inf|    a')
same(string.format('%.0g', 1.5), '2')
same(string.format('%q %q', 1, true), '1 true')
fails('no literal form', string.format, '%q', {})
same(string.format('%d', math.maxinteger), '9223372036854775807')
fails("invalid conversion '%y' to 'format'", string.format, '%y', 1)
fails("invalid conversion", string.format, '%', 1)
same(('ab'):rep(3, '-'), 'ab-ab-ab')
same(('ab'):rep(0), '')
same((''):rep(1e9), '')
fails('resulting string too large', string.rep, 'a', 2 ^ 40)

-- base
same(rawlen({1, 2}), 2)
same(rawlen('abc'), 3)
same(select('#', assert(1, 2, 3)), 3)
local object = {}
same(select(2, pcall(assert, false, object)), object)
same(select(2, pcall(assert, nil, 'text')), 'text')
same(select(2, xpcall(function(a, b) return a + b end, print, 3, 4)), 7)
same(select(2, xpcall(error, function(e) return e .. '!' end, 'oops', 0)), 'oops!')
same(type(collectgarbage('count')), 'number')
same(collectgarbage(), 0)
same(collectgarbage('isrunning'), true)
fails('invalid option', collectgarbage, 'nonsense')
fails('table or string expected', rawlen, 1)
fails('assertion failed!', assert, false)
fails('os.exit is not available', os.exit, 1)
fails('debug.getinfo is not available', debug.getinfo, 1)
same(debug.traceback('x'):match('^x\nstack traceback'), 'x\nstack traceback')
same(_printregs, nil)

local function level1() error('x') end
local function level2() error('x', 2) end
local function lineOf(f)
  local ok, err = pcall(function()
    f()
  end)
  return tonumber(err:match('^policy.lua:(%d+): x$'))
end
same(lineOf(level2) > lineOf(level1), true)
same(select(2, pcall(error, 'x', 0)), 'x')
same(select(2, pcall(error)), nil)

-- metamethods
local proxy = setmetatable({}, {
  __pairs = function() return function(_, k) if not k then return 'key', 'value' end end, nil, nil end,
  __index = function(_, i) if i <= 3 then return i * 10 end end,
})
for k, v in pairs(proxy) do same(k .. v, 'keyvalue') end
local sum = 0
for _, v in ipairs(proxy) do sum = sum + v end
same(sum, 60)
local n = 0
for _ in pairs({1, 2, x = 3}) do n = n + 1 end
same(n, 3)
fails('table expected', pairs, nil)
fails('table expected', ipairs, 7)

-- userdata
same(tostring(box), 'a box')
same(string.format('[%s]', box), '[a box]')
same('' .. box, 'a box')
same(#box, 2)
local seen = {}
for k, v in pairs(box) do seen[#seen + 1] = k .. '=' .. v end
same(table.concat(seen), 'a=1')
fails('table expected', pairs, plainbox)

-- coroutines
local co = coroutine.wrap(function(a)
  local b = coroutine.yield(a + 1)
  return b + 1
end)
same(co(1), 2)
same(co(5), 6)
same(coroutine.resume(coroutine.create(function() error('in it', 0) end)), false)
