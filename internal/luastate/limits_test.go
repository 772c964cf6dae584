package luastate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// quick are limits that tests need not wait for.
var quick = Limits{Running: 50 * time.Millisecond, Memory: 16 << 20}

// TestNothingRunsForEver ends what would go on, however the program defends itself.
func TestNothingRunsForEver(t *testing.T) {
	for name, body := range map[string]string{
		"loop":          "while true do end",
		"pcall":         "while true do pcall(function() while true do end end) end",
		"xpcall":        "while true do xpcall(function() while true do end end, function() while true do end end) end",
		"coroutine":     "while true do coroutine.wrap(function() while true do end end)() end",
		"resume":        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
		"pattern":       "while true do pcall(string.find, ('a'):rep(30000), '.-.-.-.-b') end",
		"garbage":       "while true do local t = {{}, {}, {}} end",
		"texts":         "while true do local s = ('x'):rep(1e6) .. 'y' end",
		"metamethod":    "return setmetatable({}, {__index = function() while true do end end}).x",
		"sort":          "local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() while true do end end)",
		"error handler": "xpcall(error, function() while true do end end)",
		"tostring":      "error(setmetatable({}, {__tostring = function() while true do end end}))",
		"goto":          "::again:: goto again",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStateWith(t, "function f() "+body+" end", Options{Limits: quick})
			_, err := call(t, s, "f")
			if !errors.Is(err, ErrTooLong) || !strings.Contains(err.Error(), "ran too long: more than 50ms") {
				t.Fatal(err)
			}
			if !s.Spent() {
				t.Error("the state is taken for a good one")
			}
		})
	}
}

// TestNothingTakesAllMemory ends what would grow, while the process stays small.
func TestNothingTakesAllMemory(t *testing.T) {
	for name, body := range map[string]string{
		"array":      "local t = {} while true do t[#t + 1] = 1 end",
		"array 2":    "local t, i = {}, 0 while true do i = i + 1 t[i] = i end",
		"tables":     "local t = {} while true do t = {t, {}, {}} end",
		"keys":       "local t, i = {}, 0 while true do i = i + 1 t['key' .. i] = true end",
		"removed":    "local t, i = {}, 0 while true do i = i + 1 t['key' .. i] = true t['key' .. i] = nil end",
		"closures":   "local f while true do local g = f f = function() return g end end",
		"texts":      "local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end",
		"parts":      "local t = {} while true do t[#t + 1] = ('x'):rep(#t) end",
		"global":     "while true do g = {g} end",
		"pcall":      "local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end",
		"coroutine":  "coroutine.wrap(function() local t = {} while true do t[#t + 1] = {} end end)()",
		"coroutines": "local t = {} while true do local c = coroutine.create(function() coroutine.yield() end) coroutine.resume(c) t[#t + 1] = c end",
		"upvalue":    "local t = {} local function add() t[#t + 1] = {} end while true do add() end",
		"keyed":      "local t, i = {}, 0 while true do i = i + 1000 t[i] = i end",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStateWith(t, "function f() "+body+" end", Options{Limits: Limits{Running: -1, Memory: quick.Memory}})
			before := heap()
			_, err := call(t, s, "f")
			if refused := err != nil && strings.Contains(err.Error(), "memory for a table with the index"); !refused && (!errors.Is(err, ErrTooMuchMemory) || !s.Spent()) {
				t.Fatal(err)
			}
			if held := int64(heap()) - int64(before); held > 8*quick.Memory {
				t.Errorf("the state held %d MiB", held>>20)
			}
			runtime.KeepAlive(s)
		})
	}
}

func TestOneInstructionIsBounded(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"doubling":           {"local s = 'x' while true do s = s .. s end", "resulting string too large"},
		"chain":              {"local s = ('x'):rep(9e6) return s .. 'y' .. s", "resulting string too large"},
		"numbers":            {"local s = ('1'):rep(16777216) return s .. 1", "resulting string too large"},
		"far index":          {"local t = {} local i = 6e7 t[i] = 1", "not enough memory for a table with the index 60000000"},
		"far index in table": {"local i = 6e7 return {[i] = 1}", "not enough memory for a table with the index 60000000"},
		"far constant":       {"local t = {} t[60000000] = 1", "not enough memory for a table with the index 60000000"},
		"rawset":             {"rawset({}, 6e7, 1)", "not enough memory for a table with the index 60000000"},
		"far end":            {"local t = setmetatable({}, {__len = function() return 6e7 end}) t[#t + 1] = 1", "not enough memory for a table with the index 60000001"},
		"far insert":         {"table.insert(setmetatable({}, {__len = function() return 6e7 end}), 1)", "not enough memory for a table with the index 60000001"},
		"far remove":         {"table.remove(setmetatable({}, {__len = function() return 6e7 end, __index = function() return 1 end}))", "not enough memory for a table with the index 60000000"},
		"far move": {`local mt = {__newindex = function() end}
			table.move(setmetatable({}, {__index = function() mt.__newindex = nil return 1 end}), 1, 1, 6e7, setmetatable({}, mt))`,
			"not enough memory for a table with the index 60000000"},
		"load": {"load('local t, i = {}, 6e7 t[i] = 1')()", "not enough memory for a table with the index 60000000"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStateWith(t, "function f() "+test.body+" end", Options{Limits: patient})
			_, err := call(t, s, "f")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatal(err)
			}
			if s.Spent() {
				t.Error("an error that a program can make is no reason to give up the state")
			}
		})
	}
}

// TestFarIndexesOfHashes: numbers that are no index may be as large as they like.
func TestFarIndexesOfHashes(t *testing.T) {
	s := newStateWith(t, `function f() local t, now = {}, 1750000000 t[now] = 1 t[-6e7] = 2 t[6e7 + 0.5] = 3 return t[now] + t[-6e7] + t[6e7 + 0.5] end`, Options{Limits: patient})
	if got, err := call(t, s, "f"); err != nil || got[0] != lua.LNumber(6) {
		t.Error(got, err)
	}
}

func TestWhatAddsUpOverCalls(t *testing.T) {
	s := newStateWith(t, "kept = {} function f() kept[#kept + 1] = {('x'):rep(1e5)} end", Options{Limits: quick})
	for n := 0; ; n++ {
		if _, err := call(t, s, "f"); err != nil && !errors.Is(err, ErrTooMuchMemory) {
			t.Fatal(err)
		}
		if s.Spent() {
			break
		}
		if n > 2000 {
			t.Fatal("200 MB are held")
		}
	}
}

// TestOutsideIsNotCounted waits for longer than Lua may run.
func TestOutsideIsNotCounted(t *testing.T) {
	s := newStateWith(t, "function f() for i = 1, 5 do wait() end return 'done' end", Options{Limits: quick, Setup: func(L *lua.LState) error {
		L.SetGlobal("wait", L.NewFunction(func(L *lua.LState) int {
			Outside(L, func() { time.Sleep(quick.Running / 2) })
			return 0
		}))
		return nil
	}})
	if got, err := call(t, s, "f"); err != nil || got[0] != lua.LString("done") {
		t.Fatal(got, err)
	}
	// The clock goes on afterwards.
	if err := s.L.DoString("function g() wait() while true do end end"); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, s, "g"); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
}

// TestOneLongCallIsNotLua: a function of Go that does not say that it waits counts little.
func TestOneLongCallIsNotLua(t *testing.T) {
	s := newStateWith(t, "function f() wait() return 'done' end", Options{Limits: quick, Setup: func(L *lua.LState) error {
		L.SetGlobal("wait", L.NewFunction(func(L *lua.LState) int {
			time.Sleep(5 * quick.Running)
			return 0
		}))
		return nil
	}})
	if got, err := call(t, s, "f"); err != nil || got[0] != lua.LString("done") {
		t.Fatal(got, err)
	}
}

// TestContextInOtherGoroutines hands the context of a call to those who ask it at any time.
func TestContextInOtherGoroutines(t *testing.T) {
	var others sync.WaitGroup
	stop := make(chan struct{})
	s := newStateWith(t, "function f() share() while true do local t = {{}, {}} end end", Options{Limits: quick, Setup: func(L *lua.LState) error {
		L.SetGlobal("share", L.NewFunction(func(L *lua.LState) int {
			ctx := L.Context()
			for range 4 {
				others.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-ctx.Done():
						default:
						}
						_ = ctx.Err()
						_ = ctx.Value("x")
						derived, cancel := context.WithCancel(ctx)
						_ = context.Cause(derived)
						cancel()
						runtime.Gosched()
					}
				})
			}
			return 0
		}))
		return nil
	}})
	_, err := call(t, s, "f")
	close(stop)
	others.Wait()
	if !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
}

func TestTheCallersContextEndsACall(t *testing.T) {
	s := newStateWith(t, "function f() while true do end end", Options{Limits: Limits{Running: -1, Memory: -1}})
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Millisecond, func() { cancel(reason) })
	if _, err := s.Call(ctx, 0, s.L.GetGlobal("f")); !errors.Is(err, reason) {
		t.Fatal(err)
	}
	if s.Spent() {
		t.Error("no limit was broken")
	}
}

func TestWithContext(t *testing.T) {
	s := newStateWith(t, "function f() return within(function() while true do end end) end", Options{Limits: quick, Setup: func(L *lua.LState) error {
		L.SetGlobal("within", L.NewFunction(func(L *lua.LState) int {
			ctx, cancel := context.WithTimeout(L.Context(), time.Hour)
			defer cancel()
			restore := WithContext(L, ctx)
			defer restore()
			L.Push(L.Get(1))
			L.Call(0, 0)
			return 0
		}))
		return nil
	}})
	if _, err := call(t, s, "f"); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
}

// TestPanicsAreNotCaught: a program that goes on after a panic of Go code goes on with nobody knows what.
func TestPanicsAreNotCaught(t *testing.T) {
	for name, body := range map[string]string{
		"plain":     "broken()",
		"pcall":     "pcall(broken) return 'survived'",
		"xpcall":    "xpcall(broken, print) return 'survived'",
		"coroutine": "coroutine.resume(coroutine.create(broken)) return 'survived'",
		"wrap":      "pcall(coroutine.wrap(function() broken() end)) return 'survived'",
		"nested":    "pcall(pcall, pcall, broken) return 'survived'",
		"handler":   "xpcall(broken, function(e) return 'fine' end) return 'survived'",
	} {
		for _, fn := range []string{"broken", "faulty"} {
			body := strings.ReplaceAll(body, "broken", fn)
			t.Run(name+"/"+fn, func(t *testing.T) {
				s := newStateWith(t, "function f() "+body+" end", Options{Setup: func(L *lua.LState) error {
					L.SetGlobal("broken", L.NewFunction(Guarded(func(L *lua.LState) int { panic("boom") })))
					L.SetGlobal("faulty", L.NewFunction(func(L *lua.LState) int {
						return []int{}[L.GetTop()]
					}))
					return nil
				}})
				got, err := call(t, s, "f")
				if err == nil || !errorOf(err).Panic || !strings.Contains(err.Error(), map[string]string{"broken": "panic: boom", "faulty": "panic: runtime error: index out of range"}[fn]) {
					t.Fatal(got, err)
				}
				if !s.Spent() {
					t.Error("the state is taken for a good one")
				}
			})
		}
	}
}

func TestDepth(t *testing.T) {
	for name, body := range map[string]string{
		"recursion":  "local function f() return 1 + f() end return f()",
		"pcall":      "local function f() local ok, e = pcall(f) if not ok then error(e, 0) end end return f()",
		"coroutines": "local function f() return coroutine.wrap(f)() end return f()",
		"both":       "local function f() local ok, e = pcall(coroutine.wrap(f)) if not ok then error(e, 0) end end return f()",
		"deep both":  "local function g(n, f) if n > 0 then return (pcall(g, n - 1, f)) end return f() end local function f() return coroutine.wrap(function() return g(150, f) end)() end return f()",
		"sort":       "local function f() table.sort({3, 2, 1}, function(a, b) f() return a < b end) end return f()",
		"gsub":       "local function f() return (('x'):gsub('x', f)) end return f()",
		"tostring":   "local t t = setmetatable({}, {__tostring = function() return tostring(t) end}) return tostring(t)",
		"index":      "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x",
		"concat":     "local t t = setmetatable({}, {__concat = function(a, b) return a .. b end}) return t .. 'x'",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStateWith(t, "function f() "+body+" end", Options{Limits: patient})
			_, err := call(t, s, "f")
			if name == "deep both" {
				return // it is enough that it comes back
			}
			if err == nil || !strings.Contains(err.Error(), "stack overflow") || s.Spent() {
				t.Fatal(err)
			}
		})
	}
}

func TestLibrariesAreReadOnly(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"replace":           {"string.upper = nil", "string is read-only: cannot set upper"},
		"add":               {"string.own = 1", "string is read-only: cannot set own"},
		"rawset":            {"rawset(table, 'insert', nil)", "read-only"},
		"require":           {"require 'string'.upper = nil", "string is read-only"},
		"loaded":            {"package.loaded.math.floor = nil", "math is read-only"},
		"metatable":         {"getmetatable('').__index = nil", "string metatable is read-only"},
		"through metatable": {"getmetatable('').__index.upper = nil", "string is read-only"},
		"setmetatable":      {"setmetatable(string, {})", "protected metatable"},
		"of a text":         {"setmetatable('', {})", "table expected"},
		"_G":                {"_G.string.rep = print", "string is read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(t, "function f() "+test.body+" end", nil)
			if _, err := call(t, s, "f"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatal(err)
			}
		})
	}
	// As policies do, where they are loaded.
	s := newState(t, `
function string.starts(s, start) return s:sub(1, #start) == start end
table.contains = function(t, v) for _, x in ipairs(t) do if x == v then return true end end return false end
assert(not pcall(function() string.rep = nil end))
function f()
	assert(('abc'):starts('ab') and string.starts('abc', 'ab') and table.contains({1, 2}, 2))
	local names = {}
	for name, fn in pairs(string) do names[name] = fn end
	assert(names.upper == string.upper and names.starts == string.starts and next(math))
	assert(rawget(string, 'upper') == string.upper)
	assert(getmetatable('').__index == string)
	own = 'global'
end`, nil)
	if _, err := call(t, s, "f"); err != nil {
		t.Fatal(err)
	}
}

func TestChoiceOfLibraries(t *testing.T) {
	source := `function f(code) return load('return ' .. code)() end`
	for code, name := range map[string]string{
		"os.execute('true')": "os.execute", "io.popen('true')": "io.popen", "dofile('x')": "dofile", "loadfile('x')": "loadfile",
		"debug.getinfo(1)": "debug.getinfo",
	} {
		s := newState(t, source, nil)
		if _, err := call(t, s, "f", lua.LString(code)); err == nil || !strings.Contains(err.Error(), name+" is not available") {
			t.Errorf("%s: %v", name, err)
		}
		allow := name
		if strings.HasPrefix(name, "debug.") {
			allow = "debug"
		}
		s = newStateWith(t, source, Options{Limits: patient, Allow: []string{allow}})
		if _, err := call(t, s, "f", lua.LString(code)); err != nil && strings.Contains(err.Error(), "not available") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newStateWith(t, source, Options{Limits: patient, Forbid: []string{"io", "os.getenv", "load2"}})
	for _, code := range []string{"io.open('x')", "os.getenv('HOME')"} {
		name, _, _ := strings.Cut(code, "(")
		if _, err := call(t, s, "f", lua.LString(code)); err == nil || !strings.Contains(err.Error(), name+" is not available") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, o := range []Options{{Allow: []string{"io"}}, {Forbid: []string{"package"}}, {Forbid: []string{""}}} {
		if o.Validate() == nil {
			t.Errorf("%v passes", o)
		}
	}
}

// TestWhatIsKnownOfGopherLua fails when the fields that are looked into have other names.
func TestWhatIsKnownOfGopherLua(t *testing.T) {
	if !inside.known() {
		t.Errorf("%+v", inside)
	}
	s := newState(t, "function f() local a, b = {}, {} return held() end", func(L *lua.LState) error {
		L.SetGlobal("held", L.NewFunction(func(L *lua.LState) int {
			tables := 0
			for _, v := range registers(L) {
				if v != nil && v.Type() == lua.LTTable {
					tables++
				}
			}
			L.Push(lua.LNumber(tables))
			return 1
		}))
		return nil
	})
	if got, err := call(t, s, "f"); err != nil || got[0].(lua.LNumber) < 2 {
		t.Error(got, err)
	}
}

// TestWeighing compares what is estimated with what the process grows by.
func TestWeighing(t *testing.T) {
	var states []*State
	for name, body := range map[string]string{
		"array":        "for i = 1, 1000000 do t[i] = i end",
		"keys":         "for i = 1, 200000 do t['key' .. i] = i end",
		"tables":       "for i = 1, 200000 do t[i] = {1, 2, 3} end",
		"records":      "for i = 1, 50000 do t[i] = {name = i, value = i} end",
		"late records": "for i = 1, 20000 do t[i] = {} t[i].name = i end",
		"texts":        "for i = 1, 20000 do t[i] = ('x'):rep(1000) end",
		"one text":     "local s = ('x'):rep(500) for i = 1, 500000 do t[i] = s end",
		"closures":     "for i = 1, 300000 do t[i] = function() return i end end",
		"coroutines":   "for i = 1, 5000 do t[i] = coroutine.create(print) end",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStateWith(t, "t = {} function f() "+body+" end", Options{Limits: Limits{Memory: -1, Running: -1}})
			before, weighed := heap(), weigh(s.L, noLimit)
			if _, err := call(t, s, "f"); err != nil {
				t.Fatal(err)
			}
			grown, found := int64(heap()-before), weigh(s.L, noLimit)-weighed
			ratio := float64(found) / float64(grown)
			if ratio < 1.0/3 || ratio > 3 {
				t.Errorf("took %d kB, weighed %d kB: %.2f", grown>>10, found>>10, ratio)
			}
			states = append(states, s) // so that none goes while another is measured
		})
	}
}

func TestConcatenation(t *testing.T) {
	s := newState(t, `
local joined = setmetatable({}, {__concat = function(a, b)
	local function name(v) return type(v) == 'table' and 'T' or v end
	return '(' .. name(a) .. '+' .. name(b) .. ')'
end})
local function many() return 'a', 'b' end
local function fails(want, f) local ok, e = pcall(f) assert(not ok and tostring(e):find(want, 1, true), e) end
assert('a' .. 'b' == 'ab')
assert('a' .. 'b' .. 'c' .. 'd' == 'abcd')
assert(1 .. 2 == '12' and 1.5 .. '' == '1.5' and 'x' .. 1e15 == 'x1000000000000000' .. '')
assert(joined .. 'x' == '(T+x)' and 'x' .. joined == '(x+T)')
assert('a' .. 'b' .. joined == 'a(b+T)')
assert(joined .. 'a' .. 'b' == '(T+ab)')
assert('a' .. joined .. 'b' .. 'c' == 'a(T+bc)')
assert(('a' .. 'b') .. 'c' == 'abc')
assert('x' .. many() == 'xa' and many() .. 'x' == 'ax')
assert(select('#', 'x' .. many()) == 1)
local t = {'x' .. many()}
assert(#t == 1)
local function tail() return 'x' .. many() end
assert(select('#', tail()) == 1)
local function rest(...) return 'x' .. ... end
assert(rest('y', 'z') == 'xy')
fails('attempt to concatenate a nil value', function() return 'x' .. nil end)
fails('attempt to concatenate a nil value', function() return nil .. 'x' end)
fails('attempt to concatenate a table value', function() return 'x' .. {} .. 'y' end)
fails('attempt to concatenate a boolean value', function() return true .. {} end)
fails('policy.lua:28:', function() return 'x' .. nil end)
assert(not ('x'):find('..', 1, true))
local s = ''
for i = 1, 10 do s = s .. i .. (i < 10 and ',' or '') end
assert(s == '1,2,3,4,5,6,7,8,9,10')
local keyed, order = {}, ''
local function key(k) order = order .. k return k, 'more' end
keyed[key 'a'], keyed[key('b')] = 1, 2
assert(keyed.a == 1 and keyed.b == 2 and order == 'ab')
local made = {[key 'c'] = 3, [('d'):upper()] = 4}
assert(made.c == 3 and made.D == 4)
`, nil)
	_ = s
}

// TestDeterministicConstants: what stands in a program for its operators cannot be mistaken for a text of it.
func TestMarksAreNotInTheSource(t *testing.T) {
	for _, text := range []string{"\x00", "\x00..", "\x00[]", "\x000..", "\x00\x000"} {
		source := fmt.Sprintf("local s = 'a' .. '%s' return s, '%s'", text, text)
		p, err := Compile("x", []byte(source))
		if err != nil {
			continue // a NUL may be refused; it must not be mistaken
		}
		s, err := p.NewState(t.Context(), Options{Limits: patient})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkConcat(b *testing.B) {
	const source = "local a, b, c = 'user', 'example.com', 'tenant' for i = 1, 100 do local s = a .. '@' .. b .. '/' .. c local t = a .. b end"
	plain := lua.NewState()
	defer plain.Close()
	ctx := b.Context()
	plain.SetContext(ctx)
	chunk, err := plain.LoadString(source)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			plain.Push(chunk)
			plain.Call(0, 0)
		}
	})
	s := newState(b, "function f() "+source+" end", nil)
	b.Run("state", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Call(ctx, 0, s.L.GetGlobal("f")); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestYieldOutOfGo: a coroutine cannot be left where Go waits for what it calls.
func TestYieldOutOfGo(t *testing.T) {
	for name, body := range map[string]string{
		"metamethod": "local t = setmetatable({}, {__index = function() coroutine.yield(1) return 2 end}) return t.x",
		"operator":   "local t = setmetatable({}, {__add = function() coroutine.yield(1) return 2 end}) return t + 1",
		"for loop":   "for k in function() coroutine.yield(1) return nil end do end",
		"pcall":      "return select(2, assert(pcall(coroutine.yield, 1)))",
		"sort":       "table.sort({3, 2, 1}, function(a, b) coroutine.yield(1) return a < b end)",
		"concat":     "local t = setmetatable({}, {__concat = function() coroutine.yield(1) return 'x' end}) return t .. 'x'",
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(t, "function f() local co = coroutine.wrap(function() "+body+" end) co() co() end", nil)
			if _, err := call(t, s, "f"); err == nil || !strings.Contains(err.Error(), "attempt to yield across a C-call boundary") {
				t.Fatal(err)
			}
			if s.Spent() {
				t.Error("an error of a program is no reason to give up the state")
			}
		})
	}
	s := newState(t, `
local function walk(t) for i, v in ipairs(t) do if type(v) == 'table' then walk(v) else coroutine.yield(v) end end end
function f()
	local seen = ''
	for v in coroutine.wrap(function() walk {1, {2, {3, 4}}, 5} end) do seen = seen .. v end
	return seen
end`, nil)
	if got, err := call(t, s, "f"); err != nil || got[0] != lua.LString("12345") {
		t.Error(got, err)
	}
}

// TestPartsOfTexts: what is cut out of a long text does not keep all of it, unseen by whoever weighs.
func TestPartsOfTexts(t *testing.T) {
	for name, body := range map[string]string{
		"sub":     "return (('x'):rep(8e6)):sub(1, 1)",
		"match":   "return (('x'):rep(8e6)):match('x')",
		"capture": "return select(3, (('x'):rep(8e6)):find('(x)'))",
		"gmatch":  "for word in (('x '):rep(4e6)):gmatch('%w+') do return word end",
		"gsub":    "local kept (('x'):rep(8e6)):gsub('x', function(x) kept = x end, 1) return kept",
		"unpack":  "return (string.unpack('s1', string.char(1) .. ('x'):rep(8e6)))",
		"fixed":   "return (string.unpack('c1', ('x'):rep(8e6)))",
		"zero":    "return (string.unpack('z', 'x\\0' .. ('x'):rep(8e6)))",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStateWith(t, "kept = {} function f() for i = 1, 20 do kept[i] = (function() "+body+" end)() end end", Options{Limits: Limits{Running: -1, Memory: quick.Memory}})
			before := heap()
			if _, err := call(t, s, "f"); err != nil {
				t.Fatal(err)
			}
			if held := int64(heap()) - int64(before); held > 40<<20 {
				t.Errorf("twenty texts of one byte take %d MiB", held>>20)
			}
			runtime.KeepAlive(s)
		})
	}
}

// A coroutine that waits for another cannot be resumed: it would wait for itself, and nothing would end that.
func TestCoroutinesThatResumeOneAnother(t *testing.T) {
	s := newStateWith(t, `
function resumed()
	local a, b
	a = coroutine.create(function() return coroutine.resume(b) end)
	b = coroutine.create(function() return coroutine.resume(a) end)
	return select(4, coroutine.resume(a))
end
function wrapped()
	local a, b
	a = coroutine.wrap(function() return b() end)
	b = coroutine.wrap(function() return a() end)
	return select(2, pcall(a))
end
function itself()
	local a a = coroutine.wrap(function() return a() end)
	return select(2, pcall(a))
end
function main()
	local main = coroutine.running()
	return select(2, coroutine.wrap(function() return coroutine.resume(main) end)())
end
function yields()
	local a = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end return 'cannot resume non-suspended coroutine' end)
	a() a() a()
	return a()
end`, Options{Limits: patient})
	for _, name := range []string{"resumed", "wrapped", "itself", "main", "yields"} {
		got, err := call(t, s, name)
		if err != nil || len(got) == 0 || !strings.HasSuffix(got[0].String(), "cannot resume non-suspended coroutine") {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}
