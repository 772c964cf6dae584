package jinja

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestRenderPrinting(t *testing.T) {
	print := func(v any, defined bool) (string, error) {
		if v == "refuse" {
			return "", errors.New("refused by the printer")
		}
		return fmt.Sprintf("<%v %T %v>", v, v, defined), nil
	}
	vars := map[string]any{
		"s": "x", "i": 5, "f": 1.5, "b": true, "l": []any{"a", int64(1)}, "m": map[string]any{"k": []any{nil}}, "no": "refuse",
	}
	for source, want := range map[string]string{
		"only text":                    "only text",
		"a{{ s }}b":                    "a<x string true>b",
		"{{ i }}{{ f }}{{ b }}":        "<5 int64 true><1.5 float64 true><true bool true>",
		"{{ l }}{{ m }}":               "<[a 1] []interface {} true><map[k:[<nil>]] map[string]interface {} true>",
		"{{ [s, i] }}":                 "<[x 5] []interface {} true>",
		"{{ none }}{{ nope }}":         "<<nil> <nil> true><<nil> <nil> false>",
		"{{ 'a' ~ nope }}":             "<a string true>",
		"{{ s if false }}|":            "|",
		"{% if b %}{{ s }}{% endif %}": "<x string true>",
	} {
		template, err := Compile(source, []string{"s", "i", "f", "b", "l", "m", "no", "nope"})
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := template.Render(vars, print)
		var out strings.Builder
		for _, p := range pieces {
			if p.Missing {
				t.Errorf("%s: %+v is missing", source, p)
			}
			out.WriteString(p.Text)
		}
		if err != nil || out.String() != want {
			t.Errorf("%s: %q, %v", source, out.String(), err)
		}
	}
	template, err := Compile("\n{{ no }}", []string{"no"})
	if err != nil {
		t.Fatal(err)
	}
	if pieces, err := template.Render(vars, print); err == nil || err.Error() != "line 2, column 1: refused by the printer" {
		t.Error(pieces, err)
	}
}
