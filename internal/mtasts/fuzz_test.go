package mtasts

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(enforce), "mx.example.com")
	f.Add([]byte("version: STSv1\nmode: testing\nmx: *.example.com\nmx: b\u00fccher.example\nmax_age: 1\nx: y\n"), "a.b.example.com")
	f.Add([]byte("version: STSv1\nmode: none\nmax_age: 0031557600"), "")
	f.Fuzz(func(t *testing.T, body []byte, host string) {
		p, err := Parse(body)
		if err != nil {
			if !reflect.DeepEqual(p, Policy{}) || len(err.Error()) > 1000 {
				t.Fatalf("%+v, %v", p, err)
			}
			return
		}
		if len(body) > maxBody || len(p.MX) > maxPatterns || p.MaxAge < 0 || p.MaxAge > maxMaxAge*time.Second ||
			p.Mode != None && len(p.MX) == 0 {
			t.Fatalf("%+v", p)
		}
		again, err := Parse([]byte(p.String()))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%q is printed as %q: %v", body, p, err)
		}
		labels := map[int]bool{}
		for _, pattern := range p.MX {
			labels[strings.Count(pattern, ".")] = true
			name := strings.Replace(pattern, "*", "any", 1)
			one := Policy{MX: []string{pattern}}
			if !one.Matches(name) || !one.Matches(strings.ToUpper(name)+".") {
				t.Fatalf("%q does not match %q", pattern, name)
			}
			for _, other := range []string{"a." + name, "." + name, strings.TrimPrefix(pattern, "*"), strings.TrimPrefix(pattern, "*.")} {
				if other != pattern && one.Matches(other) {
					t.Fatalf("%q matches %q", pattern, other)
				}
			}
		}
		ascii := !strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 })
		if p.Matches(host) && ascii && !labels[strings.Count(strings.TrimSuffix(host, "."), ".")] {
			t.Fatalf("%q matches one of %q across a dot", host, p.MX)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=1;", "v=spf1 -all")
	f.Add("v=STSv1; a=b; id=20160831085700Z", "v=STSv1; id=2")
	f.Add("v=STSv1;; id=1", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		id, found, err := ParseRecord([]string{a, b})
		if found != isID(id) || found && err != nil {
			t.Fatalf("%q, %v, %v", id, found, err)
		}
		records := 0
		for _, txt := range []string{a, b} {
			if strings.HasPrefix(txt, "v=STSv1;") {
				records++
			}
		}
		if (records == 0) != (!found && err == nil) || records > 1 && err == nil {
			t.Fatalf("%d records: %q, %v, %v", records, id, found, err)
		}
		if found && !strings.Contains(a+b, "id="+id) {
			t.Fatalf("the id %q is nowhere", id)
		}
		if swapped, _, _ := ParseRecord([]string{b, a}); swapped != id {
			t.Fatalf("%q, and %q the other way round", id, swapped)
		}
	})
}
