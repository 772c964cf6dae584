package mtasts

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	week := 7 * 24 * time.Hour
	mx := []string{"mx.example.com"}
	long := strings.Repeat("a", 63)
	for _, test := range []struct {
		name, body string
		want       Policy
	}{
		{"CRLF", "version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n", Policy{Enforce, mx, week}},
		{"LF", "version: STSv1\nmode: testing\nmx: mx.example.com\nmax_age: 604800\n", Policy{Testing, mx, week}},
		{"mixed, and no end of the last line", "version: STSv1\r\nmode: enforce\nmx: mx.example.com\r\nmax_age: 604800", Policy{Enforce, mx, week}},
		{"another order", "max_age: 604800\nmx: mx.example.com\nmode: enforce\nversion: STSv1\n", Policy{Enforce, mx, week}},
		{"no space, much space", "version:STSv1\nmode: \t enforce \t\nmx:mx.example.com \nmax_age:604800\n", Policy{Enforce, mx, week}},
		{"empty lines", "\nversion: STSv1\n\r\nmode: enforce\n \t\nmx: mx.example.com\nmax_age: 604800\n\n\n", Policy{Enforce, mx, week}},
		{"other fields", "version: STSv1\nmode: enforce\nx-1.y_z: \u00fc: ;=\nempty:\nmx: mx.example.com\nmax_age: 604800\nMode: none\n", Policy{Enforce, mx, week}},
		{"repeated fields", "version: STSv1\nmode: enforce\nmode: none\nmode: ?\nversion: 2\nmx: mx.example.com\nmax_age: 604800\nmax_age: x\nmax_age: 0\n", Policy{Enforce, mx, week}},
		{"several mx", "version: STSv1\nmode: enforce\nmx: MX.Example.com.\nmx: *.example.NET\nmx: b\u00fccher.example\nmx: *.com\nmx: a_b.example.com\nmax_age: 604800\n",
			Policy{Enforce, []string{"mx.example.com", "*.example.net", "xn--bcher-kva.example", "*.com", "a_b.example.com"}, week}},
		{"none", "version: STSv1\nmode: none\nmax_age: 0\n", Policy{}},
		{"none with mx", "version: STSv1\nmode: none\nmx: mx.example.com\nmax_age: 604800\n", Policy{None, mx, week}},
		{"a year", "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 0031557600\n", Policy{Enforce, mx, 31557600 * time.Second}},
		{"long labels", "version: STSv1\nmode: enforce\nmx: *." + long + ".example\nmax_age: 604800\n", Policy{Enforce, []string{"*." + long + ".example"}, week}},
		{"64 KiB", pad(enforce, maxBody), Policy{Enforce, mx, week}},
		{"1000 mx", "version: STSv1\nmode: enforce\n" + strings.Repeat("mx: a.test\n", 1000) + "max_age: 604800\n", Policy{Enforce, strings.Fields(strings.Repeat("a.test ", 1000)), week}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.body))
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%+v, %v", got, err)
			}
			again, err := Parse([]byte(got.String()))
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("printed and parsed: %+v, %v", again, err)
			}
		})
	}
}

// pad makes a policy n bytes long with a field that nobody knows.
func pad(policy string, n int) string {
	return policy + "pad: " + strings.Repeat("x", n-len(policy)-len("pad: "))
}

func TestParseRefuses(t *testing.T) {
	with := func(line string) string { return enforce + line + "\n" }
	without := func(field string) string {
		var b strings.Builder
		for line := range strings.Lines(enforce) {
			if !strings.HasPrefix(line, field) {
				b.WriteString(line)
			}
		}
		return b.String()
	}
	for _, test := range []struct{ name, body, want string }{
		{"nothing", "", "no version"},
		{"no version", without("version"), "no version"},
		{"no mode", without("mode"), "no mode"},
		{"no max_age", without("max_age"), "no max_age"},
		{"no mx", without("mx"), "enforce and no mx"},
		{"another version", strings.Replace(enforce, "STSv1", "STSv2", 1), `line 1 of the policy: version "STSv2"`},
		{"version in lower case", strings.Replace(enforce, "STSv1", "stsv1", 1), "version"},
		{"another mode", strings.Replace(enforce, "enforce", "report", 1), `mode "report"`},
		{"mode in upper case", strings.Replace(enforce, "enforce", "Enforce", 1), `mode "Enforce"`},
		{"empty mode", strings.Replace(enforce, "enforce", "", 1), `mode ""`},
		{"name in upper case", strings.Replace(enforce, "mode", "Mode", 1), "no mode"},
		{"more than a year", strings.Replace(enforce, "604800", "31557601", 1), "max_age 31557601 is more than 31557600"},
		{"much more", strings.Replace(enforce, "604800", "9999999999", 1), "is more than"},
		{"eleven digits", strings.Replace(enforce, "604800", "00000000001", 1), "not a number"},
		{"negative", strings.Replace(enforce, "604800", "-1", 1), "not a number"},
		{"signed", strings.Replace(enforce, "604800", "+1", 1), "not a number"},
		{"with a unit", strings.Replace(enforce, "604800", "1w", 1), "not a number"},
		{"no max_age value", strings.Replace(enforce, "604800", "", 1), "not a number"},
		{"empty mx", with("mx:"), "line 5"},
		{"a star", with("mx: *"), "not a host name"},
		{"a star and a dot", with("mx: *."), "not a host name"},
		{"two stars", with("mx: *.*.example.com"), "not a host name"},
		{"a star inside", with("mx: mx.*.example.com"), "not a host name"},
		{"part of a label", with("mx: *mx.example.com"), "not a host name"},
		{"a dot first", with("mx: .example.com"), "not a host name"},
		{"two dots", with("mx: mx..example.com"), "not a host name"},
		{"a literal", with("mx: [192.0.2.1]"), "not a host name"},
		{"a list", with("mx: a.example.com, b.example.com"), "not a host name"},
		{"a long label", with("mx: " + strings.Repeat("a", 64) + ".example"), "not a host name"},
		{"a long name", with("mx: " + strings.Repeat("abcdefg.", 32) + "example"), "not a host name"},
		{"1001 mx", with(strings.TrimSpace(strings.Repeat("mx: a.test\n", 1000))), "more than 1000"},
		{"no colon", with("what"), "not a field"},
		{"no name", with(": what"), "not a field"},
		{"space before the name", with(" a: b"), "not a field"},
		{"space after the name", with("a : b"), "not a field"},
		{"a long name of a field", with(strings.Repeat("a", 33) + ": b"), "not a field"},
		{"a mark of byte order", "\ufeff" + enforce, "line 1"},
		{"CR alone", strings.ReplaceAll(enforce, "\r\n", "\r"), "control character"},
		{"two CR", with("a: b\r\r"), "control character"},
		{"NUL", with("a: \x00"), "control character"},
		{"DEL", with("a: \x7f"), "control character"},
		{"not UTF-8", with("a: \xff"), "not UTF-8"},
		{"HTML", "<!DOCTYPE html>\n<title>Oops</title>\n", "not a field"},
		{"64 KiB and a byte", pad(enforce, maxBody+1), "longer than 65536"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.body))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			} else if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if !reflect.DeepEqual(got, Policy{}) {
				t.Errorf("%+v with an error", got)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern string
		yes, no []string
	}{
		{"mx.example.com",
			[]string{"mx.example.com", "MX.Example.COM", "mx.example.com."},
			[]string{"", ".", "example.com", "a.mx.example.com", "mx.example.com.example", "mxxexample.com", "mx.example.com..", ".mx.example.com"}},
		{"*.example.com",
			[]string{"mx.example.com", "MX.EXAMPLE.COM.", "x.example.com", "*.example.com"},
			[]string{"", ".", "example.com", ".example.com", "a.b.example.com", "mxexample.com", "mx.example.com.com", "mx.example.org"}},
		{"*.com", []string{"example.com"}, []string{"com", "a.example.com"}},
		{"MX.Example.com.", []string{"mx.example.com", "mx.example.com."}, []string{"example.com"}},
		{"*.Example.com.", []string{"mx.example.com"}, []string{"example.com"}},
		{"xn--bcher-kva.example", []string{"xn--bcher-kva.example", "b\u00fccher.example", "B\u00dcCHER.example."}, []string{"bucher.example", "b\u00fccher..example"}},
		{"*.xn--bcher-kva.example", []string{"mx.b\u00fccher.example"}, []string{"b\u00fccher.example"}},
		{"mk.example", []string{"MK.example"}, []string{"m\xff.example"}},
		{"", nil, []string{"", ".", "a"}},
		{"*.", nil, []string{"", ".", "a", "a."}},
		{"*..", nil, []string{"", ".", "a", "a."}},
		{"*", nil, []string{"a", "a.b"}},
	} {
		p := Policy{MX: []string{"other.example.org", test.pattern}}
		for _, host := range test.yes {
			if !p.Matches(host) {
				t.Errorf("%q does not match %q", test.pattern, host)
			}
		}
		for _, host := range test.no {
			if p.Matches(host) {
				t.Errorf("%q matches %q", test.pattern, host)
			}
		}
	}
	if (Policy{}).Matches("a.test") {
		t.Error("a policy without mx matches")
	}
}

func TestParseRecord(t *testing.T) {
	thirtyTwo := strings.Repeat("aB3x", 8)
	for _, test := range []struct {
		txts  []string
		id    string
		found bool
		fails bool
	}{
		{nil, "", false, false},
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z", true, false},
		{[]string{"v=STSv1;id=1"}, "1", true, false},
		{[]string{"v=STSv1; \t id=1 \t ; "}, "1", true, false},
		{[]string{"v=STSv1; id=" + thirtyTwo}, thirtyTwo, true, false},
		{[]string{"v=STSv1; a.b-c_d=\u00fc e=f; id=1; id=2; id=?;"}, "1", true, false},
		{[]string{"v=spf1 -all", "v=STSv1; id=1", "", "v=STSv2; id=2", "V=STSv1; id=3", "v=STSv1", " v=STSv1; id=4", "v=STSv1 ; id=5"}, "1", true, false},
		{[]string{"v=spf1 -all"}, "", false, false},
		{[]string{"v=STSv1"}, "", false, false},
		{[]string{"v=STSv1;"}, "", false, true},
		{[]string{"v=STSv1; id=1", "v=STSv1; id=1"}, "", false, true},
		{[]string{"v=STSv1; id=1", "v=STSv1; junk"}, "", false, true},
		{[]string{"v=STSv1; id="}, "", false, true},
		{[]string{"v=STSv1; id"}, "", false, true},
		{[]string{"v=STSv1; ID=1"}, "", false, true},
		{[]string{"v=STSv1; id = 1"}, "", false, true},
		{[]string{"v=STSv1; id=1 2"}, "", false, true},
		{[]string{"v=STSv1; id=1-2"}, "", false, true},
		{[]string{"v=STSv1; id=\u00fc"}, "", false, true},
		{[]string{"v=STSv1; id=" + thirtyTwo + "x"}, "", false, true},
		{[]string{"v=STSv1;; id=1"}, "", false, true},
		{[]string{"v=STSv1; id=1;;"}, "", false, true},
		{[]string{"v=STSv1; id=1; =x"}, "", false, true},
		{[]string{"v=STSv1; id=1; x="}, "", false, true},
		{[]string{"v=STSv1; id=1; x=\x00"}, "", false, true},
	} {
		id, found, err := ParseRecord(test.txts)
		if id != test.id || found != test.found || (err != nil) != test.fails {
			t.Errorf("%q: %q, %v, %v", test.txts, id, found, err)
		}
	}
}

func TestStrings(t *testing.T) {
	seen := map[string]bool{}
	for s := Unknown; s <= Kept; s++ {
		seen[s.String()] = true
	}
	for f := NoFailure; f <= WebPKIInvalid; f++ {
		seen[f.String()] = true
	}
	for m := None; m <= Enforce; m++ {
		seen[m.String()] = true
	}
	if len(seen) != 8+4+3 {
		t.Errorf("%v", seen)
	}
	for _, s := range []fmt.Stringer{Status(-1), Failure(9), Mode(9)} {
		if !strings.HasSuffix(s.String(), ")") {
			t.Errorf("%v", s)
		}
	}
}
