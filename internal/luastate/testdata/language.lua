-- What the compiler of gopher-lua makes of programs must be what Lua 5.4 makes of them.

-- assignments to several variables
same('2 1', (function() local a, b = 1, 2 a, b = b, a return a, b end)())
same('2 3 1', (function() local a, b, c = 1, 2, 3 a, b, c = b, c, a return a, b, c end)())
same('2 5', (function() local a, b = 1, 2 b, a = 5, b return a, b end)())
same('2 nil', (function() local a, b = 1, 2 b, a = nil, b return a, b end)())
same('7 1 2', (function() local a, b, c = 1, 2, 3 a, b, c = 7, a, b return a, b, c end)())
same('3 1 nil', (function() local a, b, c = 1, 2, 3 a, b, c = c, a return a, b, c end)())
same('9 5', (function() local a, b = 1, {9} b, a = 5, b[1] return a, b end)())
same('2 5', (function() local a, b = 1, 2 b, a = 5, b, error return a, b end)())
same('2 5', (function() local a, b = 1, 2 local function f() return b end b, a = 5, f() return a, b end)())
same('3 5', (function() local a, b = 1, 2 b, a = 5, b and 3 return a, b end)())
same('2 1 2 1', (function() local a, b = 1, 2 local function f() return a, b end (function() b, a = a, b end)() return a, b, f() end)())
same('1', (function() local a a, a = 1, 2 return a end)())
x, y = 1, 2
y, x = 5, y
same('2 5', x, y)
x, y = y, x
same('5 2', x, y)
same('2 5', (function() local b = 2 b, x = 5, b return x, b end)())
same('nil 1', (function() local a, t = 1, {} t.x, a = a, t.x return a, t.x end)())
same('2 20 nil', (function() local i, t = 1, {} i, t[i] = i + 1, 20 return i, t[1], t[2] end)())
same('1 1', (function() local a = {} local b = a a.x, a = 1, {y = 1} return b.x, a.y end)())
same('1 2', (function() local a = {} local b = a a.x, a = (function() return 1, 2 end)() return b.x, a end)())
same('2 nil 5', (function() local b, t = 2, {} b, t[b] = 5, b return t[2], t[5], b end)())
same('b a', (function() local t, i, j = {'a', 'b'}, 1, 2 t[i], t[j] = t[j], t[i] return t[1], t[2] end)())
same('1 nil', (function() local t = {} t.x, t.y = (function() return 1 end)() return t.x, t.y end)())
same('1 2 3', (function(...) local t, a = {} a, t.x, t.y = ... return a, t.x, t.y end)(1, 2, 3))
same('1 nil', (function(...) local a, b = 0, 0 a, b = (...) return a, b end)(1, 2, 3))
same('ab nil', (function() local a, b = 'a', 'b' a, b = a .. b return a, b end)())
same('table key value', (function()
  local order = {}
  local function at(what, v) order[#order + 1] = what return v end
  at('table', {})[at('key', 1)], x = at('value', 2)
  return table.unpack(order)
end)())
same('1 10', (function() local n, fib = 0, {} local a, b = 0, 1 while n < 1 do n, a, b = n + 1, b, a + b end return a, b * 10 end)())

-- a parameter that gets the result of a call
same('vb', (function(v) v = v .. 'b' return v end)('v'))
same('avx', (function(a, v) v = a .. v .. 'x' return v end)('a', 'v'))
same('nilx', (function(v) v = tostring(v) .. 'x' return v end)())
same('6', (function(v) v = (tostring(v)) return v end)(6))
same('6', (function(v) v = (select(2, 5, v, 7)) return v end)(6))
same('6x', (function(v) v = ((v .. 'x')) return v end)(6))
same('ab', (function(...) arg = 'a' .. 'b' return arg end)(6))
same('aaaa', (function(v) while #v < 4 do v = v .. v end return v end)('a'))
same('a12', (function(v) for i = 1, 2 do v = v and v .. i or 'n' end return v end)('a'))
same('6b 6', (function(v, w) v, w = v .. 'b', (tostring(v)) return v, w end)(6, 7))
same('A', (function(v) v = v and v:upper() or 'none' return v end)('a'))
same('3', (function(n, v) v = v or math.max(n, v or 3) return v end)(2))
