package luastate

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// weary is a context that ends when it has been asked often enough whether it has. So time is counted in
// looks at the context, and a function that forgets to look never ends.
type weary struct {
	context.Context
	left atomic.Int64
	done chan struct{}
}

func newWeary(looks int) *weary {
	w := &weary{Context: context.Background(), done: make(chan struct{})}
	w.left.Store(int64(looks))
	return w
}

func (w *weary) look() {
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
}

func (w *weary) Done() <-chan struct{} {
	w.look()
	return w.done
}

func (w *weary) Err() error {
	w.look()
	select {
	case <-w.done:
		return context.Canceled
	default:
		return nil
	}
}

// Whatever a script asks of the library, it ends: with an error, or with a result that is not too large.
func TestHostileLibraryCalls(t *testing.T) {
	for _, snippet := range []string{
		// patterns
		"return ('a'):rep(1000):find('a-a-a-a-b')",
		"return ('a'):rep(1000):match('a*a*a*a*b')",
		"return ('a'):rep(1000):match('.-.-.-.-.-.-x')",
		"return ('a'):rep(100):find(('a?'):rep(100) .. ('a'):rep(101))",
		"return ('a'):rep(1000):gsub('a-a-a-a-b', '')",
		"for _ in ('a'):rep(1000):gmatch('a-a-a-a-b') do end",
		"return ('('):rep(1e4):find('%b()')",
		"return ('('):rep(1e4):gsub('%b()', '')",
		"return ('a'):rep(1e4):find('.-b')",
		"return ('a'):rep(1e4):find('.*b')",
		"return ('a'):rep(1e4):find('(.*)%1b')",
		"return ('a'):rep(1e6):gsub('', ('x'):rep(1000))",
		"return ('a'):rep(1e5):gsub('a', ('%0'):rep(200))",
		"return ('a'):rep(1e4):gsub('a', function() return ('x'):rep(1e6) end)",
		"return ('a'):rep(1e4):gsub('a', {a = ('x'):rep(1e6)})",
		"return ('a'):rep(2e5):gsub('.', function() end)",
		"return ('a'):find(('a?'):rep(1e6))",
		"return ('a'):find(('[a]'):rep(1e6))",
		"return ('x'):find('[' .. ('a'):rep(2e6))",
		"return ('x'):rep(1e6):find('[' .. ('a-z'):rep(1e5) .. ']y')",
		"return ('a'):rep(2e6):find(('a'):rep(1e6) .. 'b', 1, true)",
		"return ('x'):find(('('):rep(1e6))",
		// texts
		"return ('x'):rep(1e9)",
		"return ('x'):rep(2 ^ 62)",
		"return ('x'):rep(1e6, ('y'):rep(1e6))",
		"return ('x'):rep(1.6e7):rep(10)",
		"return string.format('%999999999d', 1)",
		"return string.format(('%99.99f'):rep(1e5), 1)",
		"return string.format(('%s'):rep(200), unpack((function() local t, s = {}, ('x'):rep(1e6) for i = 1, 200 do t[i] = s end return t end)()))",
		"return string.format(('%%'):rep(2e6))",
		"return string.format('%q', ('\\0'):rep(2e6))",
		"return string.pack('c9999999c9999999c9999999', '', '', '')",
		"return string.pack(('x'):rep(2e6))",
		"return string.packsize(('i'):rep(2e6))",
		"return string.unpack(('b'):rep(2e6), ('x'):rep(2e6))",
		"return string.unpack(('<'):rep(2e6), '')",
		"return string.byte(('x'):rep(2e6), 1, -1)",
		"return utf8.codepoint(('x'):rep(2e6), 1, -1)",
		"return utf8.len(('x'):rep(2e6))",
		"for _ in utf8.codes(('x'):rep(1e6)) do end",
		"return utf8.offset(('\\128'):rep(2e6) , 0)",
		"return tonumber(('1'):rep(2e6)), tonumber(('1'):rep(2e6), 2)",
		"return tostring(setmetatable({}, {__tostring = function() return ('x'):rep(1e9) end}))",
		"return os.date(('%c'):rep(1e6))",
		"return os.date(('%%'):rep(2e6))",
		"return load(('x'):rep(2e6))",
		"return load(function() return ('x '):rep(1e6) end)",
		"return load('return ' .. ('- '):rep(3e4) .. '1')",
		"return load('return x' .. ('.x'):rep(3e4))",
		"return load('return x' .. ('+x'):rep(3e4))",
		"return load(('do '):rep(1e4) .. ('end '):rep(1e4))",
		"return load(('if x then else'):rep(4e3) .. (' end'):rep(4e3))",
		// tables
		"local t = {} for i = 1, 1000 do t[i] = ('x'):rep(1e5) end return table.concat(t)",
		"local t = {} for i = 1, 1e5 do t[i] = '' end return table.concat(t, ('x'):rep(1e6))",
		"return table.concat(setmetatable({}, {__index = function() return 'x' end}), '', 1, 1e15)",
		"return table.concat(setmetatable({}, {__len = function() return 1e15 end, __index = function() return '' end}))",
		"return table.unpack({}, 1, 1e8)",
		"return unpack({}, 1, 1e6)",
		"return table.unpack(setmetatable({}, {__len = function() return 1e15 end}))",
		"return table.move({}, 1, 1e15, 2)",
		"return table.move({}, 1, 6e7, 2)",
		"return table.move({1}, 1, 1, 6e7)",
		"return table.move(setmetatable({}, {__index = function() return 1 end}), 1, 1e15, 1, setmetatable({}, {__newindex = function() end}))",
		"return table.insert(setmetatable({}, {__len = function() return 1e15 end}), 1, 'x')",
		"return table.remove(setmetatable({}, {__len = function() return 1e15 end}), 1)",
		"return table.sort(setmetatable({}, {__len = function() return 1e15 end}))",
		"table.sort(mixed, function() return true end)",
		"table.sort(mixed, function() return false end)",
		"table.sort(mixed, function() return math.random() < 0.5 end)",
		"table.sort(mixed, function(a, b) mixed[b] = nil return a < b end)",
		"return table.sort(mixed)",
		"local t = {3, 2, 1} table.sort(t, function(a, b) return table.sort(t) end)",
		"return select(1e15, 1)",
		"return io.open('/dev/zero'):read('a')",
		"return io.open('/dev/zero'):read(2 ^ 36)",
		"return io.open('/dev/zero'):read(-1)",
		"warn('@on') warn(('x'):rep(1e9))",
		"local x = setmetatable({}, {__tostring = function(x) return tostring(x) end}) return tostring(x)",
		"return ('x'):gsub('x', function() return ('x'):gsub('x', coroutine.wrap(function() while true do coroutine.yield('y') end end)) end)",
		"return coroutine.wrap(function() return ('a'):rep(1000):find('a-a-a-a-b') end)()",
	} {
		t.Run(clip(snippet, 60), func(t *testing.T) {
			s := newState(t, "mixed = {} for i = 1, 2e4 do mixed[i] = i * 7919 % 100003 end", nil)
			proto, err := compile("hostile.lua", []byte(snippet))
			if err != nil {
				t.Fatal(err)
			}
			results, err := s.Call(newWeary(2000), lua.MultRet, s.L.NewFunctionFromProto(proto))
			if err != nil {
				if e := errorOf(err); e == nil || e.Panic {
					t.Errorf("%v\n%s", err, Traceback(err))
				}
				return
			}
			for _, v := range results {
				if s, ok := v.(lua.LString); ok && len(s) > maxText {
					t.Errorf("a string of %d bytes", len(s))
				}
			}
		})
	}
}

// What takes long hears of the end of its context.
func TestLibraryEndsWithContext(t *testing.T) {
	for _, snippet := range []string{
		"s:find('a-a-a-a-b')", "s:match('.-.-.-.-.-x')", "s:gsub('a-a-a-a-b', '')", "s:gmatch('a-a-a-a-b')()", "s:find(('a?'):rep(100) .. s)",
		"table.concat(endless, '', 1, 1e15)", "table.move(endless, 1, 1e15, 1, endless)", "table.insert(long, 1, 'x')", "table.remove(long, 1)",
	} {
		program, err := Compile("policy.lua", []byte(`
			s = ('a'):rep(1000)
			local forever = {__index = function() return '' end, __newindex = function() end, __len = function() return 1e15 end}
			endless = setmetatable({}, {__index = forever.__index, __newindex = forever.__newindex})
			long = setmetatable({}, forever)
			function hostile() `+snippet+` end`))
		if err != nil {
			t.Fatal(err)
		}
		s, err := program.NewState(t.Context(), Options{Limits: patient})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Call(newWeary(1000), 0, s.L.GetGlobal("hostile"))
		if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
			t.Errorf("%s: %v", snippet, err)
		}
		s.Close()
	}
}
