package kumo

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"
)

func TestEnvelopeSetters(t *testing.T) {
	for _, test := range []struct{ statements, want string }{
		{"m:set_sender 'x@y.example' return m:sender().email", "x@y.example"},
		{"local old = m:sender() m:set_sender 'x@y.example' return old.email", "from@b.example"},
		{"m:set_sender(m:recipient()) return m:sender().email", jane.Email},
		{"m:set_recipient 'x@y.example' return m:recipient().email", "x@y.example"},
		{"m:recipient() m:set_recipient {'x@y.example', m:sender()} return m:recipient()[2].email", "from@b.example"},
		{"m:increment_num_attempts() return m:num_attempts()", "4"},
		{"m:set_sender(7)", "error: address expected"},
		{"m:set_sender()", "error: address expected"},
		{"m:set_recipient {}", "error: address or list of addresses expected"},
		{"m:set_recipient {'x@y', 7}", "error: address expected as element 2 of the list"},
		{"local t = {} for i = 1, 65536 do t[i] = 'a@b' end m:set_recipient(t) return #m:recipient()", "65536"},
		{"local t = {} for i = 1, 65537 do t[i] = 'a@b' end m:set_recipient(t)", "error: there are more than 65536 addresses"},
		{"m:set_recipient()", "error: address or list of addresses expected"},
	} {
		got, err := onMessage(t, &letter{to: []Address{jane}}, test.statements)
		if err != nil {
			got = "error: " + err.Error()
		}
		if text, isError := strings.CutPrefix(test.want, "error: "); isError && (err == nil || !strings.Contains(got, text)) || !isError && got != test.want {
			t.Errorf("%s: %s, want %s", test.statements, got, test.want)
		}
	}
}

func TestSetDue(t *testing.T) {
	for _, test := range []struct {
		statements, want string
		due              string // empty: not told; "zero": as soon as possible
	}{
		{"return m:set_due '2026-01-02T03:04:05.5+01:00'", "2026-01-02T02:04:05.5Z", "2026-01-02T02:04:05.5Z"},
		{"return m:set_due(nil)", "null", "zero"},
		{"m:set_scheduling {first_attempt='2100-01-01T00:00:00Z'} return m:set_due(nil)", "2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"},
		{"m:set_scheduling {first_attempt='2100-01-01T00:00:00Z'} m:set_scheduling(nil) return m:set_due '2026-01-01T00:00:00Z'", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"},
		{"return m:set_due 'tomorrow'", "error: time expected as 2026-01-31T12:00:00Z", ""},
		{"return m:set_due(7)", "error: time expected as a string or nil", ""},
	} {
		l := &letter{}
		got, err := onMessage(t, l, test.statements)
		if err != nil {
			got = "error: " + err.Error()
		}
		if text, isError := strings.CutPrefix(test.want, "error: "); isError && (err == nil || !strings.Contains(got, text)) || !isError && got != test.want {
			t.Errorf("%s: %s, want %s", test.statements, got, test.want)
		}
		due := ""
		switch {
		case l.due != nil && l.due.IsZero():
			due = "zero"
		case l.due != nil:
			due = l.due.UTC().Format(time.RFC3339Nano)
		}
		if due != test.due {
			t.Errorf("%s: due %s, want %s", test.statements, due, test.due)
		}
	}
}

func TestSetScheduling(t *testing.T) {
	const weekly = `{"dow":"Mon,Wed","end":"17:00:00","start":"09:00:00","tz":"America/Phoenix"}`
	for _, test := range []struct{ statements, want string }{
		{"return m:set_scheduling {first_attempt='2023-03-01T17:00:00-08:00'}", `{"first_attempt":"2023-03-01T17:00:00-08:00"}`},
		{"return m:set_scheduling {expires='2023-03-01T17:00:00Z'}", `{"expires":"2023-03-01T17:00:00Z"}`},
		{"return m:set_scheduling {dow='monday, WED,mon', tz='America/Phoenix', start='09:00', ['end']='17:00:00'}", weekly},
		{"return m:set_scheduling(nil)", "null"},
		{"return m:import_scheduling_header 'X-Schedule'", weekly},
		{"m:import_scheduling_header('x-schedule', true) return m:import_scheduling_header 'X-Schedule'", "null"},

		{"m:set_scheduling {dow='Mon'}", "error: set_scheduling: dow, tz, start and end go together"},
		{"m:set_scheduling {dow='Mon,Funday', tz='UTC', start='09:00', ['end']='17:00'}", "error: set_scheduling: dow: invalid day 'Funday'"},
		{"m:set_scheduling {dow='Mon', tz='Nowhere/City', start='09:00', ['end']='17:00'}", "error: set_scheduling: tz: unknown time zone Nowhere/City"},
		{"m:set_scheduling {dow='Mon', tz='../../etc/passwd', start='09:00', ['end']='17:00'}", "error: set_scheduling: tz: "},
		{"m:set_scheduling {dow='Mon', tz='Local', start='09:00', ['end']='17:00'}", "error: set_scheduling: tz: unknown time zone"},
		{"m:set_scheduling {dow='Mon', tz='UTC', start='9', ['end']='17:00'}", "error: set_scheduling: start: want a time of day"},
		{"m:set_scheduling {dow='Mon', tz='UTC', start='18:00', ['end']='17:00'}", "error: set_scheduling: end: want a time of day after start"},
		{"m:set_scheduling {first_attempt='2023-03-01'}", "error: set_scheduling: first_attempt: "},
		{"m:set_scheduling {first='2023-03-01'}", `error: set_scheduling: unknown field "first"`},
		{"m:set_scheduling {first_attempt=1}", "error: set_scheduling: first_attempt: want a string"},
		{"m:set_scheduling 'soon'", "error: set_scheduling: want a table"},
		{"m:import_scheduling_header 'Subject'", "error: Café au lait today from header Subject is not a valid Scheduling header: "},
	} {
		l := &letter{data: []byte(newsletter)}
		got, err := onMessage(t, l, test.statements)
		if err != nil {
			got = "error: " + err.Error()
		}
		if text, isError := strings.CutPrefix(test.want, "error: "); isError && (err == nil || !strings.Contains(got, text)) || !isError && got != test.want {
			t.Errorf("%s: %s, want %s", test.statements, got, test.want)
		}
		if (l.schedule != nil) != (test.want[0] == '{' || strings.Contains(test.statements, "true)")) {
			t.Errorf("%s: told of %v", test.statements, l.schedule)
		}
		if strings.Contains(test.statements, "true)") == strings.Contains(string(l.data), "X-Schedule") {
			t.Errorf("%s: left %q", test.statements, l.data)
		}
	}
}

// What writes a header with a schedule may write what it does not set as null.
func TestScheduleText(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`{"first_attempt":null,"expires":"2023-03-01T17:00:00Z","dow":null,"tz":null,"start":null,"end":null}`, "map[expires:2023-03-01T17:00:00Z]"},
		{`{}`, "map[]"},
		{`{"first":null}`, "first: want a string"},
		{`{"dow":"Mon","tz":"UTC","start":"09:00","end":null}`, "dow, tz, start and end go together"},
		{`null`, "want a table"},
		{`[]`, "want a table"},
		{strings.Repeat("[", maxScheduling), "unexpected end"},
		{strings.Repeat("[", maxScheduling+1), "longer than"},
	} {
		s, err := parseScheduleText(test.text)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(s.tree())
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%.50s: %s, want %s", test.text, got, test.want)
		}
	}
}

// A schedule moves the next attempt at once, to be seen in set_due.
func TestSchedulingMovesDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose time begins on Saturday, 2000-01-01, midnight UTC
		l := &letter{}
		if _, err := onMessage(t, l, "m:set_scheduling {dow='Mon', tz='UTC', start='09:00', ['end']='17:00'}"); err != nil {
			t.Fatal(err)
		}
		if l.due == nil || l.due.UTC().Format(time.RFC3339) != "2000-01-03T09:00:00Z" {
			t.Error(l.due)
		}
	})
}

func TestScheduleNext(t *testing.T) {
	for _, test := range []struct{ days, zone, first, at, want string }{
		{"Mon,Wed", "America/Phoenix", "", "2023-03-28T10:00:00-07:00", "2023-03-29T09:00:00-07:00"}, // a Tuesday
		{"Mon,Fri", "America/Phoenix", "", "2023-03-27T18:00:00-07:00", "2023-03-31T09:00:00-07:00"},
		{"Mon", "America/Phoenix", "", "2023-03-27T17:00:00-07:00", "2023-04-03T09:00:00-07:00"},
		{"Mon", "America/Phoenix", "", "2023-03-27T16:59:59-07:00", "2023-03-27T16:59:59-07:00"},
		{"Mon", "America/Phoenix", "", "2023-03-27T08:00:00-07:00", "2023-03-27T09:00:00-07:00"},
		{"Mon", "America/Phoenix", "", "2023-03-27T02:00:00Z", "2023-03-27T09:00:00-07:00"}, // there it is Sunday still
		{"Mon", "America/Phoenix", "2023-04-01T00:00:00Z", "2023-03-27T10:00:00-07:00", "2023-04-03T09:00:00-07:00"},
		{"", "", "2023-04-01T00:00:00Z", "2023-03-27T10:00:00-07:00", "2023-04-01T00:00:00Z"},
		{"", "", "2023-04-01T00:00:00Z", "2023-04-02T00:00:00Z", "2023-04-02T00:00:00Z"},
		{"Sun", "Europe/Berlin", "", "2023-03-25T12:00:00+01:00", "2023-03-26T09:00:00+02:00"}, // the clock moves that night
		{"Sun", "Europe/Berlin", "", "2023-10-28T12:00:00+02:00", "2023-10-29T09:00:00+01:00"},
		// There the clock moves at midnight, which is an hour of the day before then.
		{"Mon", "America/Santiago", "", "2026-09-05T20:00:00-04:00", "2026-09-07T09:00:00-03:00"},
		{"Sun", "America/Havana", "", "2026-03-07T20:00:00-05:00", "2026-03-08T09:00:00-04:00"},
		{"Wed", "America/Havana", "", "2026-03-04T17:00:00-05:00", "2026-03-11T09:00:00-04:00"},
	} {
		tree := map[string]any{}
		if test.first != "" {
			tree["first_attempt"] = test.first
		}
		if test.days != "" {
			tree["dow"], tree["tz"], tree["start"], tree["end"] = test.days, test.zone, "09:00:00", "17:00:00"
		}
		s, err := parseSchedule(tree)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := time.Parse(time.RFC3339, test.at)
		want, _ := time.Parse(time.RFC3339, test.want)
		if got := s.Next(at); !got.Equal(want) {
			t.Errorf("%v: %s, want %s", test, got, want)
		}
	}
}

// No script gets at what is behind a message or an address.
func TestMessageIsClosed(t *testing.T) {
	for _, statement := range []string{
		"setmetatable(m, {})", "setmetatable(m:sender(), {})", "setmetatable(m:from_header(), {})",
		"getmetatable(m).__index = function() end", "getmetatable(m).id = 1", "getmetatable(m:sender()).__eq = 1",
		"rawset(m, 'id', 1)", "rawset(m:sender(), 'user', 'x')", "rawget(m, 'id')",
		"m.id = function() return 'mine' end", "m.extra = 1", "m:sender().user = 'x'", "m:from_header().user = 'x'", "m:to_header().list[1].email = 'x'",
		"m()", "for k in pairs(m) do end", "next(m)", "return #m", "return m + 1", "return -m", "return m < m",
		"m.__index.id = 1", "m:__index()", "m:__gc()",
		"m.id(setmetatable({}, {__index = m}))", "m.id({})", "m.id(m:sender())", "m.get_meta(io.stdout, 'x')",
	} {
		l := &letter{data: []byte(newsletter)}
		if got, err := onMessage(t, l, statement); err == nil {
			t.Errorf("%s: %s", statement, got)
		}
	}
	got, err := onMessage(t, &letter{}, "return tostring(getmetatable(m)) .. ' ' .. tostring(getmetatable(m:sender())) .. ' ' .. tostring(m.nonsense) .. ' ' .. tostring(m[1]) .. ' ' .. m:id()")
	if err != nil || got != "false false nil nil 0123" {
		t.Error(got, err)
	}
	// Lists are the script's own.
	got, err = onMessage(t, &letter{to: []Address{jane, jane}}, "m:recipient_list()[1] = 'x' m:recipient()[2] = nil return #m:recipient() .. m:recipient_list()[1]")
	if err != nil || got != "2"+jane.Email {
		t.Error(got, err)
	}
}

// A message that has expired is of no use to anybody, whatever method is asked.
func TestMessageExpired(t *testing.T) {
	s := newState(t, stubs(), "function keep(m) kept = m; from = m:from_header(); sender = m:sender(); m:prepend_header('N', 'v') end function late(name) return kept[name](kept, 'A', 'b') end function still() return from.email .. sender end")
	l := &letter{data: []byte(newsletter)}
	ud := NewMessage(s.L, l)
	if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("keep"), ud); err != nil {
		t.Fatal(err)
	}
	Expire(ud)
	Expire(ud) // twice is once
	if l.replaced != 1 || !strings.HasPrefix(string(l.data), "N: v\r\n") {
		t.Errorf("replaced %d times: %.20q", l.replaced, l.data)
	}
	for _, name := range []string{"id", "sender", "set_sender", "recipient", "recipient_list", "set_recipient", "get_meta", "set_meta", "queue_name",
		"get_data", "set_data", "num_attempts", "increment_num_attempts", "set_due", "set_scheduling", "save", "shrink", "shrink_data", "set_force_sync",
		"get_first_named_header_value", "get_all_named_header_values", "get_all_headers", "get_address_header", "from_header", "to_header",
		"prepend_header", "append_header", "remove_all_named_headers", "remove_x_headers", "import_x_headers", "import_headers", "import_scheduling_header"} {
		_, err := s.Call(t.Context(), 1, s.L.GetGlobal("late"), lua.LString(name))
		if err == nil || !strings.Contains(err.Error(), "after the call that it was passed to has ended") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What it gave away before is a value of its own.
	if got, err := s.Call(t.Context(), 1, s.L.GetGlobal("still")); err != nil || got[0].String() != "news@a.examplefrom@b.example" {
		t.Error(got, err)
	}
}
