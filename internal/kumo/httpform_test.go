package kumo

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

func TestBuildURL(t *testing.T) {
	for _, test := range []struct{ base, params, want string }{
		{"https://example.com/?existing=value", "a = 1, b = 2", "https://example.com/?existing=value&a=1&b=2"},
		{"https://example.com", "", "https://example.com/"},
		{"https://example.com?", "", "https://example.com/"},
		{"https://example.com", "z = 'x', a = 'y', m = 1.5", "https://example.com/?a=y&m=1.5&z=x"},
		{"https://example.com/p#part", "a = 'b'", "https://example.com/p?a=b#part"},
		{"https://u:p@Example.COM:8080/P%2Fq", "a = ''", "https://u:p@example.com:8080/P%2Fq?a="},
		{"http://[2001:DB8::1]:80/", "a = 'b'", "http://[2001:db8::1]:80/?a=b"},
		{"http://münchen.example:81/", "a = 'b'", "http://xn--mnchen-3ya.example:81/?a=b"},
		{"http://a.example/", "['ä&='] = 'x y+z%~*-._/?\\r\\n'", "http://a.example/?%C3%A4%26%3D=x+y%2Bz%25%7E*-._%2F%3F%0D%0A"},
		{"http://a.example/", "a = '\\255'", "http://a.example/?a=%FF"},
	} {
		got, err := eval(t, stubs(), "function run(base) return kumo.http.build_url(base, {"+test.params+"}) end", lua.LString(test.base))
		if err != nil || got != test.want {
			t.Errorf("%s {%s}: %s, %v, want %s", test.base, test.params, got, err, test.want)
		}
	}
	for _, test := range []struct{ call, want string }{
		{"kumo.http.build_url('/path', {})", "kumo.http.build_url: relative URL without a base"},
		{"kumo.http.build_url('', {})", "relative URL without a base"},
		{"kumo.http.build_url('http:///x', {})", "invalid URL: empty host"},
		{"kumo.http.build_url('http://u:secret@a b/', {})", "invalid URL: invalid character \" \" in host name"},
		{"kumo.http.build_url('http://a/', { x = {} })", "names and values must be strings"},
		{"kumo.http.build_url('http://a/', { x = true })", "names and values must be strings"},
		{"kumo.http.build_url('http://a/')", "table expected"},
		{"kumo.http.build_url({}, {})", "string expected"},
		{"local t = {} for i = 1, 70000 do t['k' .. i] = 1 end kumo.http.build_url('http://a/', t)", "more than 65536 fields"},
		{"kumo.http.build_url('http://a/', { x = ('x'):rep(6000000) })", "longer than 5592405 bytes"},
		{"kumo.http.build_url(big(), {})", "longer than 16777216 bytes"},
	} {
		if _, err := eval(t, stubs(), "function run() "+test.call+" end"); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %s", test.call, err, test.want)
		}
	}
}

// A loop over a script's table ends with the call.
func TestEachTextEnds(t *testing.T) {
	s := newState(t, stubs(), "fields = {} for i = 1, 5000 do fields['k' .. i] = 'v' end")
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	_, err := s.Call(ctx, 0, s.L.NewFunction(func(L *lua.LState) int {
		eachText(L, 1, func(string, string) {
			seen++
			cancel()
		})
		return 0
	}), s.L.GetGlobal("fields"))
	if err == nil || seen > 1024 {
		t.Error(err, seen)
	}
}

// FuzzForm: what is encoded is what comes out again, and nothing in it has a meaning on the wire.
func FuzzForm(f *testing.F) {
	f.Add("a", "b", "c", "d")
	f.Add("", "~*", "ä&=;", "x y+%41\r\n\x00\xff")
	f.Fuzz(func(t *testing.T, name, value, other, another string) {
		fields := map[string]string{name: value, other: another}
		form := encodeForm(fields)
		if strings.ContainsFunc(form, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`#"<>;?/\`, c) }) {
			t.Fatalf("%q", form)
		}
		back, err := url.ParseQuery(form)
		if err != nil || len(back) != len(fields) {
			t.Fatal(form, err)
		}
		for name, value := range fields {
			if got := back[name]; len(got) != 1 || got[0] != value {
				t.Fatalf("%q: %q, want %q", name, got, value)
			}
		}
	})
}

// FuzzBuildURL: the URL stays what it was, but for the parameters behind its own.
func FuzzBuildURL(f *testing.F) {
	for _, base := range []string{"https://example.com/?existing=value#part", "http://u:p@[::1]:80", "mailto:a@b", "http://münchen.example", "http://a/?;", "x:?"} {
		f.Add(base, "k", "v")
	}
	f.Fuzz(func(t *testing.T, base, name, value string) {
		form := encodeForm(map[string]string{name: value})
		got, err := addParams(base, form)
		if err != nil {
			return
		}
		before, err := url.Parse(strings.Trim(base, " "))
		if err != nil {
			t.Fatal(err)
		}
		after, err := url.Parse(got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if after.Scheme != before.Scheme || after.User.String() != before.User.String() || after.Port() != before.Port() || after.Fragment != before.Fragment ||
			!strings.HasPrefix(after.RawQuery, before.RawQuery) || !strings.HasSuffix(after.RawQuery, form) {
			t.Fatalf("%q: %q", base, got)
		}
		if path := before.Path; path != "" && path != after.Path || before.Opaque != after.Opaque {
			t.Fatalf("%q: %q", base, got)
		}
		if again, err := addParams(got, ""); err != nil || utf8.ValidString(base) && again != got {
			t.Fatal(fmt.Sprintf("%q: %q", got, again), err)
		}
	})
}
