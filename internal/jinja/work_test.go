package jinja

import (
	"strings"
	"testing"
)

// TestWorkIsBounded: what looks like little and is much is refused before it is done. None of these ends in
// minutes if it is not.
func TestWorkIsBounded(t *testing.T) {
	long := strings.Repeat("ü", 200<<10)
	set := strings.Repeat("ļ", 200<<10) + "ü" // its last byte is that of an ü
	list := make([]any, 1000)
	for _, tt := range []struct {
		name, source string
		fine         bool
	}{
		{"a list of lists of one list", "{% set a = ['x'] %}" + strings.Repeat("{% set a = [a, a] %}", 40) + "{{ a }}", false},
		{"a map of maps of one map", "{% set a = {'k': 'x'} %}" + strings.Repeat("{% set a = {'k': a, 'l': a} %}", 40) + "{{ a }}", false},
		{"a long text without the characters of another", "{{ long|trim(set) }}", true},
		{"strip", "{{ long.strip(set) }}", true},
		{"the last character", "{% for a in list %}{% for b in list[:100] %}{% if long[-1] == 'x' %}{% endif %}{% endfor %}{% endfor %}", false},
		{"last", "{% for a in list %}{% for b in list[:100] %}{% if long|last == 'x' %}{% endif %}{% endfor %}{% endfor %}", false},
		{"length", "{% for a in list %}{% for b in list[:100] %}{% if long|length == 1 %}{% endif %}{% endfor %}{% endfor %}", false},
		{"startswith", "{% for a in list %}{% for b in list[:100] %}{% if long.startswith(long) %}{% endif %}{% endfor %}{% endfor %}", false},
		{"endswith one of", "{% for a in list %}{% for b in list[:100] %}{% if long.endswith([set, long]) %}{% endif %}{% endfor %}{% endfor %}", false},
		{"a slice of nothing", "{% for a in list %}{% for b in list[:100] %}{% if long[5:5] %}{% endif %}{% endfor %}{% endfor %}", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			template, err := Compile(tt.source, []string{"long", "set", "list"})
			if err != nil {
				t.Fatal(err)
			}
			vars := map[string]any{"long": long, "set": set, "list": list}
			print := func(v any, defined bool) (string, error) { return "", nil }
			if _, err := template.Render(vars, print); (err == nil) != tt.fine || err != nil && !strings.Contains(err.Error(), "too much work") {
				t.Errorf("%.200v", err)
			}
		})
	}
}
