package decode

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseJSON(t *testing.T) {
	for _, test := range []struct {
		text string
		want any
	}{
		{`null`, nil},
		{" \t\r\n true ", true},
		{`false`, false},
		{`0`, int64(0)},
		{`-0`, int64(0)},
		{`9223372036854775807`, int64(math.MaxInt64)},
		{`-9223372036854775808`, int64(math.MinInt64)},
		{`9223372036854775808`, 9223372036854775808.0},
		{`5.0`, 5.0},
		{`5e0`, 5.0},
		{`-1.25E-2`, -0.0125},
		{`""`, ""},
		{`"a\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00é😀` + "\x7f" + `"`, "a\"\\/\b\f\n\r\té€😀é😀\x7f"},
		{`"\u0000"`, "\x00"},
		{`[]`, []any{}},
		{`[ ]`, []any{}},
		{`{ }`, map[string]any{}},
		{` { "a" : [ 1 , null ] , "b" : { } } `, map[string]any{"a": []any{int64(1), nil}, "b": map[string]any{}}},
		{strings.Repeat("[", 64) + "1" + strings.Repeat("]", 64), nested(64)},
	} {
		got, err := ParseJSON([]byte(test.text))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %#v, %v, want %#v", test.text, got, err, test.want)
		}
	}
}

func nested(depth int) any {
	tree := any(int64(1))
	for range depth {
		tree = []any{tree}
	}
	return tree
}

func TestParseJSONErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, `line 1, column 1: unexpected end of the text, expected a value`},
		{" \n  ", `line 2, column 3: unexpected end of the text, expected a value`},
		{`True`, `line 1, column 1: unexpected 'T', expected a value`},
		{`tru`, `line 1, column 4: unexpected end of the text, expected true`},
		{`nulL`, `line 1, column 4: unexpected 'L', expected null`},
		{`1 2`, `line 1, column 3: unexpected '2', expected the end of the text`},
		{`{} // done`, `line 1, column 4: unexpected '/', expected the end of the text`},
		{"\ufeff{}", `line 1, column 1: unexpected '\ufeff', expected a value`},
		{"{}\x00", `line 1, column 3: unexpected '\x00', expected the end of the text`},
		{`01`, `line 1, column 2: unexpected '1', expected the end of the text`},
		{`-`, `line 1, column 2: unexpected end of the text, expected a digit`},
		{`1.`, `line 1, column 3: unexpected end of the text, expected a digit`},
		{`1.e`, `line 1, column 3: unexpected 'e', expected a digit`},
		{`1e+`, `line 1, column 4: unexpected end of the text, expected a digit`},
		{`[1e999]`, `[0]: line 1, column 2: the number is out of range`},
		{`+1`, `line 1, column 1: unexpected '+', expected a value`},
		{`NaN`, `line 1, column 1: unexpected 'N', expected a value`},
		{`[1,]`, `[1]: line 1, column 4: unexpected ']', expected a value`},
		{`[1 2]`, `line 1, column 4: unexpected '2', expected ',' or ']'`},
		{`[`, `[0]: line 1, column 2: unexpected end of the text, expected a value`},
		{`{"a":1,}`, `line 1, column 8: unexpected '}', expected a key in double quotes`},
		{`{a:1}`, `line 1, column 2: unexpected 'a', expected a key in double quotes`},
		{`{"a"}`, `a: line 1, column 5: unexpected '}', expected ':'`},
		{`{"a":1 "b":2}`, `line 1, column 8: unexpected '"', expected ',' or '}'`},
		{"{\n \"é\": 1, \"a\": {\"b\": [1, x]}}", `a.b[1]: line 2, column 25: unexpected 'x', expected a value`},
		{"{\"a\":{\"b\":1,\n\"\\u0062\":2}}", `a.b: line 2, column 1: given twice`},
		{`"abc`, `line 1, column 1: the string has no closing quote`},
		{`"a` + "\n" + `"`, `line 1, column 3: the control character '\n' must be written as an escape`},
		{`"\x"`, `line 1, column 2: unknown escape after the backslash`},
		{`"\`, `line 1, column 2: unknown escape after the backslash`},
		{`"\u12"`, `line 1, column 2: an escape with \u needs four hexadecimal digits`},
		{`"\u+123"`, `line 1, column 2: an escape with \u needs four hexadecimal digits`},
		{`"\u1_23"`, `line 1, column 2: an escape with \u needs four hexadecimal digits`},
		{`"\ud83d"`, `line 1, column 2: half of a surrogate pair`},
		{`"\ud83d\n"`, `line 1, column 2: half of a surrogate pair`},
		{`"\ud83d\u0041"`, `line 1, column 2: half of a surrogate pair`},
		{`"\ude00\ud83d"`, `line 1, column 2: half of a surrogate pair`},
		{"\"a\xff\"", `line 1, column 3: byte 0xff is not valid UTF-8`},
		{"[\xe2\x82]", `[0]: line 1, column 2: byte 0xe2 is not valid UTF-8`},
		{strings.Repeat("[", 65) + strings.Repeat("]", 65),
			strings.Repeat("[0]", 64) + `: line 1, column 65: nested more than 64 deep`},
		{strings.Repeat("[", 1e6), strings.Repeat("[0]", 64) + `: line 1, column 65: nested more than 64 deep`},
	} {
		_, err := ParseJSON([]byte(test.text))
		if got := text(err); got != test.want {
			t.Errorf("%.80s:\n got %s\nwant %s", test.text, got, test.want)
		}
	}
}

// TestKeyPathIsShort keeps a hostile key from filling the log.
func TestKeyPathIsShort(t *testing.T) {
	_, err := ParseJSON([]byte(`{"` + strings.Repeat("é ", 1e5) + `": x}`))
	if n := len(text(err)); n == 0 || n > 300 {
		t.Errorf("an error of %d bytes", n)
	}
}

// FuzzParseJSON compares with encoding/json: what ParseJSON accepts means the
// same there, and what it refuses is refused there too or has one of the few
// properties that are refused here on purpose.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e-3,"\ud83d\ude00",{"b":null}],"c":true}`, `{"a":1,"a":2}`, `[1] 2`, `"\ud800"`, "\"\xff\"",
		`-0`, `1e400`, `123456789012345678901`, strings.Repeat("[", 70) + strings.Repeat("]", 70), "\ufeff1", `"\u00e9é"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseJSON(data)
		var want any
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		otherErr := decoder.Decode(&want)
		if otherErr == nil {
			if _, err := decoder.Token(); err != io.EOF {
				otherErr = json.Unmarshal(data, &want)
			}
		}
		if err == nil {
			if otherErr != nil {
				t.Fatalf("accepted %q, encoding/json says %v", data, otherErr)
			}
			if !same(got, want) {
				t.Fatalf("%q: got %#v, encoding/json %#v", data, got, want)
			}
			if again, err := ParseJSON(appendTree(nil, got, "", nil)); err != nil || !reflect.DeepEqual(plain(again), plain(got)) {
				t.Fatalf("%q: printed and read again: %#v, %v", data, again, err)
			}
			return
		}
		if _, ok := err.(*Error); !ok {
			t.Fatalf("the error %v is a %T", err, err)
		}
		onPurpose := func(reason string) bool { return strings.HasSuffix(err.Error(), reason) }
		if otherErr == nil && utf8.Valid(data) && !onPurpose("given twice") && !onPurpose("half of a surrogate pair") &&
			!onPurpose("nested more than 64 deep") && !onPurpose("the number is out of range") {
			t.Fatalf("refused %q: %v", data, err)
		}
	})
}

// same compares a tree with what encoding/json made of the same text.
func same(tree, other any) bool {
	switch o := other.(type) {
	case json.Number:
		n, err := o.Int64()
		if err == nil {
			return tree == n
		}
		f, err := o.Float64()
		return err == nil && tree == f
	case []any:
		list, ok := tree.([]any)
		if !ok || len(list) != len(o) {
			return false
		}
		for i := range o {
			if !same(list[i], o[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		m, ok := tree.(map[string]any)
		if !ok || len(m) != len(o) {
			return false
		}
		for key := range o {
			if _, ok := m[key]; !ok || !same(m[key], o[key]) {
				return false
			}
		}
		return true
	}
	return tree == other
}
