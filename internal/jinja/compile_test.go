package jinja

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCompileErrors(t *testing.T) {
	tests := []struct{ source, want string }{
		// Names.
		{`/m/{{ x }}/{{ locl_part }}`, `line 1, column 7: unknown variable "x"`},
		{`/maildir/{{ locl_part }}`, `line 1, column 13: unknown variable "locl_part" (did you mean "local_part"?)`},
		{"é\n é{{ Tenant }}", `line 2, column 6: unknown variable "Tenant" (did you mean "tenant"?)`},
		{`{{ x }}{% set x = 1 %}`, `line 1, column 4: unknown variable "x"`},
		{`{% set x = x %}`, `line 1, column 12: unknown variable "x"`},
		{`{% set prefix = 1 %}{{ prefx }}`, `line 1, column 24: unknown variable "prefx" (did you mean "prefix"?)`},
		{`{% for x in list %}{% else %}{{ x }}{% endfor %}`, `line 1, column 33: unknown variable "x"`},
		{`{% for x in list %}{% endfor %}{{ x }}`, `line 1, column 35: unknown variable "x"`},
		{`{% for x in x %}{% endfor %}`, `line 1, column 13: unknown variable "x"`},
		{`{{ self }}`, `line 1, column 4: unknown variable "self"`},
		{`{{ TRUE }}`, `line 1, column 4: unknown variable "TRUE"`},
		{`{{ pongo2.version }}`, `line 1, column 4: unknown variable "pongo2"`},
		{`{{ forloop.Counter }}`, `line 1, column 4: unknown variable "forloop"`},

		// What is never closed, or never opened.
		{`/m/{{ email`, `line 1, column 4: "{{" is never closed by "}}"`},
		{`/m/{{ email }`, `line 1, column 13: unexpected "}", expected "}}"`},
		{`/m/{{ email %}`, `line 1, column 13: unexpected "%}", expected "}}"`},
		{`/m/{{ email } }`, `line 1, column 13: unexpected "}", expected "}}"`},
		{`{% if email }}`, `line 1, column 13: unexpected "}}", expected "%}"`},
		{`{% if email`, `line 1, column 1: "{%" is never closed by "%}"`},
		{`x{{ 'a }}`, `line 1, column 5: string is never closed by '`},
		{`x{{ "a\`, `line 1, column 5: string is never closed by "`},
		{`x{# a`, `line 1, column 2: comment {# is never closed`},
		{`{#}`, `line 1, column 1: comment {# is never closed`},
		{`{{ {'a': 1 }}`, `line 1, column 13: unexpected "}", expected "}}"`},
		{`{% raw %}x`, `line 1, column 1: {% raw %} without {% endraw %}`},
		{`x{% endraw %}`, `line 1, column 5: {% endraw %} without {% raw %}`},
		{`{% raw x %}{% endraw %}`, `line 1, column 4: {% raw %} takes no arguments`},
		{`{ email }}/x`, `line 1, column 9: "}}" closes nothing; write {{ "}}" }} to print it`},
		{`email %}`, `line 1, column 7: "%}" closes nothing; write {{ "%}" }} to print it`},
		{"{{ email }}\n #}", `line 2, column 2: "#}" closes nothing; write {{ "#}" }} to print it`},
		{`{% if email %}x`, `line 1, column 1: {% if %} without {% endif %}`},
		{`{% if email %}x{% else %}`, `line 1, column 1: {% if %} without {% endif %}`},
		{`{% for x in list %}`, `line 1, column 1: {% for %} without {% endfor %}`},
		{`{% for x in list %}{% else %}`, `line 1, column 1: {% for %} without {% endfor %}`},
		{`{% endif %}`, `line 1, column 1: {% endif %} without its beginning`},
		{`a{% else %}`, `line 1, column 2: {% else %} without its beginning`},
		{`{% if email %}{% for x in list %}{% endif %}`, `line 1, column 37: unexpected "endif", expected "endfor"`},
		{`{% for x in list %}{% elif x %}{% endfor %}`, `line 1, column 23: unexpected "elif", expected "endfor"`},
		{`{% if email %}{% else %}{% elif n %}{% endif %}`, `line 1, column 28: unexpected "elif", expected "endif"`},
		{`{% if email %}{% else if n %}{% endif %}`, `line 1, column 23: unexpected "if" after "else"`},
		{`{% if email %}{% endif email %}`, `line 1, column 24: unexpected "email" after "endif"`},

		// Tags.
		{`{% %}`, `line 1, column 1: the tag is empty`},
		{`{% 1 %}`, `line 1, column 4: unexpected "1", expected the name of a tag`},
		{`{% if %}{% endif %}`, `line 1, column 7: unexpected "%}", expected an expression`},
		{`{% fi email %}`, `line 1, column 4: tag "fi" is not supported`},
		{`{% include 'x' %}`, `line 1, column 4: tag "include" is not supported`},
		{`{% include '/etc/passwd' %}`, `line 1, column 4: tag "include" is not supported`},
		{`{% ssi '/etc/passwd' %}`, `line 1, column 4: tag "ssi" is not supported`},
		{`{% import 'x' as y %}`, `line 1, column 4: tag "import" is not supported`},
		{`{% extends 'x' %}`, `line 1, column 4: tag "extends" is not supported`},
		{`{% lorem 300000 %}`, `line 1, column 4: tag "lorem" is not supported`},
		{`{% cycle 'a' 'b' %}`, `line 1, column 4: tag "cycle" is not supported`},
		{`{% autoescape on %}{% endautoescape %}`, `line 1, column 4: tag "autoescape" is not supported`},
		{`{% endautoescape %}`, `line 1, column 4: tag "endautoescape" is not supported`},
		{`{% verbatim %}{% endverbatim %}`, `line 1, column 4: tag "verbatim" is not supported`},
		{`{% macro f() %}{% endmacro %}`, `line 1, column 4: tag "macro" is not supported`},
		{`{% set x %}a{% endset %}`, `line 1, column 1: {% set %} as a block is not supported`},
		{`{% set x, y = list %}`, `line 1, column 9: {% set %} of anything but one variable is not supported`},
		{`{% set meta.x = 1 %}`, `line 1, column 12: {% set %} of anything but one variable is not supported`},
		{`{% set true = 1 %}`, `line 1, column 8: "true" is reserved`},
		{`{% set loop = 1 %}`, `line 1, column 8: "loop" is reserved`},
		{`{% set 1 = 1 %}`, `line 1, column 8: unexpected "1", expected the name of a variable`},
		{`{% set x = %}`, `line 1, column 12: unexpected "%}", expected an expression`},
		{`{% set x = 1, 2 %}`, `line 1, column 13: unexpected ",", expected "%}"`},
		{`{% for x in list %}{% set y = x %}{% endfor %}`, `line 1, column 20: {% set %} inside {% for %} is not supported`},
		{`{% for k, v in list %}{% endfor %}`, `line 1, column 9: more than one variable in {% for %} is not supported`},
		{`{% for x list %}{% endfor %}`, `line 1, column 10: unexpected "list", expected "in"`},
		{`{% for x in list if x %}{% endfor %}`, `line 1, column 18: a condition in {% for %} is not supported; write {% if %} inside`},
		{`{% for x in list recursive %}{% endfor %}`, `line 1, column 18: unexpected "recursive", expected "%}"`},
		{`{% for x in list %}{% break %}{% endfor %}`, `line 1, column 23: tag "break" is not supported`},
		{`{{ loop.index }}`, `line 1, column 4: "loop" stands outside {% for %}`},
		{`{% for x in list %}{{ loop }}{% endfor %}`, `line 1, column 28: unexpected "}}", expected "."`},
		{`{% for x in list %}{{ loop.cycle(1) }}{% endfor %}`, `line 1, column 28: "loop.cycle" is not supported`},
		{`{% for x in list %}{{ loop.ndex }}{% endfor %}`, `line 1, column 28: "loop.ndex" is not supported (did you mean "index"?)`},

		// Expressions.
		{`{{ }}`, `line 1, column 4: unexpected "}}", expected an expression`},
		{`{{ email email }}`, `line 1, column 10: unexpected "email", expected "}}"`},
		{`{{ email 'x' }}`, `line 1, column 10: unexpected string, expected "}}"`},
		{`{{ not }}`, `line 1, column 8: unexpected "}}", expected an expression`},
		{`{{ email and }}`, `line 1, column 14: unexpected "}}", expected an expression`},
		{`{{ if }}`, `line 1, column 4: unexpected "if", expected an expression`},
		{`{{ (email }}`, `line 1, column 11: unexpected "}}", expected ")"`},
		{`{{ [1 2] }}`, `line 1, column 7: unexpected "2", expected "," or "]"`},
		{`{{ email[] }}`, `line 1, column 10: unexpected "]", expected an expression`},
		{`{{ email[0 }}`, `line 1, column 12: unexpected "}}", expected "]"`},
		{`{{ email[0:1:2] }}`, `line 1, column 13: a slice with a step is not supported`},
		{`{{ list.0 }}`, `line 1, column 9: a number after "." is not supported; write [0]`},
		{`{{ meta.'a' }}`, `line 1, column 9: unexpected string, expected a name`},
		{`{{ 1.lower }}`, `line 1, column 4: malformed number "1."`},
		{`{{ 0x10 }}`, `line 1, column 4: malformed number "0x"`},
		{`{{ 1_000 }}`, `line 1, column 4: malformed number "1_"`},
		{`{{ 1a }}`, `line 1, column 4: malformed number "1a"`},
		{`{{ 9223372036854775808 }}`, `line 1, column 4: number 9223372036854775808 is too large`},
		{`{{ 1e999 }}`, `line 1, column 4: number 1e999 is too large`},
		{`{{ '\q' }}`, `line 1, column 5: unknown escape \q in a string; a backslash is written \\`},
		{`{{ '\ud83d' }}`, `line 1, column 5: unknown escape \u in a string; a backslash is written \\`},
		{`{{ '\x4' }}`, `line 1, column 5: unknown escape \x in a string; a backslash is written \\`},
		{`{{ ö }}`, `line 1, column 4: unexpected character 'ö'`},
		{`{{ $x }}`, `line 1, column 4: unexpected character '$'`},
		{"{{ n\u00a0}}", `line 1, column 5: unexpected character '\u00a0'`},
		{`{{ +5 }}`, `line 1, column 4: unexpected "+", expected an expression`},
		{`{{ -list[0] }}`, `line 1, column 4: put what the minus sign stands for in parentheses`},
		{`{{ - -5 }}`, `line 1, column 6: unexpected "-", expected an expression`},
		{`{{ 2 ** 3 }}`, `line 1, column 6: operator "**" is not supported`},
		{`{{ 1 < n < 3 }}`, `line 1, column 10: comparisons in a chain are not supported; write a < b and b < c`},
		{`{{ n not 3 }}`, `line 1, column 10: unexpected "3", expected "in"`},
		{`{{ n = 3 }}`, `line 1, column 6: unexpected "="; a comparison is written "=="`},
		{`{{ {n: 1} }}`, `line 1, column 5: a key in a map has to be a string literal`},
		{`{{ range(3) }}`, `line 1, column 4: function "range" is not supported`},
		{`{{ email() }}`, `line 1, column 4: function "email" is not supported`},
		{`{{ email['lower']() }}`, `line 1, column 18: only methods can be called`},
		{`{{ meta.user() }}`, `line 1, column 9: method "user" is not supported`},
		{`{{ email.find('@') }}`, `line 1, column 10: method "find" is not supported`},
		{`{{ email.lowr() }}`, `line 1, column 10: method "lowr" is not supported (did you mean "lower"?)`},
		{`{{ email.lower(1) }}`, `line 1, column 10: method "lower" takes 0 arguments, not 1`},
		{`{{ email.replace('a') }}`, `line 1, column 10: method "replace" takes 2 to 3 arguments, not 1`},
		{`{{ meta.get() }}`, `line 1, column 9: method "get" takes 1 to 2 arguments, not 0`},
		{`{{ email|lowercase }}`, `line 1, column 10: filter "lowercase" is not supported`},
		{`{{ email|uper }}`, `line 1, column 10: filter "uper" is not supported (did you mean "upper"?)`},
		{`{{ email|urlencode }}`, `line 1, column 10: filter "urlencode" is not supported`},
		{`{{ email|ljust:200000000 }}`, `line 1, column 10: filter "ljust" is not supported`},
		{`{{ email|e }}`, `line 1, column 10: filter "e" is not supported`},
		{`{{ email| }}`, `line 1, column 11: unexpected "}}", expected the name of a filter`},
		{`{{ email|lower(1) }}`, `line 1, column 10: filter "lower" takes 0 arguments, not 1`},
		{`{{ email|replace('a','b',2) }}`, `line 1, column 10: filter "replace" takes 2 arguments, not 3`},
		{`{{ tenant|default:'x' }}`, `line 1, column 18: unexpected ":"; arguments stand in parentheses, as in default('x')`},
		{`{{ tenant|default('x', boolean=true) }}`, `line 1, column 24: argument "boolean": arguments with names are not supported`},
		{`{{ tenant|default(*list) }}`, `line 1, column 19: "*" before an argument is not supported`},
		{`{{ tenant|default('x' }}`, `line 1, column 23: unexpected "}}", expected "," or ")"`},
		{`{{ email|split('@')[0] }}`, `line 1, column 20: unexpected "[" after a filter or test; put what stands before it in parentheses`},
		{`{{ email|upper.x }}`, `line 1, column 15: unexpected "." after a filter or test; put what stands before it in parentheses`},
		{`{{ n is nosuchtest }}`, `line 1, column 9: test "nosuchtest" is not supported`},
		{`{{ n is defind }}`, `line 1, column 9: test "defind" is not supported (did you mean "defined"?)`},
		{`{{ n is }}`, `line 1, column 9: unexpected "}}", expected the name of a test`},
		{`{{ n is == 5 }}`, `line 1, column 9: unexpected "==", expected the name of a test`},
		{`{{ n is defined(1) }}`, `line 1, column 16: unexpected "(", expected "}}"`},
		{`{{ n is divisibleby }}`, `line 1, column 21: unexpected "}}", expected an expression`},
		{`{{ n && n }}`, `line 1, column 6: "&&" is not an operator of Jinja; write "and"`},
		{`{{ n || n }}`, `line 1, column 6: "||" is not an operator of Jinja; write "or"`},
		{`{{ n <> n }}`, `line 1, column 6: "<>" is not an operator of Jinja; write "!="`},
		{`{{ !n }}`, `line 1, column 4: "!" is not an operator of Jinja; write "not"`},

		// Bytes and sizes.
		{"a\n\u00e9b\xff", `line 2, column 3: the template is not valid UTF-8`},
		{strings.Repeat("x", 65537), `line 1, column 1: the template is 65537 bytes long, more than 65536`},
		{"{{ " + strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200) + " }}", `line 1, column 54: the expression nests too deeply`},
		{"{{ " + strings.Repeat("not ", 200) + "1 }}", `line 1, column 404: the expression nests too deeply`},
		{"{{ n" + strings.Repeat("|d", 200) + " }}", `line 1, column 207: the expression is too long`},
		{"{{ n" + strings.Repeat(".x", 200) + " }}", `line 1, column 207: the expression is too long`},
		{strings.Repeat("{% if n %}", 101), `line 1, column 1001: the tags nest too deeply`},
	}
	for _, tt := range tests {
		_, err := Compile(tt.source, mailNames)
		var refusal *Error
		if !errors.As(err, &refusal) {
			t.Errorf("%.80q: %v, want %s", tt.source, err, tt.want)
			continue
		}
		if err.Error() != tt.want {
			t.Errorf("%.80q:\n got %v\nwant %s", tt.source, err, tt.want)
		}
	}
}

// within tells whether a position is a place in source, or just after its end.
func within(source string, line, column int) bool {
	lines := strings.Split(source, "\n")
	return 1 <= line && line <= len(lines) &&
		1 <= column && column <= utf8.RuneCountInString(lines[line-1])+1
}

func FuzzCompile(f *testing.F) {
	for _, tt := range renderings {
		f.Add(tt.source)
	}
	for _, source := range []string{
		"{{ email|split('@')[0] }}", "{% if a %}{% for x in list %}{% endif %}", "{{ '\\ud83d\\u0041' }}",
		"{{ {'a': {'b': 1}}}}", "{%- raw -%}{{{% endraw %}", "\xff{{", "{{\n\n x", "{{ a.b['c'].get('d', e)[1:-1] }}",
	} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		tpl, err := Compile(source, mailNames)
		if err != nil {
			var refusal *Error
			if !errors.As(err, &refusal) {
				t.Fatalf("%q: an error of type %T", source, err)
			}
			if !within(source, refusal.Line, refusal.Column) {
				t.Fatalf("%q: %v is not in the source", source, err)
			}
			return
		}
		pieces, err := tpl.Execute(mailVars())
		if err != nil {
			failure, ok := err.(*RuntimeError)
			if !ok || !within(source, failure.Line, failure.Column) {
				t.Fatalf("%q: %v (%T) is not in the source", source, err, err)
			}
			if strings.Contains(err.Error(), "engine") {
				t.Fatalf("%q: %v", source, err)
			}
			return
		}
		known := map[string]bool{}
		for _, name := range tpl.Names() {
			known[name] = true
		}
		for _, p := range pieces {
			if !within(source, p.Line, p.Column) {
				t.Fatalf("%q: piece %+v is not in the source", source, p)
			}
			if p.Missing && p.Text != "" {
				t.Fatalf("%q: missing piece %+v has text", source, p)
			}
			for _, name := range p.Names {
				if !known[name] {
					t.Fatalf("%q: piece %+v has a name that is not in %q", source, p, tpl.Names())
				}
			}
		}
		if out := join(pieces); !strings.HasPrefix(out, tpl.Prefix()) {
			t.Fatalf("%q: output %q does not begin with the prefix %q", source, out, tpl.Prefix())
		}
	})
}
