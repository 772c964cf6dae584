package luastate

import (
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// TestVariablesStayShared: what closures share with the functions around them, they still share after an error that
// is caught; and what they alone have left of a function that failed is theirs.
func TestVariablesStayShared(t *testing.T) {
	for name, body := range map[string]string{
		"pcall":         "local n = 0 local function inc() n = n + 1 end pcall(error, 'x') inc() return n == 1",
		"xpcall":        "local n = 0 local function inc() n = n + 1 end xpcall(error, print, 'x') inc() return n == 1",
		"runtime error": "local n = 0 local function inc() n = n + 1 end pcall(function() local t t.x = 1 end) inc() return n == 1",
		"escaped":       "local s pcall(function() local x = 1 s = function() return x end error('x') end) local a, b, c, d, e, f = 7, 7, 7, 7, 7, 7 return s() == 1",
		"escaped x":     "local s xpcall(function() local x = 1 s = function() return x end error('x') end, print) local a, b, c, d, e, f = 7, 7, 7, 7, 7, 7 return s() == 1",
		"escaped pair": `local get, set pcall(function() local x = 1 get, set = function() return x end, function(v) x = v end error('x') end)
			local a, b, c, d, e, f = 7, 7, 7, 7, 7, 7 set(5) return get() == 5`,
		"nested": `local n = 0 local function inc() n = n + 1 end
			pcall(function() pcall(error, 'in') inc() error('out') end) inc() return n == 2`,
		"after a good one": `local n = 0 local function inc() n = n + 1 end
			pcall(function() pcall(inc) error('out') end) inc() return n == 2`,
		"counter": "local n = 0 local function try() n = n + 1 error('again') end while n < 3 do pcall(try) end return n == 3",
		"middle": `local a = 0 local function f() local b = 0 local function inc() a, b = a + 1, b + 1 end
			pcall(function() inc() error('x') end) inc() return b end return f() == 2 and a == 2`,
		"new closures": `local made = {} for i = 1, 3 do pcall(function() local x = i made[i] = function() x = x + 1 return x end error('x') end) end
			return made[1]() == 2 and made[2]() == 3 and made[1]() == 3 and made[3]() == 4`,
		"coroutine": `local n = 0 local function inc() n = n + 1 end
			local co = coroutine.create(function() inc() error('x') end) coroutine.resume(co) inc() return n == 2`,
		"pcall in coroutine": `local n = 0 local co = coroutine.wrap(function() local m = 0 local function inc() n, m = n + 1, m + 1 end
			pcall(error, 'x') inc() coroutine.yield() inc() return m end) co() return co() == 2 and n == 2`,
		"sort":          "local n = 0 pcall(table.sort, {3, 2, 1}, function() n = n + 1 error('x') end) return n == 1",
		"overflow":      "local n = 0 local function inc() n = n + 1 end local function deep() return 1 + deep() end pcall(deep) inc() return n == 1",
		"deep pcalls":   "local n = 0 local function f() n = n + 1 pcall(f) end f() local seen = n n = 0 return seen > 100 and n == 0",
		"error objects": "local e = {} local ok, got = pcall(error, e) return got == e",
		"nil error":     "local ok, got = pcall(error, nil) return ok == false and got == nil",
		"handler":       "local ok, got = xpcall(function() local t t.x = 1 end, function(e) return 'handled ' .. tostring(e) end) return ok == false and got:find('^handled ') == 1",
		"bad handler":   "local ok = xpcall(error, function() error('again') end) return ok == false",
		"traceback":     "local ok, got = xpcall(error, debug.traceback, 'x') return got:find('stack traceback', 1, true) ~= nil",
		"results":       "local ok, a, b, c = pcall(function(...) return ... end, 1, nil, 3) return ok and a == 1 and b == nil and c == 3",
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(t, "function f() "+body+" end", nil)
			for range 2 {
				got, err := call(t, s, "f")
				if err != nil || got[0] != lua.LTrue {
					t.Error(got, err)
				}
			}
		})
	}
}

// TestNestedCalls: a function of Go that calls its own state again and fails leaves the variables outside alone.
func TestNestedCalls(t *testing.T) {
	var s *State
	s = newState(t, `
function fails() local x = 1 error('inner') end
function f()
	local n = 0
	local function inc() n = n + 1 end
	again()
	inc()
	return n
end`, func(L *lua.LState) error {
		L.SetGlobal("again", L.NewFunction(func(L *lua.LState) int {
			_, err := s.Call(L.Context(), 0, L.GetGlobal("fails"))
			if e := errorOf(err); e.Line != 2 || e.Reason != "inner" || e.Traceback == "" {
				t.Errorf("%+v", e)
			}
			return 0
		}))
		return nil
	})
	if got, err := call(t, s, "f"); err != nil || got[0] != lua.LNumber(1) {
		t.Error(got, err)
	}
}
