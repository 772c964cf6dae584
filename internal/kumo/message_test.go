package kumo

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/header"
)

// letter is a Message of the tests.
type letter struct {
	from     *Address
	to       []Address
	meta     map[string]any
	data     []byte
	err      error
	counted  int
	due      *time.Time
	schedule *Schedule

	headerReads, replaced int
}

var jane = Address{User: "jane doe", Domain: "a.example", Email: `"jane doe"@a.example`}

func (l *letter) ID() string { return "0123" }
func (l *letter) Sender() Address {
	if l.from != nil {
		return *l.from
	}
	return Address{User: "from", Domain: "b.example", Email: "from@b.example"}
}
func (l *letter) Recipients() []Address           { return l.to }
func (l *letter) Meta(key string) (any, bool)     { v, ok := l.meta[key]; return v, ok }
func (l *letter) SetMeta(key string, v any) error { l.meta[key] = v; return l.err }
func (l *letter) QueueName() string               { return "c:t@d.example" }
func (l *letter) Data() ([]byte, error)           { return l.data, l.err }
func (l *letter) SetData(data []byte)             { l.data = data }
func (l *letter) NumAttempts() int                { return 3 + l.counted }
func (l *letter) CountAttempt()                   { l.counted++ }
func (l *letter) SetDue(t time.Time)              { l.due = &t }
func (l *letter) SetSchedule(s *Schedule)         { l.schedule = s }

func (l *letter) SetSender(text string) error {
	l.from = &Address{Email: text}
	return l.err
}

func (l *letter) SetRecipients(list []string) error {
	l.to = nil
	for _, text := range list {
		l.to = append(l.to, Address{Email: text})
	}
	return l.err
}

func (l *letter) Header() ([]byte, error) {
	l.headerReads++
	n, _ := header.Length(l.data)
	return l.data[:n:n], l.err
}

func (l *letter) ReplaceHeader(length int, block []byte) {
	l.replaced++
	l.data = append(block[:len(block):len(block)], l.data[length:]...)
}

func TestMessage(t *testing.T) {
	s := newState(t, stubs(), "function run(m, f) return f(m) end")
	for _, test := range []struct {
		expr, want string
		to         []Address
	}{
		{"m:id()", "0123", nil},
		{"m:queue_name()", "c:t@d.example", nil},
		{"m:num_attempts()", "3", nil},
		{"m:get_data()", "Subject: x\xff\r\n\r\n\x00", nil},
		{"m:sender().email", "from@b.example", nil},
		{"m:sender().user .. '/' .. m:sender().domain", "from/b.example", nil},
		{"m:recipient()", "nil", nil},
		{"m:recipient()", jane.Email, []Address{jane}},
		{"m:recipient().user", "jane doe", []Address{jane}},
		{"#m:recipient()", "2", []Address{jane, jane}},
		{"#m:recipient_list()", "0", nil},
		{"m:recipient_list()[1]", jane.Email, []Address{jane}},
		{"string.format('<%s>', m:recipient())", "<" + jane.Email + ">", []Address{jane}},
		{"'to ' .. m:recipient() .. '!'", "to " + jane.Email + "!", []Address{jane}},
		{"m:recipient_list()[1] == m:recipient_list()[2]", "true", []Address{jane, {User: "jane doe", Domain: "A.Example", Email: "x"}}},
		{"m:recipient_list()[1] == m:recipient_list()[2]", "false", []Address{jane, {User: "Jane Doe", Domain: "a.example"}}},
		{"m:recipient_list()[1] == m:recipient_list()[1]", "true", []Address{jane}},
		{"kumo.json_encode { to = m:recipient_list() }", `{"to":["\"jane doe\"@a.example"]}`, []Address{jane}},
		{"m:recipient()", "", []Address{{}}},
		{"m:get_meta 'n'", "7", nil},
		{"m:get_meta('list')[2].x", "y", nil},
		{"m:get_meta 'absent'", "nil", nil},
		{"m:get_meta 'null'", "nil", nil},
		{"(function() m:set_meta('k', {a = {}, b = {1}}) return kumo.json_encode(m:get_meta 'k') end)()", `{"a":{},"b":[1]}`, nil},
		{"(function() m:set_meta('n', nil) return m:get_meta 'n' end)()", "nil", nil},
		{"(function() m:set_data 'new\\0' return m:get_data() end)()", "new\x00", nil},
		{"m:save() or m:shrink() or m:shrink_data() or 'nothing'", "nothing", nil},
		{"m.nonsense", "nil", nil},
		{"tostring(m)", "message 0123", nil},
		{"type(getmetatable(m))", "boolean", nil},
	} {
		l := &letter{to: test.to, data: []byte("Subject: x\xff\r\n\r\n\x00"), meta: map[string]any{
			"n": 7, "null": nil, "list": []any{1, map[string]any{"x": "y"}}}}
		if err := s.L.DoString("f = function(m) return tostring(" + test.expr + ") end"); err != nil {
			t.Fatal(test.expr, err)
		}
		ud := NewMessage(s.L, l)
		got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), ud, s.L.GetGlobal("f"))
		if err != nil || got[0].String() != test.want {
			t.Errorf("%s: %v, %v, want %s", test.expr, got, err, test.want)
		}
	}
}

func TestMessageErrors(t *testing.T) {
	cause := errors.New("the spool is gone")
	s := newState(t, stubs(), "kept = nil function keep(m) kept = m end function late() return kept:id() end")
	for expr, want := range map[string]string{
		"m.id()":                 "call its methods with a colon",
		"m.id(m:sender())":       "message expected",
		"m:parse_mime()":         "message:parse_mime is not available in this library yet",
		"m:sender().name":        `an address has no field "name"`,
		"m:get_data()":           "the spool is gone",
		"m:set_meta('a', 1)":     "the spool is gone",
		"m:set_meta('a', print)": "a function cannot stand here",
		"m:get_meta()":           "string expected",
		"m:set_data({})":         "string expected",
		"kumo.json_encode(m)":    "a userdata cannot stand here",
	} {
		if err := s.L.DoString("f = function(m) return " + expr + " end"); err != nil {
			t.Fatal(expr, err)
		}
		_, err := s.Call(t.Context(), 1, s.L.GetGlobal("f"), NewMessage(s.L, &letter{err: cause, meta: map[string]any{}}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", expr, err)
		}
		if want == cause.Error() && !errors.Is(err, cause) {
			t.Errorf("%s: the cause is lost", expr)
		}
	}
	ud := NewMessage(s.L, &letter{})
	if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("keep"), ud); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Call(t.Context(), 1, s.L.GetGlobal("late")); err != nil || got[0] != lua.LString("0123") {
		t.Error(got, err)
	}
	Expire(ud)
	if _, err := s.Call(t.Context(), 1, s.L.GetGlobal("late")); err == nil || !strings.Contains(err.Error(), "after the call that it was passed to has ended") {
		t.Error(err)
	}
}

// What a script says wrong is shown as far as it helps.
func TestLongMistakesAreNotShown(t *testing.T) {
	for _, expr := range []string{
		"kumo.http.build_client {[x] = 1}", "kumo.dns.lookup_addr('a.example', nil, x)", "kumo.dns.lookup_mx('a.example', x)", "m:sender()[x]", "m:from_header()[x]", "m:from_header().list[1][x]",
		"m:import_headers {{[x] = 1}}", "m:import_headers {{name = 1, remove = x}}", "m:import_headers {{name = '*' .. x}}", "m:import_headers {{name = x .. '*', target = 'x'}}",
		"m:import_headers {{name = 'x', match = x}}", "m:import_headers {{name = 'x', transform = x}}", "m:set_due(x)", "m:set_scheduling {[x] = 'x'}", "m:set_scheduling {[x] = 1}", "m:set_scheduling {dow = x}",
		"m:set_scheduling {tz = x}", "m:set_scheduling {start = x}", "m:set_scheduling {expires = x}", "kumo.http.build_client {}:get('http://a.example:' .. x):send()",
	} {
		// pcall, as what goes out to Go is cut in any case.
		got, err := onMessage(t, &letter{data: []byte(newsletter)}, "local x = ('x'):rep(1e5) local ok, err = pcall(function() return "+expr+" end) return tostring(ok) .. #tostring(err)")
		if n, _ := strconv.Atoi(strings.TrimPrefix(got, "false")); err != nil || n == 0 || n > 10000 {
			t.Errorf("%s: %s, %v", expr, got, err)
		}
	}
}
