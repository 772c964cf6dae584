package luastate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// patient is for tests that are not about the limits: machines may be slow.
var patient = Limits{Running: -1}

// newState runs source in a new state that the test closes.
func newState(t testing.TB, source string, setup func(*lua.LState) error) *State {
	t.Helper()
	return newStateWith(t, source, Options{Setup: setup, Limits: patient})
}

func newStateWith(t testing.TB, source string, o Options) *State {
	t.Helper()
	p, err := Compile("policy.lua", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.NewState(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, Traceback(err))
	}
	t.Cleanup(s.Close)
	return s
}

// call calls a global function.
func call(t testing.TB, s *State, name string, args ...lua.LValue) ([]lua.LValue, error) {
	t.Helper()
	return s.Call(t.Context(), lua.MultRet, s.L.GetGlobal(name), args...)
}

func TestCompileRefuses(t *testing.T) {
	for _, test := range []struct{ name, source, want string }{
		{"hex escape", "local a = 1\nlocal b = '\\x41'", `policy.lua:2: escape \x in a string is not available in Lua 5.1`},
		{"unicode escape", "\n\nlocal b = \"\\u{48}\"", `policy.lua:3: escape \u{...}`},
		{"z escape", "local b = 'a\\z\n b'", `policy.lua:1: escape \z`},
		{"goto nowhere", "local a\n\ngoto nowhere", "no visible label 'nowhere' for <goto> at line 3"},
		{"goto out of a function", "::top::\nlocal f = function()\ngoto top end", "no visible label 'top' for <goto> at line 3"},
		{"goto a local", "while true do\ngoto continue\nlocal a = 1\n::continue:: print(a) end", "<goto continue> at line 2 jumps into the scope of local 'a'"},
		{"break without a loop", "local a\nbreak", "policy.lua:2: no loop to break"},
		{"break of a function in a loop", "while true do\nlocal f = function()\nbreak end end", "policy.lua:3: no loop to break"},
		{"unknown escape", `local b = 'a\.b'`, `policy.lua:1: unknown escape "\\."`},
		{"escape above 255", `local b = '\300'`, `policy.lua:1: escape \300 in a string is above 255`},
		{"escape after a continued line", "local b = 'a\\\nb\\x41'", `policy.lua:2: escape \x`},
		{"after a long comment", "--[==[\n]]\n'\\x41' ]==]\nlocal b = '\\x41'", `policy.lua:4: escape \x`},
		{"after a long string", "local a = [[\n\\x41\n]]\nlocal b = '\\x41'", `policy.lua:4: escape \x`},
		{"_ENV", "local _ENV = {}", "policy.lua:1: _ENV is unknown"},
		{"octal by accident", "local a = 00123", "policy.lua:1: number 00123"},
		{"integer division", "local a = 7\n\t//\n2", "policy.lua:2: Lua 5.1 has no //: use math.floor"},
		{"const", "local a <const> = 7", "Lua 5.1 has no <const>"},
		{"bits", "local a = 7 & 2", "Lua 5.1 has no operators on bits"},
		{"shift", "local a = 7 >> 2", "Lua 5.1 has no operators on bits"},
		{"shift to the left", "local a = 7 << 2", "Lua 5.1 has no operators on bits"},
		{"or of bits", "local a = 7 | 2", "Lua 5.1 has no operators on bits"},
		{"not of bits", "\nlocal a = ~7", "policy.lua:2: Lua 5.1 has no operators on bits"},
		{"close", "\n\nlocal a <close> = f()", "policy.lua:3: syntax error near \"<\": Lua 5.1 has no <const> and no <close>"},
		{"not equal", "if a != b then end", "policy.lua:1: Lua has no !=: it is ~="},
		{"break in the middle", "while true do\n  break\n  f()\nend", "policy.lua:3: break is not the last statement"},
		{"break before a bracket", "while true do break (f)() end", "policy.lua:1: break is not the last statement"},
		{"fraction in hexadecimal", "local a = 0xA.8", "policy.lua:1: number 0xA.8: Lua 5.1 has no fractions and exponents in hexadecimal"},
		{"exponent in hexadecimal", "local a = 0x1p-4", "policy.lua:1: number 0x1p-4: Lua 5.1 has no"},
		{"negative in hexadecimal", "local a = 0xffffffffffffffff", "policy.lua:1: number 0xffffffffffffffff would be negative"},
		{"long hexadecimal", "local a = 0x1ffffffffffffffff", "has more than 64 bits"},
		{"whole number that is rounded", "local a = 9007199254740993", "policy.lua:1: number 9007199254740993 would be rounded"},
		{"rounded in hexadecimal", "local a = 0x20000000000001", "would be rounded"},
		{"greatest integer", "local a = 9223372036854775807", "would be rounded"},
		{"infinite number", "local a = 1e400", "policy.lua:1: number 1e400 is too large for a float"},
		{"half an exponent", "local a = 1e", `policy.lua:1: malformed number "1e"`},
		{"binary number", "local a = 0b11", `malformed number "0b11"`},
		{"number and name", "local a = 3b = 4", `malformed number "3b"`},
		{"number before dots", "local a = 3..2", `malformed number "3..2"`},
		{"only 0x", "local a = 0x", `malformed number "0x"`},
		{"ruler", "--[=========\nlocal a", "policy.lua:1: a comment that begins with --[= is taken for a long one"},
		{"lines that end in CR", "local a\rlocal b\r\nlocal c = '\\x41'", "policy.lua:3: escape"},
		{"operators", "\nreturn x" + strings.Repeat("+x", 1001), "policy.lua:2: an expression has more than 1000 operators"},
		{"operators beside functions", "return x" + strings.Repeat("+(function() local a end)()", 1001), "an expression has more than 1000 operators"},
		{"unary operators", "return " + strings.Repeat("- ", 1001) + "1", "an expression has more than 1000 operators"},
		{"not", "return " + strings.Repeat("not ", 1001) + "1", "an expression has more than 1000 operators"},
		{"long path", "return x" + strings.Repeat(".x", 10_001), "an expression has more than 10000 parts"},
		{"many calls", "x" + strings.Repeat("''", 10_001), "an expression has more than 10000 parts"},
		{"blocks", strings.Repeat("do ", 201) + strings.Repeat("end ", 201), "policy.lua:1: brackets and blocks are nested"},
		{"functions", strings.Repeat("return function() ", 201) + strings.Repeat("end ", 201), "brackets and blocks are nested"},
		{"alternatives", "if x then " + strings.Repeat("elseif x then f() ", 1001) + "end", "an if has more than 1000 alternatives"},
		{"operands of ..", "return x" + strings.Repeat(" .. x", 999), "policy.lua:1: register overflow"},
		{"end missing", "local function f()\n  return 1\n", "policy.lua:2: syntax error at the end of the file"},
		{"goto nowhere", "goto nowhere", "no visible label 'nowhere'"},
		{"unterminated string", "local a = 'b", "policy.lua:1: unterminated string at the end of the file"},
		{"nesting", "return " + strings.Repeat("(", 201) + "1" + strings.Repeat(")", 201), "policy.lua:1: brackets and blocks are nested"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compile("policy.lua", []byte(test.source))
			if err == nil {
				t.Fatal("compiled")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %q\nwant %q in it", err, test.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.File != "policy.lua" || e.Line == 0 {
				t.Errorf("%#v has no position", err)
			}
		})
	}
}

func TestCompileAccepts(t *testing.T) {
	for _, source := range []string{
		"", "\xef\xbb\xbfreturn 1", "#!/usr/bin/lua\nreturn 1", "#",
		`return '\n\\\'\"\065\0', "it's", [[ \x41 ]], [=[ ']] ]=]`,
		"-- '\\x41' \n--[[ '\\x41'\n ]] return 1 -- it's",
		"local t = {} t._ENV = 1 return t._ENV, 1.005, 0.00, 0x00ff",
		"return 'a\\\nb'", "for i = 1, 3 do if i == 2 then goto continue end ::continue:: end",
		"return " + strings.Repeat("(", 150) + "1" + strings.Repeat(")", 150),
		"return 0xff, 0xE+1, 1e5-2, .5, 5., 1e+10, 3e-2, 9007199254740992, 18446744073709551616, 08, 0x7fffffffffffc000",
		"return a.b.c:d().e[1] ~= 2, ... , a..b, a ..2, '1'..'2', #a, -a, a%b, a<=b, a>=b, a==b",
		"for i = 1, 3 do if i == 2 then break end end while x do break; end repeat break until x while x do do break end end",
		"return t.break_, x -- break\n", "while a do if a then else break end end",
		strings.Repeat("f('x') g{1} h = i + j k.l = m.n.o t[1] = -1\n", 10_000), // none of it is one expression
		"return {" + strings.Repeat("a + b, f(c), [d] = e;", 10_000) + "}",
		"return x" + strings.Repeat(" and x == 1", 499),
		strings.Repeat("function a.b:c() end ", 1000),
		"goto continue ::continue:: local goto_ = 1",
		"--[==[ x ]==] return 1 --[[\n]]",
	} {
		if _, err := Compile("policy.lua", []byte(source)); err != nil {
			t.Errorf("%q: %v", source, err)
		}
	}
}

func TestPreambleKeepsLines(t *testing.T) {
	_, err := Compile("policy.lua", []byte("#!/usr/bin/lua\n\nlocal a = = 1"))
	if err == nil || !strings.HasPrefix(err.Error(), "policy.lua:3:") {
		t.Error(err)
	}
}

func TestNewStateFails(t *testing.T) {
	p, err := Compile("policy.lua", []byte("local a\n\nlocal function f() return a.b end\nlocal x = f()"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.NewState(t.Context(), Options{Limits: patient})
	var e *Error
	if !errors.As(err, &e) || e.File != "policy.lua" || e.Line != 3 || !strings.Contains(e.Reason, "index") {
		t.Errorf("%#v", err)
	}
	if !strings.Contains(Traceback(err), "policy.lua:4:") {
		t.Errorf("traceback %q", Traceback(err))
	}
	want := errors.New("no setup today")
	if _, err := p.NewState(t.Context(), Options{Limits: patient, Setup: func(*lua.LState) error { return want }}); !errors.Is(err, want) {
		t.Error(err)
	}
}

func TestNewStateIsBounded(t *testing.T) {
	p, err := Compile("policy.lua", []byte("while true do end"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := p.NewState(ctx, Options{Limits: patient}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestCallResults(t *testing.T) {
	s := newState(t, `
		function nothing() end
		function null() return nil end
		function many(...) return ... end
		callable = setmetatable({}, {__call = function(self, a) return a end})
	`, nil)
	for _, test := range []struct {
		fn   string
		args []lua.LValue
		want []lua.LValue
	}{
		{"nothing", nil, nil},
		{"null", nil, []lua.LValue{lua.LNil}},
		{"many", []lua.LValue{lua.LNumber(1), lua.LString("a"), lua.LTrue}, []lua.LValue{lua.LNumber(1), lua.LString("a"), lua.LTrue}},
		{"many", []lua.LValue{nil}, []lua.LValue{lua.LNil}},
		{"callable", []lua.LValue{lua.LNumber(7)}, []lua.LValue{lua.LNumber(7)}},
	} {
		got, err := call(t, s, test.fn, test.args...)
		if err != nil || len(got) != len(test.want) {
			t.Errorf("%s: %v, %v", test.fn, got, err)
			continue
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%s: %v, want %v", test.fn, got, test.want)
			}
		}
		if top := s.L.GetTop(); top != 0 {
			t.Fatalf("%s leaves %d values on the stack", test.fn, top)
		}
	}
	got, err := s.Call(t.Context(), 2, s.L.GetGlobal("nothing"))
	if err != nil || len(got) != 2 || got[0] != lua.LNil {
		t.Errorf("two results wanted: %v, %v", got, err)
	}
}

func TestCallErrors(t *testing.T) {
	s := newState(t, `function text() error('no such\nthing') end
function bare() error('no position', 0) end
function object() error({message = 'in a table', code = 7}) end
function printed() error(setmetatable({}, {__tostring = function() return 'printed' end})) end
function unprintable() error(setmetatable({}, {__tostring = function() error('again') end})) end
function null() error(nil) end
function deep() return 1 + deep() end
function panics() gopanic() end
function gone() nowhere.at = 1 end
function asserted() assert(false, {message = 'kept'}) end
function plain() assert(nil, 'said so') end
function colon() error('10:20: not a position', 0) end
function looksLike() error('dial tcp 192.0.2.1:25: refused', 0) end
`, func(L *lua.LState) error {
		L.SetGlobal("gopanic", L.NewFunction(func(*lua.LState) int {
			var p *State
			p.closed = true
			return 0
		}))
		return nil
	})
	for _, test := range []struct{ fn, want string }{
		{"text", "policy.lua:1: no such thing"},
		{"bare", "no position"},
		{"object", "in a table"},
		{"printed", "printed"},
		{"unprintable", "table: 0x"},
		{"null", "nil"},
		{"deep", "policy.lua:7: stack overflow"},
		{"panics", "policy.lua:8: panic: runtime error"},
		{"gone", "policy.lua:9: attempt to index a non-table object(nil) with key 'at'"},
		{"asserted", "kept"},
		{"plain", "said so"},
		{"colon", "10:20: not a position"},
		{"looksLike", "dial tcp 192.0.2.1:25: refused"},
	} {
		_, err := call(t, s, test.fn)
		if err == nil || !strings.HasPrefix(Message(err), test.want) || strings.Contains(Message(err), "\n") {
			t.Errorf("%s: %q, want %q", test.fn, err, test.want)
			continue
		}
		if (test.fn == "panics") != errorOf(err).Panic {
			t.Errorf("%s: Panic is %v", test.fn, errorOf(err).Panic)
		}
		if want := strings.HasPrefix(test.want, "policy.lua:"); want != (errorOf(err).File == "policy.lua") || !want && errorOf(err).Line != 0 {
			t.Errorf("%s: position %s:%d", test.fn, errorOf(err).File, errorOf(err).Line)
		}
		if s.L.GetTop() != 0 {
			t.Fatalf("%s leaves %d values on the stack", test.fn, s.L.GetTop())
		}
		if got, err := call(t, s, "tostring", lua.LNumber(1)); err != nil || got[0] != lua.LString("1") {
			t.Fatalf("after %s: %v, %v", test.fn, got, err)
		}
	}
	_, err := call(t, s, "object")
	if tbl, ok := Thrown(err).(*lua.LTable); !ok || tbl.RawGetString("code") != lua.LNumber(7) {
		t.Errorf("thrown: %v", Thrown(err))
	}
	if _, err := call(t, s, "undefined"); err == nil || err.Error() != "attempt to call a nil value" {
		t.Error(err)
	}
}

func errorOf(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

func TestErrorAtEveryDepthOfCalls(t *testing.T) {
	// The stack of calls grows by segments; whatever fails at a segment's edge must leave it whole.
	s := newState(t, `
		function at(depth)
			if depth == 0 then
				local ok, err = pcall(undefined)
				assert(not ok)
				local ok, err = pcall(error, 'x')
				assert(not ok)
				return 0
			end
			return 1 + at(depth - 1)
		end`, nil)
	for depth := range 40 {
		got, err := call(t, s, "at", lua.LNumber(depth))
		if err != nil || got[0] != lua.LNumber(depth) {
			t.Fatalf("depth %d: %v, %v", depth, got, err)
		}
	}
}

var errHost = errors.New("the host said no")

func TestRaise(t *testing.T) {
	s := newState(t, `
function direct() no() end
function rethrown() local ok, err = pcall(no); error(err) end
function rethrown0() local ok, err = pcall(no); error(err, 0) end
function asserted() assert(pcall(no)) end
function handled() local ok, err = xpcall(no, function(e) return e end); error(err) end
function inCoroutine() local ok, err = coroutine.resume(coroutine.create(no)); error(err) end
function astext() local ok, err = pcall(no); error(tostring(err), 0) end
function reads()
	local ok, err = pcall(function() no() end)
	return tostring(err), 'got: ' .. err, string.format('%s', err), err:match('said (%a+)'), type(err)
end`, func(L *lua.LState) error {
		L.SetGlobal("no", L.NewFunction(func(L *lua.LState) int {
			Raise(L, errHost)
			return 0
		}))
		return nil
	})
	for _, fn := range []string{"direct", "rethrown", "rethrown0", "asserted", "handled", "inCoroutine"} {
		if _, err := call(t, s, fn); !errors.Is(err, errHost) || !strings.HasSuffix(err.Error(), errHost.Error()) {
			t.Errorf("%s: %v", fn, err)
		}
	}
	if _, err := call(t, s, "astext"); err == nil || errors.Is(err, errHost) {
		t.Errorf("astext: %v", err)
	}
	got, err := call(t, s, "reads")
	if err != nil {
		t.Fatal(err)
	}
	const text = "policy.lua:10: the host said no"
	for i, want := range []string{text, "got: " + text, text, "no", "userdata"} {
		if got[i].String() != want {
			t.Errorf("result %d is %q, want %q", i, got[i], want)
		}
	}
}

// What goes wrong may have a text of any length, made by a program or by a stranger's server.
func TestLongErrors(t *testing.T) {
	s := newState(t, `
function raises(unit) error(unit:rep(1e6), 0) end
function is_told(unit) no(unit:rep(1e6)) end
function rethrows(unit) local ok, err = pcall(no, unit:rep(1e6)) error(err) end
function catches(unit) local ok, err = pcall(no, unit:rep(1e6)) error(tostring(err), 0) end
function prints(unit) error(setmetatable({}, {__tostring = function() return unit:rep(1e6) end})) end
function shows(unit) error {message = unit:rep(1e6)} end`, func(L *lua.LState) error {
		L.SetGlobal("no", L.NewFunction(func(L *lua.LState) int {
			Raise(L, errors.New(L.CheckString(1)))
			return 0
		}))
		return nil
	})
	for _, fn := range []string{"raises", "is_told", "rethrows", "catches", "prints", "shows"} {
		for unit, begin := range map[string]string{"x": "xxx", "ä": "äää", "€uro": "€uro€uro", "x\n": "x x x", "\xff": "\xff\xff"} {
			_, err := s.Call(t.Context(), 0, s.L.GetGlobal(fn), lua.LString(unit))
			text := fmt.Sprint(err)
			if len(text) > maxReason+len("policy.lua:10: ") || len(text) < maxReason/2-10 || !strings.Contains(text, begin) || !strings.HasSuffix(text, "…") || utf8.ValidString(text) != utf8.ValidString(unit) {
				t.Errorf("%s of %q: %d bytes: %.30q … %q", fn, unit, len(text), text, text[max(0, len(text)-10):])
			}
			if len(Traceback(err)) > maxReason {
				t.Errorf("%s: a traceback of %d bytes", fn, len(Traceback(err)))
			}
		}
	}
}

func TestCallContext(t *testing.T) {
	s := newState(t, `
function forever() while true do pcall(function() while true do end end) end end
function quick() return 1 end
local co = coroutine.wrap(function() while true do coroutine.yield(1) end end)
function generator() return co() end`, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Call(ctx, 0, s.L.GetGlobal("forever")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("forever: %v", err)
	}
	if _, err := s.Call(ctx, 0, s.L.GetGlobal("quick")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("quick, too late: %v", err)
	}
	// A coroutine outlives the call that made it.
	first, cancelFirst := context.WithCancel(t.Context())
	if _, err := s.Call(first, 1, s.L.GetGlobal("generator")); err != nil {
		t.Fatal(err)
	}
	cancelFirst()
	if got, err := call(t, s, "generator"); err != nil || got[0] != lua.LNumber(1) {
		t.Errorf("generator: %v, %v", got, err)
	}
	if s.L.Context() != nil {
		t.Error("the context stays in the state")
	}
}

func TestCallWithinCall(t *testing.T) {
	var s *State
	s = newState(t, `
		function outer(n) return inner(n) + 1 end
		function double(n) return 2 * n end`, func(L *lua.LState) error {
		L.SetGlobal("inner", L.NewFunction(func(L *lua.LState) int {
			got, err := s.Call(L.Context(), 1, L.GetGlobal("double"), L.Get(1))
			if err != nil {
				Raise(L, err)
			}
			L.Push(got[0])
			return 1
		}))
		return nil
	})
	if got, err := call(t, s, "outer", lua.LNumber(20)); err != nil || got[0] != lua.LNumber(41) {
		t.Error(got, err)
	}
}

func TestIndex(t *testing.T) {
	s := newState(t, `
		plain = {send = 1}
		derived = setmetatable({}, {__index = plain})
		computed = setmetatable({}, {__index = function(_, k) return k .. '!' end})
		failing = setmetatable({}, {__index = function() error('no fields') end})`, nil)
	for _, test := range []struct{ global, want, err string }{
		{"plain", "1", ""}, {"derived", "1", ""}, {"computed", "send!", ""},
		{"failing", "", "policy.lua:5: no fields"}, {"undefined", "", "attempt to index"},
	} {
		got, err := s.Index(t.Context(), s.L.GetGlobal(test.global), "send")
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v", test.global, err)
			}
		} else if err != nil || got.String() != test.want {
			t.Errorf("%s: %v, %v", test.global, got, err)
		}
	}
}

func TestClosedState(t *testing.T) {
	s := newState(t, "function f() end", nil)
	f := s.L.GetGlobal("f")
	s.Close()
	s.Close()
	if _, err := s.Call(t.Context(), 0, f); err == nil {
		t.Error("called a closed state")
	}
	if _, err := s.Index(t.Context(), lua.LNil, "f"); err == nil {
		t.Error("indexed in a closed state")
	}
}

func TestLoaded(t *testing.T) {
	s := newState(t, "during = loaded() function after() return loaded() end", func(L *lua.LState) error {
		L.SetGlobal("loaded", L.NewFunction(func(L *lua.LState) int {
			L.Push(lua.LBool(Loaded(L)))
			return 1
		}))
		return nil
	})
	got, err := call(t, s, "after")
	if err != nil || got[0] != lua.LTrue || s.L.GetGlobal("during") != lua.LFalse {
		t.Error(got, err, s.L.GetGlobal("during"))
	}
}

func TestErrorsOfOthers(t *testing.T) {
	err := errors.New("two\nlines")
	if Message(err) != "two lines" || Traceback(err) != "" || Thrown(err) != nil {
		t.Error(Message(err), Traceback(err), Thrown(err))
	}
}
