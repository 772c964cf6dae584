package main

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSplitAddresses(t *testing.T) {
	for _, test := range []struct {
		list string
		want []string
	}{
		{`a@x`, []string{`a@x`}},
		{`a@x,b@y`, []string{`a@x`, `b@y`}},
		{`"a,b"@x,c@y`, []string{`"a,b"@x`, `c@y`}},
		{`"a\",b"@x,c@y`, []string{`"a\",b"@x`, `c@y`}},
		{`"a\\",b@y`, []string{`"a\\"`, `b@y`}},
		{`a\,b@x`, []string{`a\`, `b@x`}},
		{`"open,never`, []string{`"open,never`}},
		{`"ends in\`, []string{`"ends in\`}},
		{`a@x,`, []string{`a@x`, ``}},
		{``, []string{``}},
	} {
		if got := splitAddresses(test.list); !slices.Equal(got, test.want) {
			t.Errorf("splitAddresses(%q) = %q, want %q", test.list, got, test.want)
		}
	}
}

func FuzzSplitAddresses(f *testing.F) {
	f.Add(`"a,b"@x,c@y`)
	f.Fuzz(func(t *testing.T, list string) {
		if got := strings.Join(splitAddresses(list), ","); got != list {
			t.Errorf("the parts of %q join to %q", list, got)
		}
	})
}

func TestMeta(t *testing.T) {
	o := &options{}
	for _, pair := range []string{
		"text=hello", "eq=a=b", "empty=", "int=42", "big=9007199254740993", "float=1.5", "yes=true", "none=null",
		`quoted="42"`, `list=[1,{"a":2}]`, "almost=1 2", "broken={",
	} {
		if err := o.addMeta(pair); err != nil {
			t.Errorf("-meta %s: %v", pair, err)
		}
	}
	want := map[string]any{
		"text": "hello", "eq": "a=b", "empty": "", "int": int64(42), "big": int64(9007199254740993), "float": 1.5,
		"yes": true, "none": nil, "quoted": "42", "list": []any{int64(1), map[string]any{"a": int64(2)}},
		"almost": "1 2", "broken": "{",
	}
	if !reflect.DeepEqual(o.meta, want) {
		t.Errorf("got %#v\nwant %#v", o.meta, want)
	}
	for _, pair := range []string{"nothing", "=value", ""} {
		if o.addMeta(pair) == nil {
			t.Errorf("-meta %q was taken", pair)
		}
	}
}

func TestUsageNamesEveryFlag(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{"-h"}, nil, &out, &errs); status != 0 || errs.Len() > 0 {
		t.Errorf("-h: status %d, stderr %q", status, &errs)
	}
	for _, name := range strings.Fields("policy config egress-path egress-source from to batch queue meta dns trust-ad ca n c timeout dry-run trace json") {
		if !strings.Contains(out.String(), "\n  -"+name) {
			t.Errorf("-%s is not in the usage", name)
		}
	}
}
