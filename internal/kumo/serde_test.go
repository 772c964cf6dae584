package kumo

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// expression is one of Lua, and what it gives as text or what its error has in it.
type expression struct{ expr, want, err string }

func checkExpressions(t *testing.T, o *Options, prelude string, tests []expression) {
	t.Helper()
	for _, test := range tests {
		got, err := eval(t, o, prelude+"\nfunction run() return "+test.expr+" end")
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %q, %v", test.expr, got, err)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s: %q, %v", test.expr, got, err)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSerdeTOML(t *testing.T) {
	path := write(t, "a.toml", "[\"a.example\"]\nlimit = 3\n")
	checkExpressions(t, stubs(), "local s = require 'kumo.serde'", []expression{
		{`s.toml_parse('a = 1\nb = [1.5, "x"]').b[2]`, "x", ""},
		{`s.toml_load('` + path + `')['a.example'].limit`, "3", ""},
		{`kumo.toml_parse('[[a]]\nb=1\n[[a]]\nb=2').a[2].b`, "2", ""},
		{`s.json_encode(s.toml_parse('a = 1979-05-27T07:32:00Z\nb = 1979-05-27\nc = 07:32:00.5\nd = 1979-05-27 07:32:00'))`,
			`{"a":"1979-05-27T07:32:00Z","b":"1979-05-27","c":"07:32:00.5","d":"1979-05-27T07:32:00"}`, ""},
		{`s.json_encode(s.toml_parse('a.b.c = true\n"x.y" = {}'))`, `{"a":{"b":{"c":true}},"x.y":{}}`, ""},
		{`s.json_encode(s.toml_parse(''))`, `{}`, ""},
		{`s.toml_parse('a = ')`, "", `toml_parse: parsing "a = " as toml: line 1: `},
		{`s.toml_parse('\n\nx')`, "", "line 3"},
		{`s.toml_load('/nonexistent')`, "", "toml_load: reading file /nonexistent: no such file"},
		{`s.toml_load('/')`, "", "reading file /: is a directory"},
		{`s.toml_encode {b = 1, a = {x = {1, 2.5}}, c = 'q"', d = true}`,
			"b = 1\nc = \"q\\\"\"\nd = true\n\n[a]\nx = [1, 2.5]\n", ""},
		{`s.toml_encode {}`, "", ""},
		{`s.toml_encode {a = {}}`, "[a]\n", ""},
		{`s.toml_encode_pretty_compact {b = {}, a = {y = {}, x = 1}}`, "b = {}\n\n[a]\nx = 1\ny = {}\n", ""},
		{`s.toml_encode_pretty {b = 1, a = {x = 'y', c = {}}}`, "b = 1\n\n[a]\n  x = \"y\"\n  [a.c]\n", ""},
		{`s.toml_encode {1, 2}`, "", "toml_encode: a document is a table with named fields"},
		{`s.toml_encode 'x'`, "", "a document is a table"},
		{`s.toml_encode {a = '\255'}`, "", "a: a string is not UTF-8"},
		{`s.toml_encode {a = print}`, "", "a: a function cannot stand here"},
		{`s.toml_parse(('['):rep(200))`, "", "nested more than 128 deep"},
		{`s.toml_parse(('a.'):rep(40) .. 'a = 1')`, "", "more than 32 dots"},
		{`s.toml_parse('a = "' .. ('['):rep(200) .. '" # ' .. ('['):rep(200) .. '\nb = 2').b`, "2", ""},
		{`s.toml_parse('a = """\n' .. ('['):rep(200) .. '\\"""" # x\nb = \'' .. ('{'):rep(200) .. '\'').a:sub(-2)`, `["`, ""},
		{`s.toml_parse('a = ["""x"""", ' .. ('['):rep(200))`, "", "nested more than 128 deep"}, // four quotes end it
		{`s.toml_parse('a = """x""""" # ' .. ('['):rep(200)).a`, `x""`, ""},
		{`s.toml_parse(('x'):rep(5000000))`, "", "the text is longer than 4194304 bytes"},
		{`s.toml_parse('a = [' .. ('1,'):rep(1100000) .. ']')`, "", "more than 1048576 values"},
	})
}

func TestSerdeYAML(t *testing.T) {
	path := write(t, "a.yaml", "a:\n- 1\n- b: c\n")
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	checkExpressions(t, stubs(), "local s = require 'kumo.serde' bomb = [==["+bomb+"]==]", []expression{
		{`s.yaml_load('` + path + `').a[2].b`, "c", ""},
		{`s.json_encode(s.yaml_parse 'a: [1, 2.5, true, "x", yes, 2001-12-14, 0x10, 1_000]')`,
			`{"a":[1,2.5,true,"x","yes","2001-12-14",16,1000]}`, ""},
		{`s.json_encode(s.yaml_parse '{1: a, true: b}')`, `{"1":"a","true":"b"}`, ""},
		{`s.json_encode(s.yaml_parse 'x: &x {a: 1}\ny: *x\nz: {<<: *x}')`, `{"x":{"a":1},"y":{"a":1},"z":{"<<":{"a":1}}}`, ""},
		{`s.yaml_parse 'a: |\n  one\n  two\n'.a`, "one\ntwo\n", ""},
		{`s.yaml_parse ''`, "nil", ""},
		{`s.yaml_parse 'null'`, "nil", ""},
		{`s.yaml_parse '# nothing'`, "nil", ""},
		{`s.yaml_parse '!mine {a: 1}'`, "", "line 1: the tag !mine has no meaning here"},
		{`s.yaml_parse 'a: 1\na: 2'`, "", `line 2: the key "a" is there twice`},
		{`s.yaml_parse 'a: 1\n---\na: 2'`, "", "there are 2 documents"},
		{`s.yaml_parse '[a, b]: c'`, "", "cannot be a key"},
		{`s.yaml_parse 'a: [1'`, "", "yaml_parse: parsing"},
		{`s.yaml_parse 'a: &a [*a]'`, "", "yaml_parse"},
		{`s.yaml_parse(bomb)`, "", "with its aliases"},
		{`s.yaml_parse(('['):rep(3000))`, "", "128"},
		{`s.yaml_parse(('- '):rep(3000))`, "", "128"},
		{`s.yaml_parse('[' .. ('a,'):rep(600000) .. ']')`, "", "more than 500000 values"},
		{`s.yaml_parse('a: &a "' .. ('x'):rep(1000000) .. '"\nb: [' .. ('*a,'):rep(20) .. ']')`, "", "longer than 16 MiB"},
		{`s.yaml_parse(('%TAG !a! b\n'):rep(2000) .. '---\na')`, "", "more than 1000 lines begin with %"},
		{`s.yaml_parse(('%TAG !a! b\194\133'):rep(2000) .. '---\na')`, "", "more than 1000 lines begin with %"},
		{`s.yaml_parse(('-\194\133'):rep(600000))`, "", "more than 500000 values"},
		{`s.yaml_parse '%TAG !a! b\n---\nc'`, "c", ""},
		{`s.yaml_encode {b = {1, {c = 2}}, a = 'yes', n = 3, e = {}, d = '2001-12-14', s = 'two\nlines'}`,
			"a: 'yes'\nb:\n- 1\n- c: 2\nd: '2001-12-14'\ne: {}\n'n': 3\ns: |-\n  two\n  lines\n", ""},
		{`s.yaml_encode '1'`, "'1'\n", ""},
		{`s.yaml_encode {a = '\255'}`, "", "a: a string is not UTF-8"},
		{`s.yaml_load '/nonexistent'`, "", "yaml_load: reading file /nonexistent: no such file"},
	})
}

func TestSerdeJSONBounds(t *testing.T) {
	checkExpressions(t, stubs(), "local s = require 'kumo.serde'", []expression{
		{`s.json_parse(('['):rep(129) .. (']'):rep(129))`, "", "nested more than 128 deep"},
		{`#s.json_parse(('['):rep(128) .. (']'):rep(128))`, "1", ""},
		{`#s.json_parse('["' .. ('['):rep(500) .. '", 2]')`, "2", ""},
		{`s.json_parse('[' .. ('[],'):rep(600000) .. '1]')`, "", "more than 1048576 values"},
		{`s.json_parse(big())`, "", "the text is longer than 16777216 bytes"},
		{`s.json_encode((function() local t = {1} for _ = 1, 40 do t = {t, t} end return t end)())`, "", "more than 1048576 values"},
		{`s.json_encode((function() local c, t = kumo.make_queue_config {a = ('x'):rep(1000000)}, {}
			for i = 1, 100 do t[i] = c end return t end)())`, "", "the strings are longer than 16 MiB together"},
		{`s.json_parse '"caf\233"'`, "", "json_parse: parsing \"\\\"caf\\xe9\\\"\" as json: it is not UTF-8"},
		{`s.json_encode_pretty {b = {}, a = {1}}`, "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}", ""},
	})
}

// A pipe has no end that could be waited for.
func TestLoadOnlyPlainFiles(t *testing.T) {
	big := write(t, "big.json", "")
	if err := os.Truncate(big, maxFile+1); err != nil {
		t.Fatal(err)
	}
	checkExpressions(t, stubs(), "", []expression{
		{`kumo.json_load('/dev/zero')`, "", "reading file /dev/zero: is not a plain file"},
		{`kumo.json_load('` + big + `')`, "", "longer than 16777216 bytes"},
		{`kumo.json_load(true)`, "", "string expected"},
	})
}

// plainTree says whether every encoder can hold the tree: TOML and JSON know no null in a list.
func plainTree(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case float64:
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	case []any:
		for _, inner := range v {
			if !plainTree(inner) {
				return false
			}
		}
	case map[string]any:
		for _, inner := range v {
			if !plainTree(inner) {
				return false
			}
		}
	}
	return true
}

// FuzzSerde: what one language can say comes back the same from each of the others. Parsing never panics.
func FuzzSerde(f *testing.F) {
	for _, text := range []string{
		`{"a": [1, {"b": "c"}], "d e": 1.5}`, "a = 1\n[b.\"c.d\"]\ne = [[1], [{x = 1}]]\n", "a: &x [1, ~]\nb: *x\n",
		"a = 1979-05-27T07:32:00Z", "[[a]]\n[[a.b]]\n", "'''", "- - - a", "? a\n: b", "!!binary x", "\x00", "a = \"\\u0000\"",
	} {
		f.Add(text)
	}
	s := newState(f, stubs(), "")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		for _, parse := range []func([]byte) (any, error){parseJSON, parseTOML, parseYAML} {
			parsed, err := parse([]byte(text))
			if err != nil {
				continue
			}
			tree, err := luastate.ToTree(luastate.FromTree(s.L, parsed), map[string]any{})
			if _, isMap := tree.(map[string]any); err != nil || !isMap || checkText(tree) != nil || !plainTree(tree) {
				continue
			}
			for name, language := range map[string]struct {
				encode func(any) (string, error)
				parse  func([]byte) (any, error)
			}{
				"json": {encodeJSON, parseJSON}, "toml": {encodeTOML, parseTOML},
				"compact": {encodeTOMLCompact, parseTOML}, "yaml": {encodeYAML, parseYAML},
			} {
				fresh, err := luastate.ToTree(luastate.FromTree(s.L, tree), struct{}{})
				if err != nil {
					t.Fatal(err)
				}
				encoded, err := language.encode(fresh)
				if err != nil {
					t.Fatalf("%s: %q: %v", name, text, err)
				}
				back, err := language.parse([]byte(encoded))
				if err != nil {
					t.Fatalf("%s: %q as %q: %v", name, text, encoded, err)
				}
				again, err := luastate.ToTree(luastate.FromTree(s.L, back), map[string]any{})
				if err != nil || !reflect.DeepEqual(again, tree) {
					want, _ := json.Marshal(tree)
					got, _ := json.Marshal(again)
					t.Fatalf("%s: %q as %q: got %s, want %s (%v)", name, text, encoded, got, want, err)
				}
			}
		}
	})
}

// installIn is the setup of a state whose require looks into a folder.
func installIn(o *Options, folder string) func(L *lua.LState) error {
	return func(L *lua.LState) error {
		luastate.SearchIn(L, folder)
		Install(L, o)
		return nil
	}
}

// listDepth is how deep lists stand in each other.
func listDepth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case []any:
		for _, inner := range v {
			deepest = max(deepest, listDepth(inner))
		}
		deepest++
	case map[string]any:
		for _, inner := range v {
			deepest = max(deepest, listDepth(inner))
		}
	}
	return deepest
}

// FuzzTOMLDepth: whatever stands before lists that are nested too deep for a parser that recurses, they are counted.
func FuzzTOMLDepth(f *testing.F) {
	for _, text := range []string{
		`a = [1, `, `a = ["""x"""", `, `a = ["""x""""", `, `a = ["""\\"""""", `, `a = ["""\"""""", `, `a = ["", "\\", `,
		"a = ['''x'''', ", "a = ['''x\\''''', ", "a = ['', '\\', ", "a = [ # \"\n", "a = [\"\"\"\\\n\"\"\"\"\", ", "a = [{'\"' = 1}, ",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text += strings.Repeat("[", maxParsedDepth) + strings.Repeat("]", maxParsedDepth+1)
		var fields map[string]any
		if len(text) > 1<<12 {
			return
		}
		if _, err := toml.Decode(text, &fields); err != nil || listDepth(fields) <= maxParsedDepth {
			return
		}
		if countTOML([]byte(text)) == nil {
			t.Errorf("%q is let in", text)
		}
	})
}
