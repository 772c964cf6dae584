package delivery

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// hostileScripts are the bodies of functions in policies that mean no good, or know no better: of send where nothing else is
// said. Each has to end with a result, and with what the result says.
var hostileScripts = []struct {
	name   string
	where  string // "constructor", "close", "top", or "" for send
	script string
	want   Status
	says   string // part of the reply's text
}{
	// What does not end.
	{"a loop", "", `while true do end`, Transient, "too long"},
	{"a loop that calls", "", `local function f() end while true do f() end`, Transient, "too long"},
	{"a loop in pcall", "", `while true do pcall(function() while true do end end) end`, Transient, "too long"},
	{"a loop in an error handler", "", `xpcall(error, function() while true do end end)`, Transient, "too long"},
	{"a loop in a coroutine", "", `coroutine.wrap(function() while true do end end)()`, Transient, "too long"},
	{"a loop of coroutines", "", `while true do coroutine.wrap(function() coroutine.yield() end)() end`, Transient, "too long"},
	{"coroutines in a circle", "", `local c c = coroutine.create(function() return coroutine.wrap(function() return coroutine.resume(c) end)() end)
		return select(3, coroutine.resume(c))`, Delivered, "cannot resume non-suspended coroutine"},
	{"a loop in __index", "", `return setmetatable({}, {__index = function() while true do end end}).x`, Transient, "too long"},
	{"a loop in __tostring", "", `return tostring(setmetatable({}, {__tostring = function() while true do end end}))`, Transient, "too long"},
	{"a loop in a comparison", "", `local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() while true do end end)`, Transient, "too long"},
	{"a loop in a replacement", "", `return (('x'):gsub('x', function() while true do end end))`, Transient, "too long"},
	{"a numeric loop", "", `for i = 1, math.huge do end`, Transient, "too long"},
	{"goto", "", `::again:: goto again`, Transient, "too long"},
	{"an iterator without end", "", `for k in function() return 1 end do end`, Transient, "too long"},
	{"a loop in the constructor", "constructor", `while true do end`, Transient, "too long"},
	{"a loop in close", "close", `while true do end`, Delivered, ""},
	// Patterns that take for ever.
	{"find", "", `return tostring(string.find(('a'):rep(150), 'a-a-a-a-a-a-b'))`, Transient, "too long"},
	{"match", "", `return tostring((('a'):rep(30000)):match('.-.-.-.-b'))`, Transient, "too long"},
	{"gsub", "", `return ((('a'):rep(30000)):gsub('.-.-.-b', ''))`, Transient, "too long"},
	{"gmatch", "", `for _ in (('a'):rep(30000)):gmatch('.-.-.-b') do end return 'x'`, Transient, "too long"},
	{"a plain search, again and again", "", `local s = ('a'):rep(1000000) while true do s:find('b', 1, true) end`, Transient, "too long"},
	// What grows.
	{"rep", "", `return ('a'):rep(1024 * 1024 * 1024 * 64)`, Transient, ""},
	{"rep of rep", "", `local s = 'a' for i = 1, 60 do s = s:rep(10) end return 'x'`, Transient, ""},
	{"doubling", "", `local s = 'a' while true do s = s .. s end`, Transient, ""},
	{"doubling in pcall", "", `while true do pcall(function() local s = 'a' while true do s = s .. s end end) end`, Transient, ""},
	{"a table", "", `local t, i = {}, 0 while true do i = i + 1 t[i] = i end`, Transient, ""},
	{"tables", "", `local t = {} while true do t = {t, {}, {}, {}} end`, Transient, ""},
	{"keys", "", `local t, i = {}, 0 while true do i = i + 1 t['key' .. i] = {} end`, Transient, ""},
	{"concat", "", `local t = {} for i = 1, 100000 do t[i] = ('x'):rep(1000) end local s = table.concat(t) while true do s = table.concat({s, s}) end`, Transient, ""},
	{"format", "", `return (('%99999999d'):format(1))`, Transient, ""},
	{"unpack", "", `return tostring(select('#', table.unpack({}, 1, 100000000)))`, Transient, ""},
	{"coroutines", "", `local t = {} while true do local c = coroutine.create(function() coroutine.yield() end) coroutine.resume(c) t[#t + 1] = c end`, Transient, ""},
	{"varargs", "", `local function f(...) return f(1, ...) end return f()`, Transient, ""},
	{"text for load", "", `local s = ('x = 1 '):rep(1000000) load(s)() return 'x'`, Transient, ""},
	// What is deep.
	{"recursion", "", `local function f() return 1 + f() end return f()`, Transient, "stack overflow"},
	{"recursion in pcall", "", `local function f() pcall(f) end f() return 'survived'`, Delivered, "survived"},
	{"recursion through metamethods", "", `local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x`, Transient, ""},
	{"recursion through tostring", "", `local t t = setmetatable({}, {__tostring = function() return tostring(t) end}) return tostring(t)`, Transient, ""},
	{"recursion through gsub", "", `local function f() return (('x'):gsub('x', f)) end return f()`, Transient, ""},
	{"recursion through sort", "", `local function f() table.sort({3, 2, 1}, function(a, b) f() return a < b end) end f()`, Transient, ""},
	{"recursion through coroutines", "", `local function f() return coroutine.wrap(f)() end return f()`, Transient, ""},
	{"a loop of __index", "", `local a, b = {}, {} setmetatable(a, {__index = b}) setmetatable(b, {__index = a}) return a.x`, Transient, ""},
	{"nested text for load", "", `return tostring(load('return ' .. ('('):rep(100000) .. '1' .. (')'):rep(100000)))`, Delivered, ""},
	// What is returned and raised.
	{"a number", "", `return 250`, Delivered, "250"},
	{"nil", "", `return nil`, Transient, "send returned nil"},
	{"nothing", "", `return`, Transient, "send returned nil"},
	{"a table", "", `return {}`, Transient, "send returned a table"},
	{"true", "", `return true`, Transient, "send returned a boolean"},
	{"a function", "", `return print`, Transient, "send returned a function"},
	{"10 MiB", "", `return ('x'):rep(10 * 1024 * 1024)`, Delivered, "xxxx"},
	{"bytes that are not UTF-8", "", `return '\255\254'`, Transient, "not UTF-8"},
	{"lines", "", `return 'a\r\n250 b'`, Delivered, "a  250 b"},
	{"yield", "", `return coroutine.yield('x')`, Transient, ""},
	{"an error that is a table", "", `error({code = 250})`, Transient, ""},
	{"an error that is nil", "", `error(nil)`, Transient, ""},
	{"an error of 10 MiB", "", `error(('x'):rep(10 * 1024 * 1024))`, Transient, "xxxx"},
	{"an error whose tostring fails", "", `error(setmetatable({}, {__tostring = function() error('again') end}))`, Transient, ""},
	{"an error in an error handler", "", `return tostring(xpcall(error, function() error('again') end))`, Delivered, "false"},
	{"nothing from the constructor", "constructor", `return`, Transient, "no connection object"},
	{"a yield of the constructor", "constructor", `return coroutine.yield()`, Transient, ""},
	{"a connection that is a text", "constructor", `return 'connection'`, Transient, ""},
	{"a connection without send", "constructor", `return {}`, Transient, "no method send"},
	{"a connection whose send is a trap", "constructor", `return setmetatable({}, {__index = function() while true do end end})`, Transient, "too long"},
	{"close that raises", "close", `error('no')`, Delivered, ""},
	// Tricks.
	{"the metatable of a message", "", `getmetatable(message).__index = nil return 'x'`, Transient, ""},
	{"setmetatable of a message", "", `setmetatable(message, {}) return 'x'`, Transient, ""},
	{"a field of a message", "", `message.id = function() end return 'x'`, Transient, ""},
	{"a message of another's method", "", `return message.id({})`, Transient, "message expected"},
	{"the metatable of strings", "", `getmetatable('').__index.upper = nil return 'x'`, Transient, ""},
	{"the library of strings", "", `string.rep = nil return 'x'`, Transient, ""},
	{"the end of the process", "", `os.exit(3) return 'x'`, Transient, "os.exit"},
	{"a program", "", `os.execute('true') return 'x'`, Transient, "os.execute"},
	{"a pipe", "", `io.popen('true') return 'x'`, Transient, "io.popen"},
	{"a file", "", `dofile('/etc/passwd') return 'x'`, Transient, "dofile"},
	{"a file as a function", "", `loadfile('/etc/passwd') return 'x'`, Transient, "loadfile"},
	{"the debugger", "", `debug.setmetatable('', {}) return 'x'`, Transient, "debug.setmetatable is not available"},
	{"the registry", "", `return tostring(debug.getregistry)`, Delivered, "nil"},
	{"a library through its module", "", `require('kumo').log_info = nil return 'x'`, Transient, "kumo is read-only"},
	{"the loaded libraries", "", `package.loaded.string.rep = nil return 'x'`, Transient, "string is read-only"},
	{"an index far away", "", `local t, i = {}, 6e7 t[i] = 1 return 'x'`, Transient, "not enough memory"},
	{"indexes far away", "", `local t, i = {}, 1 while true do i = i * 2 t[i] = {} end`, Transient, ""},
	{"removed keys", "", `local t, i = {}, 0 while true do i = i + 1 t['k' .. i] = 1 t['k' .. i] = nil end`, Transient, ""},
	{"what stays in globals", "", `kept = kept or {} while true do kept = {kept} end`, Transient, ""},
	{"closures", "", `local f while true do local g = f f = function() return g end end`, Transient, ""},
	{"a panic of the host", "", `require('host').broken() return 'x'`, Transient, "panic: broken"},
	{"a panic of the host in pcall", "", `pcall(require('host').broken) return 'x'`, Transient, "panic: broken"},
	{"a panic of the host in a coroutine", "", `coroutine.resume(coroutine.create(require('host').broken)) return 'x'`, Transient, "panic: broken"},
	{"a loop in a function of the host", "", `require('host').each(function() while true do end end) return 'x'`, Transient, "too long"},
	{"a regular expression", "", `local re = kumo.regex.compile('^(?=(a+)+$)b') while true do re:is_match(('a'):rep(30)) end`, Transient, "too long"},
	{"JSON within JSON", "", `return tostring(kumo.json_parse(('['):rep(1000000)))`, Transient, ""},
	{"a table of itself as JSON", "", `local t = {} t.t = t return kumo.json_encode(t)`, Transient, ""},
}

// policy is a whole policy around the script.
func hostilePolicy(where, script string) string {
	parts := map[string]string{"": "return 'sent'", "constructor": "return connection", "close": ""}
	parts[where] = script
	if where == "constructor" && !strings.Contains(script, "return") {
		parts[where] += "\nreturn connection"
	}
	return `
kumo.on('make.it', function()
  local connection = {}
  function connection:send(message)
    ` + parts[""] + `
  end
  function connection:close()
    ` + parts["close"] + `
  end
  do ` + parts["constructor"] + ` end
end)
kumo.on('make.other', function()
  return {send = function(self, message) return 'sent ' .. message:id() end}
end)`
}

// host is a module that is no better than the scripts.
func host(L *lua.LState) int {
	L.Push(L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"broken": func(L *lua.LState) int { panic("broken") },
		"each": func(L *lua.LState) int {
			L.Push(L.CheckFunction(1))
			L.Call(0, 0)
			return 0
		},
	}))
	return 1
}

// TestHostileScripts lets each loose beside a connection of the same policy that behaves: each ends with its result, and
// the other delivers all the while.
func TestHostileScripts(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for _, script := range hostileScripts {
		t.Run(script.name, func(t *testing.T) {
			running := 10 * time.Second // machines may be slow
			if script.says == "too long" {
				running = 20 * time.Millisecond
			}
			rt := &Runtime{
				Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard,
				Lua:        LuaLimits{Running: running, Memory: 32 << 20},
				LuaModules: map[string]lua.LGFunction{"host": host},
			}
			policy, err := rt.ParsePolicy(t.Context(), "policy.lua", []byte(hostilePolicy(script.where, script.script)))
			if err != nil {
				t.Fatal(err)
			}
			rt.SetPolicy(policy)
			deliver := func(constructor string) func() Result {
				p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: constructor}}})
				if err != nil {
					t.Fatal(err)
				}
				return func() Result { return p.Deliver(context.Background(), messageTo("user@example.com")).Results[0] }
			}
			other, it := deliver("make.other"), deliver("make.it")
			other()

			var others sync.WaitGroup
			var sent atomic.Int64
			stop := make(chan struct{})
			others.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if r := other(); r.Status != Delivered {
						t.Errorf("the other connection: %v", r.Response)
						return
					}
					sent.Add(1)
				}
			})
			began, before := time.Now(), sent.Load()
			r := it()
			took, meanwhile := time.Since(began), sent.Load()-before
			close(stop)
			others.Wait()
			if r.Status != script.want || !strings.Contains(r.Response.Text, script.says) {
				t.Errorf("%s %v, want %s %q", r.Status, r.Response, script.want, script.says)
			}
			if strings.ContainsAny(r.Response.Text, "\r\n") || len(r.Response.Text) > 4096 {
				t.Errorf("a text of %d bytes: %.100q", len(r.Response.Text), r.Response.Text)
			}
			if took > 100*time.Millisecond && meanwhile == 0 {
				t.Errorf("nothing else was delivered for %s", took)
			}
			t.Logf("%s: %s %.100q; %d others meanwhile", took.Round(time.Millisecond), r.Status, r.Response.Text, meanwhile)
			if err := rt.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	goroutinesEnd(t, goroutines)
}
