-- What programs mean must be what they mean in Lua 5.4.

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

-- jumps: closures keep the variables that they hold, and share those that live on
same('a', (function() local v2 = 1 local f = function() v2 = 'a' end local n = 0 while n < 3 do n = n + 1 if n then goto continue end do local x = n end ::continue:: end f() return v2 end)())
same('a', (function() local v2 = 1 local f = function() v2 = 'a' end do local n = 0 while n < 3 do n = n + 1 if n then goto continue end do local x = function() return n end end ::continue:: end end f() return v2 end)())
same('a', (function() local v2 = 1 local f = function() v2 = 'a' end do local n = 0 while n < 3 do n = n + 1 if n == 2 then goto continue end do local x = n local g = function() return x end g() end ::continue:: end end f() return v2 end)())
same('a', (function() local v2 = 1 local f = function() v2 = 'a' end for i = 1, 3 do if i == 2 then goto continue end do local x = i local g = function() return x + i end g() end ::continue:: end f() return v2 end)())
same('a 3 3 5 4', (function() local v2 = 1 local f = function() v2 = 'a' end local fs = {} for i = 1, 3 do local x = i fs[i] = function() x = x + 1 return x end if i == 2 then goto continue end fs[i]() ::continue:: end f() return v2, fs[1](), fs[2](), fs[3](), fs[1]() end)())
same('1 2 3 2', (function() local fs, i = {}, 0 ::top:: do local x = i fs[#fs + 1] = function() x = x + 1 return x end i = i + 1 if i < 3 then goto top end end return fs[1](), fs[2](), fs[3](), fs[1]() end)())
same('1 2 3 2', (function() local fs, i = {}, 0 ::top:: local x = i fs[#fs + 1] = function() x = x + 1 return x end i = i + 1 if i < 3 then goto top end return fs[1](), fs[2](), fs[3](), fs[1]() end)())
same('1 2 10', (function() local fs = {} for i = 1, 3 do local x = i fs[i] = function() return x end if i < 3 then goto continue end x = 10 ::continue:: end return fs[1](), fs[2](), fs[3]() end)())
same('2 3 3 2', (function() local fs, n = {}, 0 while n < 3 do n = n + 1 local x = n fs[n] = function() x = x + 1 return x end if n == 2 then break end end return fs[1](), fs[2](), fs[1](), n end)())
same('2 3 3 2', (function() local fs, n = {}, 0 repeat n = n + 1 local x = n fs[n] = function() x = x + 1 return x end if n == 2 then goto done end until x > 5 ::done:: return fs[1](), fs[2](), fs[1](), n end)())
same('2', (function() local v = 1 local f = function() v = v + 1 end do if v then goto out end local y = function() return v end ::out:: end f() return v end)())
same('2', (function() local v = 1 local f = function() v = v + 1 end for k in pairs{1,2} do if k then goto out end end ::out:: f() return v end)())
same('2', (function() local v = 1 local f = function() v = v + 1 end while true do do if v then goto out end local g = function() return v end end end ::out:: f() return v end)())
same('2', (function() local v = 1 local f = function() v = v + 1 end while true do local g = function() v = v + 1 return v end if v then break end end f() return v end)())
same('3', (function() local v = 1 local f = function() v = v + 1 end for i = 1, 2 do local w = i local g = function() v = v + w return v end g() if v then break end end f() return v end)())
same('2 50 3', (function() local fs = {} while true do do local x = 1 fs[1] = function() x = x + 1 return x end break end end local y = 50 return fs[1](), y, fs[1]() end)())
same('3 50 60 70 4', (function() local fs = {} for i = 1, 3 do if i == 2 then local x = i fs[1] = function() x = x + 1 return x end break end end local y, z, w = 50, 60, 70 return fs[1](), y, z, w, fs[1]() end)())
same('2 3 50 60 70 3 4', (function() local fs = {} for i = 1, 3 do do do local x = i fs[i] = function() x = x + 1 return x end if i == 2 then break end end end end local y, z, w = 50, 60, 70 return fs[1](), fs[2](), y, z, w, fs[1](), fs[2]() end)())
same('6 7 1 2 3 4 5 8', (function() local fs = {} for k, v in ipairs{5, 6} do fs[k] = function() v = v + 1 return v end if k == 2 then break end end local a, b, c, d, e = 1, 2, 3, 4, 5 return fs[1](), fs[2](), a, b, c, d, e, fs[2]() end)())
same('6 1 2 3 4 5 7', (function() local fs = {} repeat local x = 1 if x then local y = 5 fs[1] = function() y = y + x return y end break end until x local a, b, c, d, e = 1, 2, 3, 4, 5 return fs[1](), a, b, c, d, e, fs[1]() end)())
same('2 7 8 3', (function() local f while true do local x = 1 while true do f = function() x = x + 1 return x end break end break end local a, b = 7, 8 return f(), a, b, f() end)())
same('3 1 2 3 4 5 4', (function() local f for i = 1, 2 do local x = i if i == 1 then goto continue end f = function() x = x + 1 return x end do break end ::continue:: end local a, b, c, d, e = 1, 2, 3, 4, 5 return f(), a, b, c, d, e, f() end)())
same('3 1 2 3 4 5 6 7 4', (function() local f for i = 1, 5 do while true do local x = i f = function() x = x + 1 return x end if i > 1 then goto out end break end end ::out:: local a, b, c, d, e, g, h = 1, 2, 3, 4, 5, 6, 7 return f(), a, b, c, d, e, g, h, f() end)())
same('2 1 2 3 4 5 6 7 3', (function() local f do local x = 1 if x then f = function() x = x + 1 return x end goto out end x = 2 end ::out:: local a, b, c, d, e, g, h = 1, 2, 3, 4, 5, 6, 7 return f(), a, b, c, d, e, g, h, f() end)())
same('2 3 4 1 2 3 7', (function() local fs, i = {}, 1 ::top:: local x = i fs[i] = function() x = x + 1 return x end i = i + 1 if i < 3 then do local y = i fs[10 + i] = function() y = y + x return y end goto top end end local a, b = 1, 2 return fs[1](), fs[2](), fs[12](), a, b, fs[1](), fs[12]() end)())
same('12', (function() local count = 0 local function inc() count = count + 1 end local list = {1, false, 2} for _, v in ipairs(list) do if not v then goto continue end inc() ::continue:: end count = count + 10 return count end)())
same('3 3', (function() local f; local n = 0 while n < 3 do n = n + 1 if n == 1 then f = function() return n end end if n == 2 then goto continue end ::continue:: end return f(), n end)())
same('5', (function(a, b) local f = function() a = 5 end do goto x end ::x:: f() return a end)())

-- coroutines
local function resumed(f)
  local co, out = coroutine.create(f), {}
  for i = 1, 3 do
    local r = table.pack(coroutine.resume(co, i, 'x'))
    for k = 1, r.n do r[k] = tostring(r[k]) end
    out[i] = table.concat(r, ',', 1, r.n)
  end
  return table.concat(out, ' ')
end
local dead = ' false,cannot resume dead coroutine'
same('true,1 true,2,x' .. dead, resumed(function(a) return coroutine.yield(a) end))
same('true,1 true,2' .. dead, resumed(function(a) return (coroutine.yield(a)) end))
same('true,1 true,2,x' .. dead, resumed(function(a) local yield = coroutine.yield return yield(a) end))
same('true,1 true,2,x' .. dead, resumed(function(a) local function g() return coroutine.yield(a) end return g() end))
same('true,1,x true,x true,3,x', resumed(function(a, ...) coroutine.yield(a, ...) return coroutine.yield(...) end))
same('true,1 true,end' .. dead, resumed(function(a) local function g() return coroutine.yield(a) end g() return 'end' end))
same('true,1,x true,2,x' .. dead, resumed(coroutine.yield))
same('true,1' .. dead .. dead, resumed(tostring))
same('true,false,attempt to call a number value' .. dead .. dead, resumed(pcall))
same('ababab', coroutine.wrap(string.rep)('ab', 3))
local function silently(f)
  local got
  local co = coroutine.wrap(function() got = f() end)
  co() co()
  return got
end
same('nil', silently(function() local x = coroutine.yield() return type(x) end))
same('nil', silently(function() local t = {} t.x = coroutine.yield() return type(t.x) end))
same('false', silently(function() return 'a' == coroutine.yield() end))
same('none', silently(function() return coroutine.yield() or 'none' end))
same('nil 5', silently(function() local t = {coroutine.yield(), 5} return type(t[1]) .. ' ' .. t[2] end))
same('0', silently(function() return select('#', coroutine.yield()) end))
