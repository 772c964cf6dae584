package decode

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// parse decodes a server from JSON.
func parse(text string) (server, error) {
	var s server
	tree, err := ParseJSON([]byte(text))
	if err == nil {
		err = Decode(tree, &s)
	}
	return s, err
}

// defaulted is what a server with nothing but a name is after Decode.
func defaulted(change func(*server)) server {
	three := 3
	s := server{
		Name: "a", Port: 25, Family: "Both", Timeout: time.Minute, Idle: idleDuration(5 * time.Second), Retries: &three,
		Denied: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Verify: on, Common: common{TTL: 60},
	}
	change(&s)
	return s
}

func TestDecode(t *testing.T) {
	zero := 0
	for _, test := range []struct {
		text string
		want func(*server)
	}{
		{`{"name":"a"}`, func(s *server) {}},
		{`{"name":"a","port":null,"next":null,"mailbox_path":null,"limits":null}`, func(s *server) {}},
		{`{"name":"a","port":2525.0}`, func(s *server) { s.Port = 2525 }},
		{`{"name":"a","port":2.5e3}`, func(s *server) { s.Port = 2500 }},
		{`{"name":"a","family":"V6"}`, func(s *server) { s.Family = "V6" }},
		{`{"name":"a","timeout":"1m 30s","idle":0.25}`, func(s *server) {
			s.Timeout, s.Idle = 90*time.Second, idleDuration(250*time.Millisecond)
		}},
		{`{"name":"a","timeout":30}`, func(s *server) { s.Timeout = 30 * time.Second }},
		{`{"name":"a","ratio":2}`, func(s *server) { s.Ratio = 2 }},
		{`{"name":"a","retries":0}`, func(s *server) { s.Retries = &zero }},
		{`{"name":"a","denied":[]}`, func(s *server) { s.Denied = []netip.Prefix{} }},
		{`{"name":"a","denied":["::/0","10.1.2.3"]}`, func(s *server) {
			s.Denied = []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.1.2.3/32")}
		}},
		{`{"name":"a","source":"fe80::1%eth0"}`, func(s *server) { s.Source = netip.MustParseAddr("fe80::1%eth0") }},
		{`{"name":"a","limits":{"x":1,"y":null}}`, func(s *server) { s.Limits = map[string]int64{"x": 1} }},
		{`{"name":"a","limits":{}}`, func(s *server) { s.Limits = map[string]int64{} }},
		{`{"name":"a","verify":false,"lazy":true}`, func(s *server) { s.Verify, s.Lazy = off, true }},
		{`{"name":"a","lazy":false,"ttl":61}`, func(s *server) { s.Common.TTL = 61 }},
		{`{"name":"a","next":{"name":"a"}}`, func(s *server) {
			next := defaulted(func(*server) {})
			s.Next = &next
		}},
		{`{"name":"a","routes":[{"to":"x"},{"to":"y","weight":7}]}`, func(s *server) {
			s.Routes = []route{{"x", 1}, {"y", 7}}
		}},
		{`{"name":"a","by_name":{"q":{"to":"x"}}}`, func(s *server) { s.ByName = map[string]route{"q": {"x", 1}} }},
		{`{"name":"a","extra":[1,2.5,3.0,{"k":null},"s",[]]}`, func(s *server) {
			s.Extra = []any{int64(1), 2.5, int64(3), map[string]any{"k": nil}, "s", []any{}}
		}},
		{`{"name":"a","headers":{"X-Y":"z"}}`, func(s *server) { s.Headers = map[header]string{"X-Y": "z"} }},
		{`{"name":"a","letter":"é"}`, func(s *server) { s.Letter.r = 'é' }},
		{`{"name":"a","mailbox_path":"/x"}`, func(s *server) { s.Mailbox = &mailbox{Path: "/x"} }},
	} {
		got, err := parse(test.text)
		if want := defaulted(test.want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", test.text, got, err, want)
		}
	}
}

func TestDecodeKeepsWhatIsAbsent(t *testing.T) {
	s := server{Name: "a", Port: 99, Limits: map[string]int64{"x": 1}, Next: &server{Name: "n", Port: 7}}
	tree := map[string]any{"limits": map[string]any{"y": int64(2)}, "next": map[string]any{"name": "m"}}
	if err := Decode(tree, &s); err != nil {
		t.Fatal(err)
	}
	if s.Name != "a" || s.Port != 99 || !reflect.DeepEqual(s.Limits, map[string]int64{"y": 2}) || s.Next.Name != "m" || s.Next.Port != 25 {
		t.Errorf("got %+v", s)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		// The shape.
		{`[]`, `expected a map, got a list`},
		{`3`, `expected a map, got a number`},
		{`null`, `expected a map, got nothing`},
		{`{}`, `name: is required`},
		{`{"name":""}`, `name: an empty string is not accepted`},
		{`{"name":"a","prot":1}`, `prot: unknown field (did you mean "port"?)`},
		{`{"name":"a","Time_out":1}`, `Time_out: unknown field (did you mean "timeout"?)`},
		{`{"name":"a","mailboxPath":"/"}`, `mailboxPath: unknown field (did you mean "mailbox_path"?)`},
		{`{"name":"a","zz":1,"something":1}`, `something: unknown field`},
		{`{"name":"a","a.b":1}`, `["a.b"]: unknown field`},
		{`{"name":"a","next":{"name":"b","next":{"nam":"c"}}}`, `next.next.nam: unknown field (did you mean "name"?)`},
		{`{"name":"a","Untagged":1}`, `Untagged: unknown field`},
		{`{"name":"a","internal":1}`, `internal: unknown field`},
		// Types.
		{`{"name":5}`, `name: expected a string, got a number`},
		{`{"name":"a","port":"25"}`, `port: expected an integer, got a string`},
		{`{"name":"a","port":25.5}`, `port: 25.5 is not an integer`},
		{`{"name":"a","lazy":"true"}`, `lazy: expected a boolean, got a string`},
		{`{"name":"a","ratio":"1"}`, `ratio: expected a number, got a string`},
		{`{"name":"a","timeout":true}`, `timeout: expected a duration (seconds, or text such as "20m"), got a boolean`},
		{`{"name":"a","timeout":"5"}`, `timeout: "5" is not a duration: the number needs a unit, as in "5s"`},
		{`{"name":"a","denied":"::1"}`, `denied: expected a list, got a string`},
		{`{"name":"a","denied":{}}`, `denied: expected a list, got a map`},
		{`{"name":"a","denied":["::1",null]}`, `denied[1]: is null`},
		{`{"name":"a","denied":["::1","fe80::1%eth0"]}`,
			`denied[1]: "fe80::1%eth0" is not an IP network, such as 10.0.0.0/8, or an IP address without a zone`},
		{`{"name":"a","denied":["10.0.0.0/33"]}`,
			`denied[0]: "10.0.0.0/33" is not an IP network, such as 10.0.0.0/8, or an IP address without a zone`},
		{`{"name":"a","denied":[""]}`,
			`denied[0]: "" is not an IP network, such as 10.0.0.0/8, or an IP address without a zone`},
		{`{"name":"a","source":""}`, `source: "" is not an IP address`},
		{`{"name":"a","source":1}`, `source: expected an IP address as a string, got a number`},
		{`{"name":"a","limits":[]}`, `limits: expected a map, got a list`},
		{`{"name":"a","limits":{"a b":"x"}}`, `limits["a b"]: expected an integer, got a string`},
		{`{"name":"a","next":[]}`, `next: expected a map, got a list`},
		{`{"name":"a","routes":[{"to":"x"},5]}`, `routes[1]: expected a map, got a number`},
		{`{"name":"a","verify":1}`, `verify: expected true or false`},
		{`{"name":"a","letter":1}`, `letter: expected a string, got a number`},
		{`{"name":"a","letter":"xy"}`, `letter: expected one letter`},
		// Bounds and choices.
		{`{"name":"a","port":0}`, `port: 0 is out of range (1 to 65535)`},
		{`{"name":"a","port":70000}`, `port: 70000 is out of range (1 to 65535)`},
		{`{"name":"a","port":-1}`, `port: -1 is out of range (1 to 65535)`},
		{`{"name":"a","port":70000.0}`, `port: 70000 is out of range (1 to 65535)`},
		{`{"name":"a","port":1e300}`, `port: 1e+300 is too large to be an exact integer`},
		{`{"name":"a","ttl":2147483648}`, `ttl: 2147483648 is out of range (-2147483648 to 2147483647)`},
		{`{"name":"a","retries":-1}`, `retries: -1 is out of range (0 to 9)`},
		{`{"name":"a","ratio":0}`, `ratio: 0 is out of range (0.5 to 2)`},
		{`{"name":"a","timeout":"0"}`, `timeout: 0s is out of range (1s to 10m)`},
		{`{"name":"a","timeout":"10m 1s"}`, `timeout: 10m 1s is out of range (1s to 10m)`},
		{`{"name":"a","family":"v6"}`, `family: "v6" is not one of Both, V4, V6`},
		{`{"name":"a","family":""}`, `family: "" is not one of Both, V4, V6`},
		{`{"name":"a","routes":[{"to":"x","weight":0}]}`, `routes[0].weight: 0 is less than 1`},
		// A zero that could not be told from nothing.
		{`{"name":"a","ttl":0}`, `ttl: zero is not accepted (leave the field out for the default, 60)`},
		{`{"name":"a","idle":"0s"}`, `idle: zero is not accepted (leave the field out for the default, 5s)`},
		// Required and Validate, in the right place.
		{`{"name":"a","next":{"port":1}}`, `next.name: is required`},
		{`{"name":"a","by_name":{"q":{}}}`, `by_name.q.to: is required`},
		{`{"name":"a","mailbox_mode":1}`, `mailbox_path: is required`},
		{`{"name":"a","next":{"name":"b","mailbox_path":"/","mailbox_mode":1}}`,
			`next.mailbox_mode: does not go with the path /`},
		{`{"name":"a","routes":[{"to":"x"},{"to":"loop"}]}`, `routes[1]: leads back here`},
		{`{"name":"a","by_name":{"q":{"to":"heavy"}}}`, `by_name.q.weight: 1 is too heavy: leads back here`},
	} {
		_, err := parse(test.text)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s:\n got %v\nwant %s", test.text, err, test.want)
			continue
		}
		if _, ok := err.(*Error); !ok {
			t.Errorf("%s: the error is a %T", test.text, err)
		}
	}
}

func TestDecodeLuaTree(t *testing.T) {
	var got server
	err := Decode(map[string]any{
		"name": "a", "port": 2525.0, "denied": Empty{}, "limits": Empty{}, "routes": Empty{},
		"extra": map[string]any{"n": 2.0, "f": 2.5, "e": Empty{}},
	}, &got)
	want := defaulted(func(s *server) {
		s.Port, s.Denied, s.Limits, s.Routes = 2525, []netip.Prefix{}, map[string]int64{}, []route{}
		s.Extra = map[string]any{"n": int64(2), "f": 2.5, "e": map[string]any{}}
	})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if err := Decode(Empty{}, &server{}); err == nil || err.Error() != "name: is required" {
		t.Errorf("an empty table: %v", err)
	}
}

func TestDecodeBadTree(t *testing.T) {
	deep := any("x")
	for range 70 {
		deep = []any{deep}
	}
	inf := math.Inf(1)
	for _, test := range []struct {
		tree any
		want string
	}{
		{map[string]any{"name": "a\xff"}, `name: is not valid UTF-8`},
		{map[string]any{"name": "a", "limits": map[string]any{"\xff": int64(1)}}, `limits["\xff"]: the key is not valid UTF-8`},
		{map[string]any{"name": "a", "extra": []any{1.5, inf}}, `extra[1]: +Inf is not a finite number`},
		{map[string]any{"name": "a", "ratio": math.NaN()}, `ratio: NaN is not a finite number`},
		{map[string]any{"name": "a", "extra": 5}, `extra: a value of the Go type int has no place in a configuration`},
		{map[string]any{"name": "a", "extra": deep}, `extra` + strings.Repeat("[0]", 63) + `: is nested more than 64 deep`},
		{map[string]any{"name": "a", "port": 9007199254740994.0}, `port: 9.007199254740994e+15 is too large to be an exact integer`},
		{map[string]any{"name": "a", "name\n": "b"}, `["name\n"]: unknown field (did you mean "name"?)`},
	} {
		if err := Decode(test.tree, &server{}); err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

// A type's own UnmarshalJSON cannot see whether a Lua table was a list or a map.
func TestEmptyForUnmarshalers(t *testing.T) {
	var got struct {
		Hosts []host `config:"hosts"`
		Words words  `config:"words"`
		One   host   `config:"one"`
	}
	tree := map[string]any{
		"hosts": []any{"x", map[string]any{"name": "y", "ports": Empty{}, "options": Empty{}}},
		"words": Empty{},
		"one":   map[string]any{"name": "z", "ports": []any{25.0}},
	}
	if err := Decode(tree, &got); err != nil {
		t.Fatal(err)
	}
	want := []host{{Name: "x"}, {Name: "y", Ports: []int{}, Options: map[string]int{}}}
	if !reflect.DeepEqual(got.Hosts, want) || got.Words == nil || !reflect.DeepEqual(got.One, host{Name: "z", Ports: []int{25}}) {
		t.Errorf("got %+v", got)
	}

	tree["hosts"] = []any{map[string]any{"name": "y", "ports": Empty{}, "options": Empty{}, "optoins": Empty{}}}
	err := Decode(tree, &got)
	if want := `hosts[0].optoins: unknown field (did you mean "options"?)`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	tree["hosts"] = []any{map[string]any{"name": Empty{}}}
	err = Decode(tree, &got)
	if want := `hosts[0].name: expected a string, got a map`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestErrors(t *testing.T) {
	_, err := parse(`{"name":"a","routes":[{"to":"heavy"}]}`)
	var e *Error
	if !errors.Is(err, errLoop) || !errors.As(err, &e) || e.Path != "routes[0].weight" {
		t.Errorf("got %#v", err)
	}
	for _, test := range []struct{ outer, inner, want string }{
		{"", "", "bad"},
		{"a", "", "a: bad"},
		{"", "a", "a: bad"},
		{"a", "b[1]", "a.b[1]: bad"},
		{"a", "[1]", "a[1]: bad"},
		{"a[1]", "b", "a[1].b: bad"},
	} {
		inner := Errorf(test.inner, "bad")
		if got := In(test.outer, inner).Error(); got != test.want {
			t.Errorf("In(%q, %q) = %q, want %q", test.outer, test.inner, got, test.want)
		}
		if inner.Path != test.inner {
			t.Error("In changed the error that it was given")
		}
	}
	if err := In("a", nil); err != nil {
		t.Errorf("In of nil is %v", err)
	}
	if err := In("a", errLoop); !errors.Is(err, errLoop) || err.Error() != "a: leads back here" {
		t.Errorf("got %v", err)
	}
	other := errors.New("other")
	if err := Errorf("a", "%w, %w", errLoop, other); !errors.Is(err, errLoop) || !errors.Is(err, other) {
		t.Error("of two causes one is lost")
	}
	if err := Errorf("a", "%d", 1); err.Err != nil || err.Error() != "a: 1" {
		t.Errorf("got %#v", err)
	}
}

func TestDefaultsAndCheck(t *testing.T) {
	s := server{Name: "a", Next: &server{Name: "b", Denied: []netip.Prefix{}}, Routes: []route{{To: "x"}}, ByName: map[string]route{"q": {To: "y"}}}
	if err := Check(s); err != nil {
		t.Errorf("before the defaults: %v", err)
	}
	Defaults(&s)
	if s.Port != 25 || s.Next.Port != 25 || s.Routes[0].Weight != 1 || s.ByName["q"].Weight != 1 || s.Common.TTL != 60 {
		t.Errorf("got %+v", s)
	}
	if s.Denied == nil || s.Next.Denied == nil || len(s.Next.Denied) != 0 || s.Mailbox != nil {
		t.Errorf("got %+v", s)
	}
	other := server{Name: "b"}
	Defaults(&other)
	other.Denied[0] = netip.Prefix{}
	*other.Retries = 7
	if !s.Denied[0].IsValid() || *s.Retries != 3 {
		t.Error("two structs share a default")
	}
	before, after := defaulted(func(*server) {}), defaulted(func(*server) {})
	Defaults(&after)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("got %+v", after)
	}

	ten := 10
	for _, test := range []struct {
		change func(*server)
		want   string
	}{
		{func(s *server) {}, ``},
		{func(s *server) { s.Name = "" }, `name: is required`},
		{func(s *server) { s.Name = "\xff" }, `name: is not valid UTF-8`},
		{func(s *server) { s.Ratio = 3 }, `ratio: 3 is out of range (0.5 to 2)`},
		{func(s *server) { s.Timeout = time.Hour }, `timeout: 1h is out of range (1s to 10m)`},
		{func(s *server) { s.Timeout = -1 }, `timeout: a duration cannot be negative`},
		{func(s *server) { s.Idle = -1 }, `idle: a duration cannot be negative`},
		{func(s *server) { s.Retries = &ten }, `retries: 10 is out of range (0 to 9)`},
		{func(s *server) { s.Family = "V5" }, `family: "V5" is not one of Both, V4, V6`},
		{func(s *server) { s.Limits = map[string]int64{"\xff": 1} }, `limits["\xff"]: is not valid UTF-8`},
		{func(s *server) { s.Extra = []int{} }, `extra: a value of the Go type []int has no place in a configuration`},
		{func(s *server) { s.Next = &server{Name: "b", Routes: []route{{}}} }, `next.routes[0].to: is required`},
		{func(s *server) { s.Mailbox = &mailbox{Path: "/", Mode: 1} }, `mailbox_mode: does not go with the path /`},
		{func(s *server) { s.ByName = map[string]route{"b": {To: "loop"}, "a": {To: "loop"}} }, `by_name.a: leads back here`},
	} {
		s := defaulted(test.change)
		for _, err := range []error{Check(s), Check(&s)} {
			if got := text(err); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWrongTags(t *testing.T) {
	for name, dst := range map[string]any{
		"no struct":  new(int),
		"no pointer": server{},
		"nil":        (*server)(nil),
		"unexported": &struct {
			a int `config:"a"`
		}{},
		"empty key": &struct {
			A int `config:""`
		}{},
		"twice": &struct {
			A, B int `config:"a"`
		}{},
		"twice, inlined": &struct {
			A common `config:",inline"`
			B int    `config:"ttl"`
		}{},
		"default": &struct {
			A int `config:"a" default:"x"`
		}{},
		"default below min": &struct {
			A int `config:"a" default:"1" min:"2"`
		}{},
		"default no choice": &struct {
			A string `config:"a" default:"x" enum:"y,z"`
		}{},
		"default true": &struct {
			A bool `config:"a" default:"true"`
		}{},
		"required bool": &struct {
			A bool `config:"a" required:"true"`
		}{},
		"min of string": &struct {
			A string `config:"a" min:"1"`
		}{},
		"enum of int": &struct {
			A int `config:"a" enum:"1,2"`
		}{},
		"inlined int": &struct {
			A int `config:",inline"`
		}{},
		"embedded pointer": &struct {
			*Error `config:",inline"`
		}{},
	} {
		func() {
			defer func() {
				if r, _ := recover().(string); !strings.HasPrefix(r, "decode: BUG: ") {
					t.Errorf("%s: recovered %q", name, r)
				}
			}()
			Defaults(dst)
		}()
	}
}

// A bool whose zero value is false may have a pointer and a default of true.
func TestPointerToBool(t *testing.T) {
	type flags struct {
		A *bool `config:"a" default:"true"`
	}
	for text, want := range map[string]bool{`{}`: true, `{"a":true}`: true, `{"a":false}`: false} {
		tree, err := ParseJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var f flags
		if err := Decode(tree, &f); err != nil || *f.A != want {
			t.Errorf("%s: %v, %v", text, *f.A, err)
		}
		if printed, err := JSON(f); err != nil || !json.Valid(printed) || strings.Contains(string(printed), "true") != want {
			t.Errorf("%s prints as %s, %v", text, printed, err)
		}
	}
}

// TestOwnSyntax checks tags on types that read themselves: their text is that
// of the type, be it JSON or not.
func TestOwnSyntax(t *testing.T) {
	type config struct {
		Pause  pause        `config:"pause" default:"20m" min:"1s" max:"1h"`
		Short  pause        `config:"short" default:"5" max:"1m"`
		Soon   textDuration `config:"soon"`
		Count  uint64       `config:"count" max:"100"`
		Signed int8         `config:"signed" min:"-3" max:"3"`
		Hosts  []host       `config:"hosts" default:"[\"a\", {\"name\": \"b\", \"ports\": [1]}]"`
		Spare  host         `config:"spare"`
		Map    map[string]*int
	}
	for _, test := range []struct{ text, want, err string }{
		{`{}`, `{"pause":"20m","short":"5s","hosts":["a",{"name":"b","ports":[1]}]}`, ``},
		{`{"pause":90,"short":"1ms","hosts":[]}`, `{"pause":"1m 30s","short":"1ms","hosts":[]}`, ``},
		{`{"soon":"soon","hosts":[]}`, `{"pause":"20m","short":"5s","soon":"1s","hosts":[]}`, ``},
		{`{"soon":2,"hosts":[],"signed":-3}`, `{"pause":"20m","short":"5s","soon":"2s","signed":-3,"hosts":[]}`, ``},
		{`{"spare":"s","hosts":[]}`, `{"pause":"20m","short":"5s","hosts":[],"spare":"s"}`, ``},
		{`{"pause":"61m"}`, ``, `pause: 1h 1m is out of range (1s to 1h)`},
		{`{"pause":0}`, ``, `pause: 0s is out of range (1s to 1h)`},
		{`{"pause":true}`, ``, `pause: expected a duration (seconds, or text such as "20m"), got a boolean`},
		{`{"short":"61s"}`, ``, `short: 1m 1s is more than 1m`},
		{`{"short":0}`, ``, `short: zero is not accepted (leave the field out for the default, 5)`},
		{`{"soon":"later"}`, ``, `soon: expected soon`},
		{`{"count":101}`, ``, `count: 101 is more than 100`},
		{`{"signed":-4}`, ``, `signed: -4 is out of range (-3 to 3)`},
		{`{"spare":{}}`, ``, `spare.name: is required`},
		{`{"spare":""}`, `{"pause":"20m","short":"5s","hosts":["a",{"name":"b","ports":[1]}]}`, ``},
	} {
		tree, err := ParseJSON([]byte(test.text))
		if err != nil {
			t.Fatal(err)
		}
		var c config
		err = Decode(tree, &c)
		if text(err) != test.err {
			t.Errorf("%s: got %v, want %q", test.text, err, test.err)
		}
		if got, err2 := JSON(c); err == nil && (err2 != nil || string(got) != test.want) {
			t.Errorf("%s:\n got %s, %v\nwant %s", test.text, got, err2, test.want)
		}
	}
	if err := Check(config{Count: math.MaxUint64}); text(err) != "count: 18446744073709551615 is more than 100" {
		t.Errorf("got %v", err)
	}
}

func BenchmarkDecode(b *testing.B) {
	tree, err := ParseJSON([]byte(`{"name":"a","port":2525,"timeout":"5m","denied":["::/0"],"routes":[{"to":"x"},{"to":"y"}]}`))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(tree, &server{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	s := defaulted(func(s *server) { s.Routes = []route{{"x", 1}, {"y", 2}} })
	b.ReportAllocs()
	for b.Loop() {
		if _, err := JSON(&s); err != nil {
			b.Fatal(err)
		}
	}
}
