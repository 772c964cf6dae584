package kumo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

type empty struct{}

// stub is a config that remembers its tree.
type stub struct{ tree any }

func (s *stub) Tree() (any, error) { return s.tree, nil }

// opaque cannot be looked into.
type opaque struct{ tree any }

var errStub = errors.New("protocol.smtp.mx_list[2]: port 70000 is out of range")

func stubs() *Options {
	visible := func(tree any) (any, error) {
		if fields, ok := tree.(map[string]any); ok && fields["bad"] != nil {
			return nil, fmt.Errorf("refused: %w", errStub)
		}
		return &stub{tree}, nil
	}
	hidden := func(tree any) (any, error) { return &opaque{tree}, nil }
	return &Options{Empty: empty{}, Make: map[string]func(any) (any, error){
		"make_queue_config": visible, "make_egress_path": visible,
		"make_egress_source": hidden, "make_egress_pool": hidden,
	}}
}

// newState runs source with the module installed.
func newState(t testing.TB, o *Options, source string) *luastate.State {
	t.Helper()
	s, err := tryState(t.Context(), o, source)
	if err != nil {
		t.Fatalf("%v\n%s", err, luastate.Traceback(err))
	}
	t.Cleanup(s.Close)
	return s
}

func tryState(ctx context.Context, o *Options, source string) (*luastate.State, error) {
	p, err := luastate.Compile("policy.lua", []byte(source))
	if err != nil {
		return nil, err
	}
	return p.NewState(ctx, luastate.Options{Limits: luastate.Limits{Running: -1}, Setup: func(L *lua.LState) error {
		Install(L, o)
		// Longer than a program can make a text itself.
		L.SetGlobal("big", L.NewFunction(func(L *lua.LState) int {
			L.Push(lua.LString(strings.Repeat("x", 16<<20+1)))
			return 1
		}))
		return nil
	}})
}

// eval calls function run() of source and gives its results as text, one a line.
func eval(t testing.TB, o *Options, source string, args ...lua.LValue) (string, error) {
	t.Helper()
	s := newState(t, o, source)
	results, err := s.Call(t.Context(), lua.MultRet, s.L.GetGlobal("run"), args...)
	var lines []string
	for _, v := range results {
		lines = append(lines, s.L.ToStringMeta(v).String())
	}
	return strings.Join(lines, "\n"), err
}

func TestModuleNames(t *testing.T) {
	var ignored []string
	o := stubs()
	o.Ignored = func(name string) { ignored = append(ignored, name) }
	const source = `
local same = assert(require 'kumo' == kumo)
assert(require 'kumo.http' == kumo.http and require 'kumo.serde' == kumo.serde)
assert(require 'kumo.dns' == kumo.dns and require 'kumo.aaa' == kumo.aaa)
assert(kumo.nonsense == nil and kumo.http.nonsense == nil and kumo.set_nonsense ~= nil and kumo[1] == nil)
assert(kumo.serde.json_parse('1') == 1 and kumo.time.sleep and kumo.version > '2025.01.01')
assert(kumo.available_parallelism() >= 1)
if not kumo.memoize then error 'no memoize' end
assert(kumo.start_esmtp_listener {} == nil)
kumo.start_esmtp_listener {}
kumo.set_httpinject_threads(3)
kumo.set_memory_limits()
kumo.dns.set_mx_timeout(1)
kumo.tsa.whatever()
function absent(f, ...) f(...) end
for name, call in pairs {
  ['kumo.http.connect_websocket'] = kumo.http.connect_websocket,
  ['kumo.kafka.anything'] = require 'kumo.kafka'.anything,
} do
  local ok, err = pcall(call)
  local want = name .. ' is not available in this library yet'
  assert(not ok and tostring(err):find(want, 1, true), tostring(err))
end`
	for range 2 { // each name is reported once, not once per state
		newState(t, o, source)
	}
	want := []string{"kumo.start_esmtp_listener", "kumo.set_httpinject_threads", "kumo.set_memory_limits", "kumo.dns.set_mx_timeout", "kumo.tsa.whatever"}
	if !slices.Equal(ignored, want) {
		t.Errorf("ignored: %q", ignored)
	}
	if _, err := tryState(t.Context(), &Options{}, "kumo.make_queue_config {}"); err == nil ||
		!strings.Contains(err.Error(), "policy.lua:1: kumo.make_queue_config is not available") {
		t.Error(err)
	}
}

func TestMake(t *testing.T) {
	s := newState(t, stubs(), `
function queue() return kumo.make_queue_config { protocol = { smtp = { mx_list = {} } }, max_age = '1h' } end
function source() return kumo.make_egress_source { name = 'a' } end
function nothing() return kumo.make_egress_path {} end
function looks()
  local c = queue()
  local names = {}
  for k in pairs(c) do names[#names + 1] = k end
  table.sort(names)
  return c.max_age, table.concat(names, ','), #c, type(c), tostring(c), kumo.json_encode(c), c.absent
end`)
	call := func(name string) []lua.LValue {
		t.Helper()
		got, err := s.Call(t.Context(), lua.MultRet, s.L.GetGlobal(name))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	value, ok := Config(call("queue")[0])
	if fields := value.(*stub).tree.(map[string]any); !ok || fields["max_age"] != "1h" ||
		fields["protocol"].(map[string]any)["smtp"].(map[string]any)["mx_list"] != (empty{}) {
		t.Errorf("%#v", value)
	}
	if value, _ := Config(call("nothing")[0]); value.(*stub).tree != (empty{}) {
		t.Errorf("%#v", value)
	}
	if value, ok := Config(call("source")[0]); !ok || value.(*opaque).tree.(map[string]any)["name"] != "a" {
		t.Errorf("%#v", value)
	}
	for _, v := range []lua.LValue{lua.LNil, s.L.NewTable(), s.L.NewUserData()} {
		if _, ok := Config(v); ok {
			t.Errorf("%v is a config", v)
		}
	}
	want := []string{"1h", "max_age,protocol", "0", "userdata", "queue_config", `{"max_age":"1h","protocol":{"smtp":{"mx_list":{}}}}`, "nil"}
	for i, v := range call("looks") {
		if v.String() != want[i] {
			t.Errorf("result %d: %q, want %q", i, v, want[i])
		}
	}
}

func TestMakeErrors(t *testing.T) {
	for _, test := range []struct{ name, source, want string }{
		{"refused", "function run()\n  return kumo.make_queue_config {\n bad = true, list = {1, 'a'} } end",
			`policy.lua:2: deserialize error: invalid value: refused: protocol.smtp.mx_list[2]: port 70000 is out of range, while processing {"bad":true,"list":[1,"a"]}`},
		{"refused in pcall", "function run() local ok, e = pcall(kumo.make_egress_path, {bad = 1}) error(e) end",
			`policy.lua:1: deserialize error: invalid value: refused: protocol.smtp.mx_list[2]: port 70000 is out of range, while processing {"bad":1}`},
		{"no tree", "function run() return kumo.make_egress_path { protocol = { f = print } } end",
			`policy.lua:1: deserialize error: invalid value: protocol.f: a function cannot stand here, while processing {"protocol":{"f":"function"}}`},
		{"mixed", "function run() return kumo.make_egress_path { 1, a = {} } end",
			`policy.lua:1: deserialize error: invalid value: a table is either a list or has named fields, not both, while processing {"1":1,"a":{}}`},
		{"no table", "function run() return kumo.make_egress_path('x') end", "policy.lua:1: kumo.make_egress_path wants a table, got string"},
		{"source indexed", "function run() return kumo.make_egress_source { name = 'a' }.name end",
			"policy.lua:1: what kumo.make_egress_source returns cannot be looked into"},
		{"assigned", "function run() kumo.make_egress_path {}.x = 1 end", "policy.lua:1: a config cannot be changed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := eval(t, stubs(), test.source)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			if strings.HasPrefix(test.name, "refused") {
				var made *MakeError
				if !errors.Is(err, errStub) || !errors.As(err, &made) || made.File != "policy.lua" || made.Line == 0 {
					t.Errorf("%#v", made)
				}
			}
		})
	}
	// What helper modules do with such an error.
	got, err := eval(t, stubs(), `function run()
		local ok, err = pcall(kumo.make_queue_config, { bad = 1 })
		return tostring(err):match('deserialize error: (.-), while processing'), err:find('while processing', 1, true) ~= nil, 'Error: ' .. err
	end`)
	if err != nil || !strings.HasPrefix(got, "invalid value: refused: ") || !strings.Contains(got, "\ntrue\nError: policy.lua:2:") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHugeTableInError(t *testing.T) {
	_, err := eval(t, stubs(), `function run()
		local t = {bad = true}
		for i = 1, 20000 do t['k' .. i] = ('ä'):rep(10) end
		return kumo.make_queue_config(t) end`)
	if err == nil || len(err.Error()) > 2*maxDescription || !strings.HasSuffix(err.Error(), "...") {
		t.Errorf("%d bytes: %.100v", len(fmt.Sprint(err)), err)
	}
}

// A few tables that each hold the next one many times are more than can be shown, or gone through.
func TestNestedTableInError(t *testing.T) {
	_, err := eval(t, stubs(), `function run()
		local t = {}
		for depth = 1, 7 do
			local above = {}
			for i = 1, 3000 do above[i] = t end
			t = above
		end
		return kumo.make_queue_config {bad = true, deep = t, text = ('x'):rep(100000)} end`)
	if err == nil || len(err.Error()) > 2*maxDescription || !strings.Contains(err.Error(), `, while processing {"bad":true,"deep":[[[[[[["...","...",`) {
		t.Errorf("%d bytes: %.300v", len(fmt.Sprint(err)), err)
	}
}

func TestReject(t *testing.T) {
	for _, test := range []struct {
		source string
		want   *Rejection
		text   string
	}{
		{"kumo.reject(400, 'later')", &Rejection{400, "later"}, "policy.lua:1: 400 later"},
		{"kumo.reject(0, '')", &Rejection{0, ""}, ""},
		{"kumo.reject(65535, 'x')", &Rejection{65535, "x"}, ""},
		{"kumo.disconnect(421, 'bye', 'ForceDisconnect')", &Rejection{421, "bye"}, ""},
		{"local ok, e = pcall(kumo.reject, 550, 'no') error(e)", &Rejection{550, "no"}, ""},
		{"local ok, e = pcall(kumo.reject, 550, 'no') error(e, 0)", &Rejection{550, "no"}, ""},
		{"assert(pcall(kumo.reject, 550, 'no'))", &Rejection{550, "no"}, ""},
		{"coroutine.wrap(function() kumo.reject(450, 'co') end)()", &Rejection{450, "co"}, ""},
		{"local ok, e = pcall(kumo.reject, 550, 'no') error(tostring(e))", nil, "550 no"},
		{"local ok, e = pcall(kumo.reject, 550, 'no') error('in ' .. e, 0)", nil, "in policy.lua:1: 550 no"},
		{"kumo.reject(70000, 'x')", nil, "want a code from 0 to 65535, got 70000"},
		{"kumo.reject(-1, 'x')", nil, "want a code"},
		{"kumo.reject(450.5, 'x')", nil, "want a code"},
		{"kumo.reject('x', 'x')", nil, "number expected"},
		{"kumo.reject(450)", nil, "string expected"},
		{"kumo.disconnect(421, 'bye', 'Sometime')", nil, "want If421"},
		{"error('plain')", nil, "plain"},
	} {
		_, err := eval(t, stubs(), "function run() "+test.source+" end")
		got, ok := AsRejection(err)
		switch {
		case err == nil || !strings.Contains(luastate.Message(err), test.text):
			t.Errorf("%s: %v", test.source, err)
		case ok != (test.want != nil) || ok && *got != *test.want:
			t.Errorf("%s: %v, %v", test.source, got, ok)
		}
	}
}

func TestEvents(t *testing.T) {
	source, err := os.ReadFile("testdata/webhook.lua")
	if err != nil {
		t.Fatal(err)
	}
	var ignored []string
	o := stubs()
	o.Ignored = func(name string) { ignored = append(ignored, name) }
	s := newState(t, o, string(source))
	if results, handled, err := Call(t.Context(), s, "init"); err != nil || !handled || len(results) != 0 {
		t.Error(results, handled, err)
	}
	if len(ignored) != 5 {
		t.Errorf("ignored: %q", ignored)
	}
	for _, test := range []struct{ domain, want string }{
		{"hook", "custom_lua"}, {"other", "second"}, {"nil", ""},
	} {
		results, handled, err := Call(t.Context(), s, "get_queue_config", lua.LString(test.domain), lua.LNil)
		if err != nil || !handled || len(results) != 1 {
			t.Errorf("%s: %v, %v, %v", test.domain, results, handled, err)
			continue
		}
		config, ok := Config(results[0])
		if ok != (test.want != "") || !strings.Contains(fmt.Sprint(config), test.want) && ok {
			t.Errorf("%s: %v", test.domain, config)
		}
	}
	if _, handled, err := Call(t.Context(), s, "get_egress_pool"); handled || err != nil {
		t.Error(handled, err)
	}
	if !Handles(s.L, "make.hook") || Handles(s.L, "make.other") {
		t.Error("Handles")
	}
}

func TestEventsPassOn(t *testing.T) {
	s := newState(t, stubs(), `
calls = ''
kumo.on('should_enqueue_log_record', function() calls = calls .. 'a' end)
kumo.on('should_enqueue_log_record', function(how) calls = calls .. 'b'
  if how == 'nil' then return nil elseif how == 'fail' then error('b fails') elseif how == 'two' then return 1, 2 end end)
kumo.on('should_enqueue_log_record', function() calls = calls .. 'c' end)`)
	for _, test := range []struct {
		how, calls, err string
		results         int
		handled         bool
	}{
		{"pass", "abc", "", 0, false}, {"nil", "ab", "", 1, true}, {"two", "ab", "", 2, true}, {"fail", "ab", "b fails", 0, true},
	} {
		s.L.SetGlobal("calls", lua.LString(""))
		results, handled, err := Call(t.Context(), s, "should_enqueue_log_record", lua.LString(test.how))
		if len(results) != test.results || handled != test.handled || s.L.GetGlobal("calls") != lua.LString(test.calls) ||
			(err != nil) != (test.err != "") {
			t.Errorf("%s: %v, %v, %v after %s", test.how, results, handled, err, s.L.GetGlobal("calls"))
		}
	}
}

func TestOnRefuses(t *testing.T) {
	for source, want := range map[string]string{
		"kumo.on('init', print)\nkumo.on('init', print)":    `policy.lua:2: the event "init" has a handler already, registered at policy.lua:1`,
		"kumo.on('make.x', print) kumo.on('make.x', print)": `the event "make.x" has a handler already`,
		"kumo.on('x')":    "function expected",
		"kumo.on(print)":  "string expected",
		"kumo.on('x', 1)": "function expected",
	} {
		if _, err := tryState(t.Context(), stubs(), source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
	s := newState(t, stubs(), "kumo.on('init', function() kumo.on('x', print) end) function late() kumo.on('x', print) end")
	const want = "inside an event handler"
	if _, _, err := Call(t.Context(), s, "init"); err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("late")); err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
}

func TestIsBuiltinEvent(t *testing.T) {
	for name, want := range map[string]bool{
		"get_queue_config": true, "init": true, "smtp_server_ehlo": true, "requeue_message": true, "get_egress_pool": true,
		"make.webhook": false, "http_post": false, "": false, "Init": false,
	} {
		if IsBuiltinEvent(name) != want {
			t.Errorf("%q", name)
		}
	}
}

func TestHostState(t *testing.T) {
	L := lua.NewState()
	defer L.Close()
	Install(L, stubs())
	if err := L.DoString(`require('kumo').on('get_queue_config', function(d) return kumo.make_queue_config { d = d } end)`); err != nil {
		t.Fatal(err)
	}
	results, handled, err := Call(t.Context(), luastate.Wrap(L, luastate.Limits{}), "get_queue_config", lua.LString("x.example"))
	if err != nil || !handled {
		t.Fatal(handled, err)
	}
	if c, _ := Config(results[0]); c.(*stub).tree.(map[string]any)["d"] != "x.example" {
		t.Error(c)
	}
	// A state without libraries, and one without the module.
	bare := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer bare.Close()
	Install(bare, stubs())
	none := lua.NewState()
	defer none.Close()
	if Handles(none, "init") {
		t.Error("handles init")
	}
}

func TestLog(t *testing.T) {
	var out bytes.Buffer
	o := stubs()
	o.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	newState(t, o, "kumo.log_debug('hidden')\nkumo.log_info('a', 1, nil, true)\nkumo.log_error('b\\255\\195\\164', setmetatable({}, {__tostring = function() return 'obj' end}))\nkumo.log_warn()")
	for _, want := range []string{
		`level=INFO msg="a 1 nil true" at=policy.lua:2`,
		"level=ERROR msg=\"b\\\\xffä obj\" at=policy.lua:3",
		`level=WARN msg="" at=policy.lua:4`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "hidden") {
		t.Error("debug is written")
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newState(t, stubs(), "function nap(n) kumo.sleep(n) return 1 end")
		started := time.Now()
		if _, err := s.Call(t.Context(), 1, s.L.GetGlobal("nap"), lua.LNumber(2.5)); err != nil || time.Since(started) != 2500*time.Millisecond {
			t.Error(time.Since(started), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started = time.Now()
		if _, err := s.Call(ctx, 1, s.L.GetGlobal("nap"), lua.LNumber(3600)); !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != time.Second {
			t.Error(time.Since(started), err)
		}
		for _, bad := range []lua.LValue{lua.LNumber(-1), lua.LString("x"), lua.LNumber(1e300), lua.LNil} {
			if _, err := s.Call(t.Context(), 1, s.L.GetGlobal("nap"), bad); err == nil {
				t.Errorf("slept for %v", bad)
			}
		}
	})
}

func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(path, []byte("{\"a\": [1, 2] // two\n}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ expr, want, err string }{
		{`kumo.json_encode {}`, `{}`, ""},
		{`kumo.json_encode {1, 'a', {}, {b = true, a = 1.5}}`, `[1,"a",{},{"a":1.5,"b":true}]`, ""},
		{`kumo.json_encode(nil)`, `null`, ""},
		{`kumo.json_encode('<a & "b">\n')`, `"<a & \"b\">\n"`, ""},
		{`kumo.json_encode(9007199254740991)`, `9007199254740991`, ""},
		{`kumo.serde.json_encode_pretty {b = {1}, a = {}}`, "{\n  \"a\": {},\n  \"b\": [\n    1\n  ]\n}", ""},
		{`kumo.json_encode(0 / 0)`, "", "json_encode: json: unsupported value: NaN"},
		{`kumo.json_encode {a = {'x', '\255'}}`, "", "a: [2]: a string is not UTF-8"},
		{`kumo.json_encode {a = print}`, "", "a: a function cannot stand here"},
		{`kumo.json_encode {1, nil, 3}`, "[1,null,3]", ""},
		{`kumo.json_encode {1, 2, x = 3}`, "[1,2]", ""},
		{`kumo.json_encode {1, 2, [9] = 3}`, "[1,2]", ""},
		{`kumo.json_encode {[5] = 'x'}`, `{"5":"x"}`, ""},
		{`kumo.json_encode {[0] = 'x', [-1] = 'y', [1.5] = 'z', [true] = 'b', n = 1}`, `{"-1":"y","0":"x","1.5":"z","n":1,"true":"b"}`, ""},
		{`kumo.json_encode {[{}] = 1}`, "", "a table cannot be a key here"},
		{`kumo.serde.toml_encode {a = {1, nil, 3}}`, "", "toml: cannot encode array with nil element"},
		{`kumo.serde.yaml_encode {a = {1, nil, 3}}`, "a:\n- 1\n- null\n- 3\n", ""},
		{`kumo.json_parse('9007199254740991')`, "9007199254740991", ""},
		{`kumo.json_parse('{"a": [1, null, "x"]}').a[3]`, "x", ""},
		{`kumo.json_parse('null')`, "nil", ""},
		{`kumo.json_parse('{"a": null}').a`, "nil", ""},
		{`kumo.json_parse('# one\n// two\n{"u": "http://x/#y" /* three */, "q": "\\"//"}').u`, "http://x/#y", ""},
		{`kumo.json_parse('{"q": "\\"//"}').q`, `"//`, ""},
		{`kumo.json_parse('{"a": 1} x')`, "", "text after the value"},
		{`kumo.json_parse('')`, "", "there is no value"},
		{`kumo.json_parse('{"a": ')`, "", "unexpected EOF"},
		{`kumo.json_parse('/* open')`, "", "invalid character"},
		{`kumo.json_parse('1e999')`, "", "json_parse"},
		{`kumo.serde.json_load('` + path + `').a[2]`, "2", ""},
		{`kumo.json_load('/nonexistent')`, "", "no such file"},
		{`kumo.json_encode(kumo.json_parse('{"a":[{"b":[]}]}'))`, `{"a":[{"b":{}}]}`, ""},
	} {
		got, err := eval(t, stubs(), "function run() return "+test.expr+" end")
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v", test.expr, err)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s: %q, %v", test.expr, got, err)
		}
	}
}

// Comments go, and nothing else: what encoding/json takes as it is must come out the same.
func FuzzParseJSON(f *testing.F) {
	f.Add(`{"a": "//", "b": "#", "c\"": "/*"}`)
	f.Add(`[1, 2] // x`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseJSON([]byte(text))
		if err != nil {
			return
		}
		again, err := encodeJSON(got)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseJSON([]byte(again))
		if err != nil || fmt.Sprint(back) != fmt.Sprint(got) {
			t.Errorf("%q: %v, %v", text, back, err)
		}
		if len(blankComments([]byte(text))) != len(text) {
			t.Errorf("%q changes its length", text)
		}
	})
}
