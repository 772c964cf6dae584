package jinja

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// mailNames are the variables that exist in these tests; nosuch is one of
// them that never has a value.
var mailNames = []string{
	"meta", "queue", "campaign", "tenant", "domain", "routing_domain", "local_part", "domain_part", "email",
	"sender_local_part", "sender_domain_part", "sender_email", "empty", "n", "f", "yes", "list", "greek", "spaced", "nosuch",
}

func mailVars() map[string]any {
	return map[string]any{
		"meta": map[string]any{
			"user": "bob", "nil": nil, "n": int64(3), "f": 2.5, "b": false,
			"list": []any{"x", int64(7)}, "m": map[string]any{"k": "v"}, "odd key": "o",
		},
		"queue": "campaign:tenant@example.com", "campaign": nil, "tenant": nil, "domain": "example.com",
		"routing_domain": nil, "local_part": "John.Doe", "domain_part": "example.com", "email": "John.Doe@example.com",
		"sender_local_part": "", "sender_domain_part": "", "sender_email": "",
		"empty": "", "n": int64(5), "f": 1.5, "yes": true, "list": []any{"a", "b", "c"},
		"greek": "ΑΣ Σß", "spaced": "  x y  ",
	}
}

func compile(t testing.TB, source string) *Template {
	t.Helper()
	tpl, err := Compile(source, mailNames)
	if err != nil {
		t.Fatalf("Compile(%q): %v", source, err)
	}
	return tpl
}

// join puts pieces together; a missing one is shown as <names>.
func join(pieces []Piece) string {
	var b strings.Builder
	for _, p := range pieces {
		if p.Missing {
			fmt.Fprintf(&b, "<%s>", strings.Join(p.Names, ","))
		}
		b.WriteString(p.Text)
	}
	return b.String()
}

// rendering is a template and its output, with mailVars.
type rendering struct{ source, want string }

var renderings = []rendering{
	// Text and whitespace.
	{``, ``},
	{`/var/tmp/kumo-maildir`, `/var/tmp/kumo-maildir`},
	{`a{b}c { d } % }`, `a{b}c { d } % }`},
	{"x\n", "x"}, {"x\r\n", "x"}, {"x\r", "x"}, {"x\n\n", "x\n"}, {"{{ n }}\n", "5"},
	{"a {{- n -}} b", "a5b"}, {"a {{ n }} b", "a 5 b"}, {"a {{-n-}} b", "a5b"},
	{"a {{-1}} b", "a1 b"}, {"a {{ -1 }} b", "a -1 b"}, {"a {{+ n +}} b", "a 5 b"},
	{"a \u00a0{{- n -}}\u2003\u0085 b", "a5b"},
	{"{{ n -}}{# c #} x", "5 x"}, {"{{ n -}} {# c #} x", "5 x"}, {"{{ n -}}{{ n }} x", "55 x"},
	{"a {# c #} {{- n }}", "a 5"}, {"a {#- c -#} b", "ab"}, {"a {# c -#} b {#- d #} e", "a b e"},
	{"a {#-#} b", "a b"}, {"a {#--#} b", "ab"}, {"{##}x", "x"}, {"{#}#}x", "x"},
	{"{# {{ nosuch.a.b }} {% endraw %} #}x", "x"},
	{"{% if n -%} x {%- else -%} y {%- endif %} z", "x z"},
	{"{% raw %}{{ a }} {% if %} {# #}{% endraw %}", "{{ a }} {% if %} {# #}"},
	{"{%raw-%}  {{ a }}  {%- endraw -%}  b", "{{ a }}b"}, {"a  {%- raw %}  x{% endraw %}", "a  x"},
	{"{% raw %}{% raw %}{% endraw%}y", "{% raw %}y"}, {"{{ n -}}{% raw %} x {% endraw %} y", "5 x  y"},
	{"{% raw %}}}%}{% endraw %}{{ n }}{", "}}%}5{"},
	{"{{ '}}' }} {{ \"%}\" }}{% if '%}' %}a{% endif %}", "}} %}a"},
	{"{%if(n)%}x{%endif%}", "x"}, {"{{\n n\t| \r\n string }}", "5"},
	{"\x01{{ n }}\x01b", "\x015\x01b"},

	// The page's example and section 8 of the behaviour reference.
	{`/maildirs/{{ domain_part }}/{{ local_part }}`, `/maildirs/example.com/John.Doe`},
	{`/m/{{ tenant or 'x' }}`, `/m/x`},
	{`/m/{{ local_part.lower() }}`, `/m/john.doe`},
	{`/m/{{ email.split('@')[0] }}`, `/m/John.Doe`},
	{`/m/{{ local_part.startswith('J') }}`, `/m/true`},
	{`/m/{{ meta.get('user') }}`, `/m/bob`},
	{`{{ meta.f }} {{ 1.0 }} {{ yes }} {{ meta.b }}`, `2.5 1.0 true false`},

	// Literals.
	{`{{ true }} {{ True }} {{ false }} {{ 'a' 'b' "c" }}`, `true true false abc`},
	{`{{ 1e3 }} {{ 1.50 }} {{ 1e20 }} {{ 1e-7 }} {{ -0.0 }} {{ 007 }}`, `1000.0 1.5 100000000000000000000.0 0.0000001 -0.0 7`},
	{`{{ 'a\n\'\\\x41\u00e9\ud83d\ude00\/' }}`, "a\n'\\Aé😀/"},
	{`{{ [1,2,][1] }} {{ (1,2)[1] }} {{ ()|length }} {{ {'a':{'b':1}}.a.b}} {{ {'a':'x'}[list[0]] }}`, `2 2 0 1 x`},
	{`{{ {}|length }}`, `0`},

	// Attributes, subscripts, slices.
	{`{{ meta.user }} {{ meta['user'] }} {{ meta['odd key'] }} {{ meta.m.k }} {{ meta['m']['k'] }}`, `bob bob o v v`},
	{`{{ meta.list[1] }} {{ list[-1] }} {{ list[1.0] }}`, `7 c b`},
	{`{{ local_part[0] }}{{ local_part[-1] }} {{ greek[1] }}`, `Je Σ`},
	{`{{ local_part[:2] }} {{ local_part[5:] }} {{ local_part[-3:] }} {{ local_part[:-4] }} {{ greek[1:4] }}`, `Jo Doe Doe John Σ Σ`},
	{`{{ local_part[-99:] }} {{ local_part[:-99] }}| {{ local_part[2:1] }}| {{ local_part[none:2] }} {{ local_part[6:99] }}`, `John.Doe | | Jo oe`},
	{`{{ list[:2]|join }} {{ list[-2:]|join }} {{ [1,2,3][1:]|join }}`, `ab bc 23`},
	{`{{ meta.get('nosuch', 'd') }} {{ meta.get('user', 'd') }} {{ meta.get('m').get('k') }} {{ meta.get('user').upper() }}`, `d bob v BOB`},
	{`{{ email . upper ( ) [ 0 ] }}`, `J`},

	// Logic.
	{`{{ tenant or campaign or 'x' }} {{ nosuch or 'y' }} {{ empty or 'z' }} {{ local_part and 'v' }} {{ not empty }}`, `x y z v true`},
	{`{{ empty and 'z' }}| {{ 0 or 0.0 or [] or {} or 'q' }} {{ 1 and 'a' or 'b' }}`, `| q a`},
	{`{{ 1 if 0 else 2 }} {{ 'a' if false else 'b' if false else 'c' }} {{ n or nosuch.x }}`, `2 c 5`},
	{`{{ 'x' if false }}|{{ ('x' if false)|default('d') }}`, `|d`},
	{`{{ 's' or 'x' if yes else 'n' }}`, `s`},

	// Comparison.
	{`{{ 1 == 1.0 }} {{ '1' == 1 }} {{ true == 1 }} {{ tenant == none }} {{ nosuch == none }} {{ [1] == [1.0] }} {{ meta.m == {'k':'v'} }}`, `true false true true false true true`},
	{`{{ 1 < 2 }} {{ 1.5 >= 2 }} {{ 'a' < 'B' }} {{ 'é' > 'z' }} {{ 2 != 2 }}`, `true false false true false`},
	{`{{ 9007199254740993 == 9007199254740992.0 }} {{ 9007199254740993 > 9007199254740992.0 }}`, `false true`},
	{`{{ 'a' in 'abc' }} {{ 1 in 'a1' }} {{ 'a' in list }} {{ 'user' in meta }} {{ 'a' in nosuch }} {{ 'zz' not in list }} {{ 1 in [1.0] }}`, `true true true true false true true`},
	{`{{ not 'a' in list }} {{ not n == 4 }} {{ 'b' if domain in ['example.com', 'example.org'] else 'c' }}`, `false true b`},
	{`{{ n is defined }} {{ nosuch is undefined }} {{ tenant is none }} {{ tenant is defined }} {{ nosuch is none }} {{ meta.nil is defined }}`, `true true true true false true`},
	{`{{ n is string }} {{ email is string }} {{ n is number }} {{ 1.0 is integer }} {{ 1.0 is float }} {{ yes is boolean }} {{ yes is true }} {{ yes is false }}`, `false true true false true true true false`},
	{`{{ list is sequence }} {{ email is sequence }} {{ email is iterable }} {{ meta is mapping }} {{ n is odd }} {{ n is even }} {{ n is divisibleby 5 }} {{ n is divisibleby(2) }} {{ true is odd }} {{ tenant is iterable }}`, `true false true true true false true false true true`},
	{`{{ email is startingwith('J') }} {{ email is endingwith 'x' }} {{ n is in [5] }} {{ n is gt 4 }} {{ n is eq 5 and n is not ne 5 }}`, `true false true true true`},
	{`{{ n is not none and 'y' }} {{ not n is none }} {{ n ~ 1 is string }}`, `y true 5false`},
	{`{{ meta.a.b is defined }} {{ meta.a.b.c is undefined }} {{ meta.a['b']|default('d') }} {{ meta.a.b|d('e') }}`, `false true d e`},
	{`{{ meta.a is defined and meta.a.b }}`, `false`},

	// Operators.
	{`{{ 'a' ~ 1 ~ true ~ 1.0 }} {{ 'a' + 'b' }} {{ 'a' ~ 1 * 2 }}`, `a1true1.0 ab a2`},
	{`{{ 1 + 2 }} {{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }} {{ 1 - -1 }} {{ n-1 }} {{ n -1 }} {{ true + 1 }} {{ -n }} {{ -(n + 1) }} {{ 2 * 1.5 }}`, `3 5 2 2 4 4 2 -5 -6 3.0`},
	{`{{ 1/2 }} {{ 4/2 }} {{ 7//2 }} {{ -7//2 }} {{ -7%3 }} {{ 7 % -3 }} {{ 7 // -2 }}`, `0.5 2.0 3 -4 2 1 -3`},
	{`{{ 7.5//2 }} {{ -7.5 % 2 }} {{ 5.5 % -2 }} {{ -5.5 // 2 }} {{ 5.5 // -2 }}`, `3.0 -1.5 1.5 -3.0 -2.0`},
	{`{{ 'shard' ~ (local_part|length % 4) }} {{ -5|abs }} {{ (-5)|abs + 1 }}`, `shard0 5 6`},

	// Filters.
	{`{{ email|lower }} {{ email|upper }} {{ greek|lower }} {{ greek|upper }} {{ 'İǆ'|lower }}`, `john.doe@example.com JOHN.DOE@EXAMPLE.COM ας σß ΑΣ ΣSS i̇ǆ`},
	{`{{ 'hELLO wORLD'|capitalize }} {{ 'ßa'|capitalize }} {{ "o'neil-x ßy_z4a"|title }} {{ ''|capitalize }}`, `Hello world SSa O'Neil-X SSy_Z4a `},
	{`{{ spaced|trim }}| {{ 'xxaxx'|trim('x') }} {{ n|trim }} {{ spaced|trim(none) }}`, `x y| a 5 x y`},
	{`{{ email|replace('@', '_at_')|replace('.', '') }} {{ 'ab'|replace('', '-') }} {{ 'a1b'|replace(1, 2) }}`, `JohnDoe_at_examplecom -a-b- a2b`},
	{`{{ nosuch|default('x') }} {{ empty|default('x') }}| {{ empty|default('x', true) }} {{ tenant|d('x', true) }} {{ nosuch|default }}| {{ 0|default('x', true) }} {{ empty|default('x', none) }}|`, `x | x x | x |`},
	{`{{ email|first }} {{ email|last }} {{ list|first }} {{ list|last }}`, `J m a c`},
	{`{{ email|length }} {{ greek|length }} {{ list|count }} {{ meta.m|length }}`, `20 5 3 1`},
	{`{{ list|join }} {{ list|join(',') }} {{ 'abc'|join('-') }} {{ [1, true, 1.5]|join('/') }} {{ list|join(1) }}`, `abc a,b,c a-b-c 1/true/1.5 a1b1c`},
	{`{{ email|split('@')|first }} {{ (email|split('@'))[1] }} {{ 'a@b@c'|split('@', 1)|join('+') }} {{ 'a@b'|split('@', 0)|join }} {{ spaced|split|join('+') }} {{ spaced|split(none, 1)|join('+') }}|`, `John.Doe example.com a+b@c a@b x+y x+y  |`},
	{`{{ 'abc'|reverse }} {{ greek|reverse }} {{ list|reverse|join }}`, `cba ßΣ ΣΑ cba`},
	{`{{ '42'|int }} {{ '4.9'|int }} {{ 4.9|int }} {{ -4.9|int }} {{ true|int }} {{ '1e3'|int }} {{ '.5'|int }} {{ '+4'|int }}`, `42 4 4 -4 1 1000 0 4`},
	{`{{ '5'|float }} {{ 5|float }} {{ n|string }} {{ f|string }} {{ 'x'|bool }} {{ 'x'|safe }}`, `5.0 5.0 5 1.5 true x`},
	{`{{ -1.5|abs }} {{ 42.55|round }} {{ 42.55|round(1) }} {{ 2.5|round }} {{ -2.5|round }} {{ 5|round }} {{ 2.675|round(2) }} {{ 1234.5|round(-2) }}`, `1.5 43.0 42.6 3.0 -3.0 5 2.68 1200.0`},
	{`{{ 'abc'|list|last }} {{ nosuch|list|length }}`, `c 0`},
	{`{{ email | replace ( 'J' , 'j' , ) | lower() }}`, `john.doe@example.com`},

	// Methods.
	{`{{ 'ab'.upper() }} {{ 'aB c'.title() }} {{ 'aB'.capitalize() }} {{ spaced.strip() }}|{{ spaced.lstrip() }}|{{ spaced.rstrip() }}|{{ 'xyax'.strip('xy') }}`, `AB Ab C Ab x y|x y  |  x y|a`},
	{`{{ 'aaa'.replace('a','b',2) }} {{ 'ab'.replace('','-') }} {{ 'ab'.replace('','-',2) }} {{ 'ab'.replace('','-',0) }}`, `bba -a-b- -a-b ab`},
	{`{{ 'a@b@c'.split('@',1)[1] }} {{ 'a@b'.split('@')[-1] }} {{ ''.split('@')|length }} {{ ''.split()|length }} {{ 'a@b'.split('@',-1)|length }}`, `b@c b 1 0 2`},
	{`{{ domain.endswith(('.net', '.com')) }} {{ domain.startswith(['x', 'y']) }} {{ 'abab'.count('ab') }} {{ '/'.join(['a', 'b', 1]) }} {{ '/'.join('abc') }}`, `true false 2 a/b/1 a/b/c`},
	{`{{ '12'.isdigit() }} {{ '½'.isdigit() }} {{ 'aß'.isalpha() }} {{ 'a1'.isalnum() }} {{ 'aß'.isascii() }} {{ 'a1'.islower() }} {{ 'AB'.isupper() }} {{ ' '.isspace() }} {{ ''.isdigit() }} {{ '7'.isnumeric() }}`, `true true true true false false true true true true`},

	// Statements.
	{`{% if tenant %}{{ tenant }}{% elif campaign %}c{% else %}none{% endif %}/x`, `none/x`},
	{`{% if n == 5 %}five{% elif n == 6 %}six{% endif %}{% if nosuch %}y{% endif %}`, `five`},
	{`{% if n == 4 %}four{% elif n == 5 %}five{% elif nosuch.x %}six{% endif %}`, `five`},
	{`{% if n %}{% if empty %}a{% else %}b{% endif %}{% endif %}`, `b`},
	{`{% if empty %}{% endif %}{% if n %}{% else %}{% endif %}|`, `|`},
	{`{% for x in list %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}`, `a,b,c`},
	{`{% for c in local_part[:2] %}{{ c|lower }}/{% endfor %}{{ local_part }}`, `j/o/John.Doe`},
	{`{% for x in [] %}{{ x }}{% else %}none{% endfor %}{% for x in nosuch %}x{% endfor %}{% for x in tenant %}x{% else %}E{% endfor %}`, `noneE`},
	{`{% for x in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.length }} {% endfor %}`, `1032true3 2121false3 3210false3 `},
	{`{% for x in [1, 2] %}{% for y in list %}{{ x }}{{ y }}{{ loop.index }}{% endfor %}{{ loop.index }},{% endfor %}`, `1a11b21c31,2a12b22c32,`},
	{`{% for n in list %}{{ n }}{% endfor %}{{ n }}`, `abc5`},
	{`{% set x = local_part|lower %}{{ x }}/{{ x[:1] }}{% set x = x ~ n %}/{{ x }}`, `john.doe/j/john.doe5`},
	{`{% set local_part = local_part|upper %}{{ local_part }}`, `JOHN.DOE`},
	{`{% if empty %}{% set n = 1 %}{% endif %}{{ n }}`, `5`},
	{`{% if n %}{% set q = 'a' %}{% else %}{% set q = 'b' %}{% endif %}{{ q }}`, `a`},
	{`{% set m = {'example.com': 'one'} %}{{ m[domain] }}/{{ m['x']|default('two') }}`, `one/two`},

	// None and undefined, printed.
	{`{{ tenant }}|{{ nosuch }}|{{ meta.nosuch }}|{{ meta.nil }}|{{ none }}`, `<tenant>|<nosuch>|<meta.nosuch>|<meta.nil>|<>`},
	{`{{ tenant|default('x') }} {{ meta.get('zz') }} {{ meta.get('nil', 'd') }}`, `<tenant> <meta.zz> <meta.nil>`},
	{`{{ tenant|lower }} {{ nosuch|upper }} {{ tenant ~ 'x' }} {{ 'x' ~ nosuch }} {{ tenant|string|trim }}`, `<tenant> <nosuch> <tenant> <nosuch> <tenant>`},
	{`{{ tenant|lower|default('x', true) }} {{ nosuch|lower or 'x' }} {{ nosuch|lower|default('x', true) }}`, `<tenant> x x`},
	{`{{ list[9] }} {{ local_part[99] }} {{ local_part['x'] }} {{ local_part.x }} {{ n.x }} {{ tenant.x }} {{ meta[0] }} {{ empty|first }} {{ []|last }}`,
		`<list> <local_part> <local_part.x> <local_part.x> <n.x> <tenant.x> <meta> <empty> <>`},
	{`{{ ['a', none]|join('/') }} {{ ['a', nosuch]|join('/') }} {{ tenant|join }} {{ tenant|int }} {{ nosuch|float }} {{ tenant|int + 1 }} {{ tenant|reverse }}`,
		`<> <nosuch> <tenant> <tenant> <nosuch> <tenant> <tenant>`},
	{`{{ tenant|string|first }} {{ (tenant|string)[0] }} {{ (tenant|string)[:1] }} {{ tenant|string|replace('n', 'm') }} {{ 'n'|replace('n', tenant) }} {{ (tenant|string).upper() }} {{ (tenant|string).split('o')[0] }} {{ tenant|list|join }} {{ tenant[:1] }}`,
		`<tenant> <tenant> <tenant> <tenant> <tenant> <tenant> <tenant> <tenant> <tenant>`},
	{`{{ tenant|lower == 'none' }} {{ (tenant ~ '')|length }} {% if tenant|upper == 'NONE' %}y{% endif %}`, `true 4 y`},
	{`{% set x = tenant %}{{ x }}{% if empty %}{% set y = 1 %}{% endif %}{{ y }}`, `<tenant><>`},
	{`{{ tenant if yes }} {{ tenant if yes else 'x' }} {{ tenant and 'x' }}`, `<tenant,yes> <tenant,yes> <tenant>`},
	{`{% for x in [none] %}{{ x }}{% endfor %}`, `<>`},
}

func TestRender(t *testing.T) {
	for _, tt := range renderings {
		pieces, err := compile(t, tt.source).Execute(mailVars())
		if err != nil {
			t.Errorf("%q: %v", tt.source, err)
			continue
		}
		if got := join(pieces); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.source, got, tt.want)
		}
	}
}

func TestPieces(t *testing.T) {
	tests := []struct {
		source string
		want   []Piece
	}{
		{"/m/{{ domain_part }}/\n {{ local_part|lower ~ meta.get('user') }}/x", []Piece{
			{Text: "/m/", Line: 1, Column: 1},
			{Text: "example.com", Names: []string{"domain_part"}, Line: 1, Column: 4},
			{Text: "/\n ", Line: 1, Column: 21},
			{Text: "john.doebob", Names: []string{"local_part", "meta.user"}, Line: 2, Column: 2},
			{Text: "/x", Line: 2, Column: 43},
		}},
		{"é{{ 'a/b' }}{{ tenant }}", []Piece{
			{Text: "é", Line: 1, Column: 1},
			{Text: "a/b", Line: 1, Column: 2},
			{Missing: true, Names: []string{"tenant"}, Line: 1, Column: 13},
		}},
		{"{{ meta[local_part] or tenant or meta['odd key'].x or meta.m.get('k', queue) }}", []Piece{
			{Text: "v", Names: []string{"meta", "local_part", "tenant", "meta['odd key'].x", "meta.m.k", "queue"}, Line: 1, Column: 1},
		}},
		{"{% set p = '/a' %}{% set q = local_part %}{{ p }}{{ q.x or q }}{% for c in q[:1] %}{{ c }}{{ loop.index }}{% endfor %}", []Piece{
			{Text: "/a", Line: 1, Column: 43},
			{Text: "John.Doe", Names: []string{"local_part"}, Line: 1, Column: 50},
			{Text: "J", Names: []string{"local_part"}, Line: 1, Column: 84},
			{Text: "1", Line: 1, Column: 91},
		}},
		{"{% if n %}{% set n = email %}{% endif %}{{ n }}", []Piece{
			{Text: "John.Doe@example.com", Names: []string{"n", "email"}, Line: 1, Column: 41},
		}},
		{"  {{- n }}  {#- c #}x{{ empty }}", []Piece{
			{Text: "5", Names: []string{"n"}, Line: 1, Column: 3},
			{Text: "x", Line: 1, Column: 21},
			{Text: "", Names: []string{"empty"}, Line: 1, Column: 22},
		}},
	}
	for _, tt := range tests {
		got, err := compile(t, tt.source).Execute(mailVars())
		if err != nil {
			t.Errorf("%q: %v", tt.source, err)
			continue
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q:\n got %+v\nwant %+v", tt.source, got, tt.want)
		}
	}
}

func TestTemplateFacts(t *testing.T) {
	tests := []struct {
		source  string
		literal bool
		prefix  string
		names   []string
	}{
		{"", true, "", nil},
		{"/var/mail\n", true, "/var/mail", nil},
		{"/var{# c #}/mail{% raw %}/{{ x }}{% endraw %}", true, "/var/mail/{{ x }}", nil},
		{"/m/{{ domain_part }}/{{ local_part }}{{ domain_part }}", false, "/m/", []string{"domain_part", "local_part"}},
		{"/m/{# c #}a {%- if tenant or meta.x.y %}/{{ tenant }}{% endif %}", false, "/m/a", []string{"tenant", "meta.x.y"}},
		{"{% set x = email %}/m/{{ x }}", false, "", []string{"email"}},
	}
	for _, tt := range tests {
		tpl := compile(t, tt.source)
		if text, ok := tpl.Literal(); ok != tt.literal || ok && text != tt.prefix {
			t.Errorf("%q: Literal() = %q, %v", tt.source, text, ok)
		}
		if got := tpl.Prefix(); got != tt.prefix {
			t.Errorf("%q: Prefix() = %q, want %q", tt.source, got, tt.prefix)
		}
		if got := tpl.Names(); !reflect.DeepEqual(got, tt.names) {
			t.Errorf("%q: Names() = %q, want %q", tt.source, got, tt.names)
		}
		if tt.literal && tpl.engine != nil {
			t.Errorf("%q: a literal template has an engine", tt.source)
		}
	}
}

func TestRuntimeErrors(t *testing.T) {
	tests := []struct {
		source, want string
		names        []string
	}{
		{"a\n/{{ meta.a.b }}", `line 2, column 12: "meta.a" is undefined: it has no attribute "b"`, []string{"meta.a.b"}},
		{`{{ meta.a.b or 'x' }}`, `line 1, column 11: "meta.a" is undefined: it has no attribute "b"`, []string{"meta.a.b"}},
		{`{{ nosuch['a'] }}`, `line 1, column 10: "nosuch" is undefined: it has no items`, []string{"nosuch.a"}},
		{`{{ (tenant or nosuch).x }}`, `line 1, column 23: this is undefined: it has no attribute "x"`, []string{"tenant", "nosuch"}},
		{`{{ tenant.lower() }}`, `line 1, column 11: "tenant" is none: it has no method "lower"`, []string{"tenant"}},
		{`{{ meta.user.get('x') }}`, `line 1, column 14: "meta.user" is a string: it has no method "get"`, []string{"meta.user.x"}},
		{`{{ n.split('a') }}`, `line 1, column 6: "n" is a number: it has no method "split"`, []string{"n"}},
		{`{{ list }}`, `line 1, column 1: cannot print a list`, []string{"list"}},
		{`{{ meta }}`, `line 1, column 1: cannot print a map`, []string{"meta"}},
		{`{{ list|lower }}`, `line 1, column 9: cannot make text of a list`, []string{"list"}},
		{`{{ 'x' ~ meta }}`, `line 1, column 8: cannot make text of a map`, []string{"meta"}},
		{`{{ 1/0 }}`, `line 1, column 5: division by zero`, nil},
		{`{{ n//0 }}`, `line 1, column 5: division by zero`, []string{"n"}},
		{`{{ n%0.0 }}`, `line 1, column 5: division by zero`, []string{"n"}},
		{`{{ n is divisibleby 0 }}`, `line 1, column 9: division by zero`, []string{"n"}},
		{`{{ 9223372036854775807 + n }}`, `line 1, column 24: the result of "+" is too large`, []string{"n"}},
		{`{{ -9223372036854775807 - 2 }}`, `line 1, column 25: the result of "-" is too large`, nil},
		{`{{ 9223372036854775807 * -2 }}`, `line 1, column 24: the result of "*" is too large`, nil},
		{`{{ 1e308 * 10 }}`, `line 1, column 1: cannot print a number that is infinite or none`, nil},
		{`{{ 'a' + 1 }}`, `line 1, column 8: cannot apply "+" to a string and a number`, nil},
		{`{{ 'a' * 3 }}`, `line 1, column 8: cannot apply "*" to a string and a number`, nil},
		{`{{ n + tenant }}`, `line 1, column 6: cannot apply "+" to a number and none`, []string{"n", "tenant"}},
		{`{{ -email }}`, `line 1, column 4: cannot negate a string`, []string{"email"}},
		{`{{ '10' < 9 }}`, `line 1, column 9: cannot order a string and a number`, nil},
		{`{{ true < 2 }}`, `line 1, column 9: cannot order a boolean and a number`, nil},
		{`{% if tenant < 1 %}{% endif %}`, `line 1, column 14: cannot order none and a number`, []string{"tenant"}},
		{`{{ 'a' in tenant }}`, `line 1, column 8: none cannot contain anything`, []string{"tenant"}},
		{`{{ n[:2] }}`, `line 1, column 5: "n" is a number: it cannot be sliced`, []string{"n"}},
		{`{{ email['1':] }}`, `line 1, column 9: cannot slice by a string`, []string{"email"}},
		{`{{ email[1.5:] }}`, `line 1, column 9: cannot slice by a number`, []string{"email"}},
		{`{{ list[true] }}`, `line 1, column 8: cannot index with a boolean`, []string{"list"}},
		{`{{ tenant|first }}`, `line 1, column 11: none has no first item`, []string{"tenant"}},
		{`{{ meta|last }}`, `line 1, column 9: a map has no last item`, []string{"meta"}},
		{`{{ n|length }}`, `line 1, column 6: a number has no length`, []string{"n"}},
		{`{{ nosuch|length }}`, `line 1, column 11: an undefined value has no length`, []string{"nosuch"}},
		{`{{ n|join }}`, `line 1, column 6: a number is not a list`, []string{"n"}},
		{`{{ meta|join }}`, `line 1, column 9: a map is not a list`, []string{"meta"}},
		{`{{ n|reverse }}`, `line 1, column 6: cannot reverse a number`, []string{"n"}},
		{`{{ n|split('a') }}`, `line 1, column 6: cannot split a number`, []string{"n"}},
		{`{{ email|split('') }}`, `line 1, column 10: cannot split by an empty string`, []string{"email"}},
		{`{{ email|split(1) }}`, `line 1, column 10: the argument has to be a string, not a number`, []string{"email"}},
		{`{{ email.split('@', 'x') }}`, `line 1, column 10: the argument has to be a whole number, not a string`, []string{"email"}},
		{`{{ email|int }}`, `line 1, column 10: this string is no number`, []string{"email"}},
		{`{{ empty|int }}`, `line 1, column 10: this string is no number`, []string{"empty"}},
		{`{{ '0x10'|float }}`, `line 1, column 11: this string is no number`, nil},
		{`{{ 'inf'|float }}`, `line 1, column 10: this string is no number`, nil},
		{`{{ '1e30'|int }}`, `line 1, column 11: the number is too large for an integer`, nil},
		{`{{ list|int }}`, `line 1, column 9: cannot make a number of a list`, []string{"list"}},
		{`{{ email|abs }}`, `line 1, column 10: a string has no absolute value`, []string{"email"}},
		{`{{ email|round }}`, `line 1, column 10: cannot round a string`, []string{"email"}},
		{`{{ f|round(99) }}`, `line 1, column 6: cannot round to 99 digits`, []string{"f"}},
		{`{{ empty|default('x', 1) }}`, `line 1, column 10: the second argument of default has to be true or false`, []string{"empty"}},
		{`{{ email.replace('b', 1) }}`, `line 1, column 10: the argument has to be a string, not a number`, []string{"email"}},
		{`{{ email.startswith(1) }}`, `line 1, column 10: the argument has to be a string, not a number`, []string{"email"}},
		{`{{ email.startswith([1]) }}`, `line 1, column 10: the list has to hold strings, not a number`, []string{"email"}},
		{`{{ email.count('') }}`, `line 1, column 10: cannot count an empty string`, []string{"email"}},
		{`{% for x in n %}{% endfor %}`, `line 1, column 1: a number is not a list`, []string{"n"}},
		{`{% for x in meta %}{% endfor %}`, `line 1, column 1: cannot loop over a map`, []string{"meta"}},
		{`{% set x = nosuch.a %}`, `line 1, column 19: "nosuch" is undefined: it has no attribute "a"`, []string{"nosuch.a"}},
		{`{% if n %}{% for x in list %}{{ x.a.b }}{% endfor %}{% endif %}`, `line 1, column 37: this is undefined: it has no attribute "b"`, []string{"list"}},
	}
	for _, tt := range tests {
		pieces, err := compile(t, tt.source).Execute(mailVars())
		var failure *RuntimeError
		if !errors.As(err, &failure) {
			t.Errorf("%q: %q, %v, want %s", tt.source, join(pieces), err, tt.want)
			continue
		}
		if err.Error() != tt.want || !reflect.DeepEqual(failure.Names, tt.names) || pieces != nil {
			t.Errorf("%q:\n got %v (%q)\nwant %v (%q)", tt.source, err, failure.Names, tt.want, tt.names)
		}
		if content := strings.Contains(tt.want, "string is no number") || strings.Contains(tt.want, "for an integer"); failure.Content != content {
			t.Errorf("%q: Content is %v", tt.source, failure.Content)
		}
	}
}

func TestForeignValues(t *testing.T) {
	for _, x := range []any{struct{ A string }{"x"}, []string{"a"}, uint(1), &struct{}{}, func() string { return "x" }} {
		_, err := compile(t, "{{ n }}").Execute(map[string]any{"n": x})
		want := fmt.Sprintf("line 1, column 1: cannot print a value of Go type %T", x)
		if err == nil || err.Error() != want {
			t.Errorf("%T: %v, want %s", x, err, want)
		}
		// No method or field of a Go value is within reach.
		if _, err := compile(t, "{{ n.A.x }}").Execute(map[string]any{"n": x}); err == nil {
			t.Errorf("%T: n.A.x has no error", x)
		}
	}
}
