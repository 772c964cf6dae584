package jinja

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/flosch/pongo2/v6"
)

// TestNotAsPongo2 lists where the two dialects differ: each source comes out as
// minijinja has it. pongo2's own result is checked too, so that the list stays
// one of real differences.
func TestNotAsPongo2(t *testing.T) {
	tests := []struct{ source, pongo2, want string }{
		{`{{ tenant or 'x' }}`, `True`, `x`},
		{`{{ local_part and 'x' }}`, `True`, `x`},
		{`{{ local_part[0] }}`, `74`, `J`},
		{`{{ f }}`, `1.500000`, `1.5`},
		{`{{ 1.0 }}`, `1.000000`, `1.0`},
		{`{{ yes }}`, `True`, `true`},
		{`{{ 4 / 2 }}`, `2`, `2.0`},
		{`{{ meta.get('user') }}`, ``, `bob`},
		{`{{ email.split('@')[0] }}`, `panic`, `John.Doe`},
		{`{{ 1/0 }}`, `panic`, `error`},
		{`{{ 1 % 0 }}`, `panic`, `error`},
		{`{{ local_part.lower() }}`, `error`, `john.doe`},
		{`{{ nosuch }}`, ``, `<nosuch>`},
		{`{{ tenant }}`, ``, `<tenant>`},
		{`{{ meta.nosuch }}`, ``, `<meta.nosuch>`},
		{`{{ meta.a.b }}`, ``, `error`},
		{`{{ tenant|default('x') }}`, `error`, `<tenant>`},
		{`{{ email|replace('@', '-') }}`, `error`, `John.Doe-example.com`},
		{`{{ 'a' ~ 'b' }}`, `error`, `ab`},
		{`{{ nosuch is defined }}`, `error`, `false`},
		{`{{ 'a' if yes else 'b' }}`, `error`, `a`},
		{`{{ local_part[:2] }}`, `error`, `Jo`},
		{`{{ list[-1] }}`, ``, `c`},
		{`{{ "o'brien&co" }}`, `o&#39;brien&amp;co`, `o'brien&co`},
		{`{{ 'a' + 1 }}`, `a1`, `error`},
		{`{{ 'b' > 'a' }}`, `False`, `true`},
		{`{{ 1 == 1.0 }}`, `False`, `true`},
		{`{{ not yes or yes }}`, `True`, `true`},
		{`{{ list }}`, `<[]interface {} Value>`, `error`},
		{`{{ none }}`, ``, `<>`},
		{"x\n", "x\n", `x`},
		{`{% if meta.b == none %}a{% else %}b{% endif %}`, `b`, `b`},
		{`{% for c in greek[:1] %}{{ c }}{% endfor %}`, `error`, `Α`},
		{`{% for x in list %}{{ x }}{% else %}{% endfor %}`, `error`, `abc`},
		{"{{ email\n }}", `error`, `John.Doe@example.com`},
		{"{# a\nb #}x", `error`, `x`},
		{`{{ '\n' }}|`, `error`, "\n|"},
		{"a\x01b{{ n }}", "a\x01", "a\x01b5"},
	}
	for _, tt := range tests {
		if got := bare(tt.source); got != tt.pongo2 {
			t.Errorf("%q: pongo2 renders %q, not %q", tt.source, got, tt.pongo2)
		}
		pieces, err := compile(t, tt.source).Execute(mailVars())
		got := join(pieces)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("%q: got %q (%v), want %q", tt.source, got, err, tt.want)
		}
	}
}

// bare renders with pongo2 alone.
func bare(source string) (out string) {
	defer func() {
		if recover() != nil {
			out = "panic"
		}
	}()
	tpl, err := pongo2.NewSet("bare", noFiles{}).FromString(source)
	if err != nil {
		return "error"
	}
	out, err = tpl.Execute(mailVars())
	if err != nil {
		return "error"
	}
	return out
}

// TestWithAndWithoutEngine: a template does the same within a loop, which needs
// the engine, as it does without.
func TestWithAndWithoutEngine(t *testing.T) {
	compared := 0
	for _, tt := range renderings {
		looped, err := Compile("{% for once in [1] %}"+tt.source+"{% endfor %}", append([]string{"once"}, mailNames...))
		if err != nil || strings.Contains(tt.source, "-}}") || strings.HasSuffix(tt.source, "\n") || strings.HasSuffix(tt.source, "\r") || strings.Contains(tt.source, "loop.") {
			continue // {% set %}, or what the tag beside it changes
		}
		pieces, err := looped.Execute(mailVars())
		if got := join(pieces); err != nil || got != tt.want || looped.engine == nil {
			t.Errorf("%q in a loop: %q, %v, want %q", tt.source, got, err, tt.want)
		}
		compared++
	}
	if compared < len(renderings)/2 {
		t.Errorf("only %d of %d compared", compared, len(renderings))
	}
}

func TestEngineIsFencedIn(t *testing.T) {
	set := pongo2.NewSet("jinja", noFiles{})
	for _, tag := range bannedTags {
		if err := set.BanTag(tag); err != nil {
			t.Errorf("pongo2 has no tag %q to ban: %v", tag, err)
		}
	}
	for _, source := range []string{
		`{% include '/etc/hostname' %}`, `{% ssi '/etc/hostname' %}`, `{% import '/etc/hostname' x %}`,
		`{% extends '/etc/hostname' %}`, `{% lorem 3 %}`, `{% now 'x' %}`, `{% with a=1 %}{% endwith %}`,
	} {
		_, err := newSet().FromString(source)
		if err == nil || !strings.Contains(err.Error(), "not allowed") {
			t.Errorf("%s: %v, want a ban", source, err)
		}
	}
	if _, err := newSet().FromFile("/etc/hostname"); err == nil {
		t.Error("the set finds files")
	}
	if pongo2.FilterExists("split_jinja") || pongo2.FilterExists("trim") {
		t.Error("a filter was registered for the whole process")
	}
}

// hostile are values that would mean something if anybody read them as a
// template, as HTML or as a pattern.
var hostile = []string{
	"{{ 7*7 }}", "{% include '/etc/passwd' %}", "{% endif %}", "{# x", "{% raw %}", "}}", "%}", "#}", "x(0)", "{{ x(0) }}",
	"<b>&'\"", "%s%d", "\x00", "\x01", "\xff\xfe", "a\nb", "../../etc", "$1", `\1`, "{", "}", "",
}

func TestValuesAreData(t *testing.T) {
	tpl := compile(t, "/m/{{ local_part }}/{% if local_part == email %}{{ email or '-' }}{% endif %}"+
		"{% for x in [local_part] %}{{ x }}{% endfor %}{{ local_part|string|replace('nothing', '') ~ '' }}!")
	for _, s := range hostile {
		pieces, err := tpl.Execute(map[string]any{"local_part": s, "email": s})
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		orDash := s
		if s == "" {
			orDash = "-"
		}
		if got, want := join(pieces), "/m/"+s+"/"+orDash+s+s+"!"; got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestExecuteLeavesValuesAlone(t *testing.T) {
	vars, before := mailVars(), mailVars()
	source := "{% set list = list|reverse %}{% for x in list %}{{ x }}{% endfor %}{{ meta.list[:1]|join }}{{ meta.m|default({})|length }}"
	if _, err := compile(t, source).Execute(vars); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(vars, before) {
		t.Errorf("the values have changed: %v", vars)
	}
}

func TestLiteralPiecesAreTheCallers(t *testing.T) {
	tpl := compile(t, "/var/mail")
	first, _ := tpl.Execute(nil)
	first[0].Text = "/etc"
	if second, _ := tpl.Execute(nil); join(second) != "/var/mail" {
		t.Errorf("a caller changed the template to %q", join(second))
	}
}

func TestLimits(t *testing.T) {
	long := make([]any, 100_000)
	for i := range long {
		long[i] = "x"
	}
	var deep any = "x"
	for range 1000 {
		deep = []any{deep}
	}
	vars := map[string]any{"email": strings.Repeat("x", 40_000), "list": long, "nosuch": deep, "queue": strings.Repeat("x", 4<<20)}
	const (
		tooLong = "the output is longer than 65536 bytes"
		tooMuch = "the template makes too much work of these values"
	)
	double := "{% set x = email %}"
	for range 30 {
		double += "{% set x = x ~ x %}"
	}
	tests := []struct{ source, want string }{
		{"{{ email }}{{ email }}", "line 1, column 12: " + tooLong},
		{"{% for x in list %}0123456789{% endfor %}", "line 1, column 20: " + tooLong},
		{"{% for x in list %}{% for y in list %}{% endfor %}{% endfor %}", "line 1, column 20: " + tooMuch},
		{"{% for x in list %}{% if x == 'y' %}{% endif %}{% if x == 'z' %}{% endif %}{% endfor %}", tooMuch},
		{double, tooMuch},
		{"{{ email|replace('x', email) }}", "line 1, column 10: " + tooMuch},
		{"{{ email.replace('', email) }}", "line 1, column 10: " + tooMuch},
		{"{{ list|join(email) }}", "line 1, column 9: " + tooMuch},
		{"{{ queue|lower }}", "line 1, column 10: " + tooMuch},
		{"{% for x in queue %}{% endfor %}", "line 1, column 1: " + tooMuch},
		{"{{ nosuch == nosuch }}", "the values nest too deeply to be compared"},
	}
	for _, tt := range tests {
		_, err := compile(t, tt.source).Execute(vars)
		if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%.80q: %v, want %s", tt.source, err, tt.want)
		}
	}
	// What is not printed as a whole may be long.
	pieces, err := compile(t, "{{ queue[:2] }}{{ list|length }}").Execute(vars)
	if err != nil || join(pieces) != "xx100000" {
		t.Errorf("a slice of a long value: %q, %v", join(pieces), err)
	}
}

func TestConcurrentExecute(t *testing.T) {
	tpl := compile(t, "/m/{% if n % 2 == 0 %}even{% else %}odd{% endif %}/{% for x in list %}{{ x }}{{ loop.index }}{% else %}-{% endfor %}"+
		"{% set y = local_part|lower %}/{{ y }}/{{ tenant or 'none' }}")
	shared := mailVars()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			vars := maps.Clone(shared)
			vars["n"] = int64(g)
			vars["local_part"] = fmt.Sprint("User", g)
			vars["list"] = shared["list"].([]any)[:g%3]
			want := fmt.Sprintf("/m/%s/%s/user%d/none", []string{"even", "odd"}[g%2], []string{"-", "a1", "a1b2"}[g%3], g)
			for range 200 {
				pieces, err := tpl.Execute(vars)
				if got := join(pieces); err != nil || got != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestBigTemplates has the largest sources of shapes that could cost more than
// their length: each compiles and executes, or is refused.
func TestBigTemplates(t *testing.T) {
	fill := func(begin, part, end string) string {
		return begin + strings.Repeat(part, (maxSource-len(begin)-len(end))/len(part)) + end
	}
	var distinct strings.Builder
	for i := 0; distinct.Len() < maxSource-20; i++ {
		fmt.Fprintf(&distinct, "{{meta.a%d}}", i)
	}
	var chain strings.Builder // every variable is made from all that came before
	chain.WriteString("{% set x = 1 %}")
	for i := 0; chain.Len() < maxSource-40; i++ {
		fmt.Fprintf(&chain, "{%%set x=x~meta.a%d%%}", i)
	}
	for _, source := range []string{
		chain.String(), fill("{{ 1", "+1", " }}"), fill("{{ n", "~n", " }}"), fill("{{ n", " or n", " }}"), fill("{{ [", "n,", "] }}"),
		fill("{{ {", "'a':n,", "} }}"), fill("{{ 1", " if n", " }}"), fill("{{ n ", "'a'", " }}"), fill("{{ ", "'a'", " }}"),
		fill("{% if n == 1 %}", "{% elif n %}", "{% endif %}"), fill("", "{% if n %}{% endif %}", ""), fill("", "{{n}}", ""),
		fill("", "{##}", ""), fill("", "{% raw %}", ""), fill("", "{% raw %}{% endraw %}", ""), fill("", "{", ""),
		fill("{{ '", "\\n", "' }}"), fill("", "{% set x = n %}", "{{ x }}"), fill("", "\n", "{{ n }}"), distinct.String(),
		fill("{{ ", "-", " }}"), fill("{{ ", "[", " }}"), fill("{{ ", "{", " }}"), fill("{% for x in list %}", "{{ x }}", "{% endfor %}"),
	} {
		tpl, err := Compile(source, mailNames)
		if err != nil {
			continue
		}
		if pieces, err := tpl.Execute(mailVars()); err != nil && strings.Contains(err.Error(), "engine") {
			t.Errorf("%.60q: %d pieces, %v", source, len(pieces), err)
		}
	}
}

// FuzzExecute checks that values come out as they went in and change nothing
// around them.
func FuzzExecute(f *testing.F) {
	for i, s := range hostile {
		f.Add(s, hostile[len(hostile)-1-i], i%2 == 0, int64(i), 0.5)
	}
	tpl := compile(f, "/m/{{ domain_part }}/{% if yes %}{{ local_part }}{% else %}{{ n }}{% endif %}"+
		"/{% for x in list %}{{ x }},{% endfor %}{{ f }}{{ (local_part ~ '@' ~ domain_part)[local_part|length:][1:] }}"+
		"{{ local_part|list|join }}|{{ tenant or 'none' }}")
	f.Fuzz(func(t *testing.T, local, domain string, yes bool, n int64, fl float64) {
		number, ok := formatFloat(fl)
		pieces, err := tpl.Execute(map[string]any{
			"local_part": local, "domain_part": domain, "yes": yes, "n": n, "f": fl, "list": []any{local, n}, "tenant": nil,
		})
		if len(local)+len(domain) > 4096 || !ok {
			return // the limits, or no number to print
		}
		if err != nil {
			t.Fatalf("%q, %q: %v", local, domain, err)
		}
		middle := local
		if !yes {
			middle = fmt.Sprint(n)
		}
		want := fmt.Sprintf("/m/%s/%s/%s,%d,%s%s%s|none", domain, middle, local, n, number, domain, local)
		if got := join(pieces); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		for _, p := range pieces {
			if p.Names == nil && !strings.Contains("/m//|,@none", p.Text) {
				t.Fatalf("%q is no text of the template", p.Text)
			}
		}
	})
}
