package luastate

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// What does not compile says where, in one line.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"return 1", "local a = '\\x41'", "--[[", "[==[ ]] ]==]", "a = 00", "goto x ::x::", "goto x", "while a do local b do goto x end ::x:: end", "break", "\xef\xbb\xbf#\n", "x = {{}}", "'\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		_, err := Compile("f.lua", []byte(source))
		if err == nil {
			return
		}
		var e *Error
		if !errors.As(err, &e) || e.Reason == "" || e.Line < 1 || e.Line > strings.Count(source, "\n")+strings.Count(source, "\r")+2 {
			t.Errorf("%#v", err)
		}
		if strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q has several lines", err)
		}
	})
}

// A string that compiles is read the way Lua 5.4 reads it: %q of it gives the same string again.
func FuzzQuoted(f *testing.F) {
	f.Add("a\x00b\\x41\r\n\"'")
	f.Add("\xff\n1")
	L := lua.NewState()
	f.Cleanup(L.Close)
	Shim(L)
	f.Fuzz(func(t *testing.T, text string) {
		L.SetGlobal("text", lua.LString(text))
		if err := L.DoString("back = assert(load('return ' .. string.format('%q', text)))()"); err != nil {
			t.Fatal(err)
		}
		if got := L.GetGlobal("back"); got != lua.LString(text) {
			t.Errorf("%q comes back as %q", text, got.String())
		}
	})
}

// A tree of JSON that has neither null nor an empty list or object goes through Lua unchanged.
func FuzzTree(f *testing.F) {
	f.Add(`{"a": [1, 2.5, "x", true], "b": {"c": [[1]]}}`)
	f.Add(`[9007199254740993, -0, 1e308]`)
	f.Add(`{"1": 1}`)
	L := lua.NewState()
	f.Cleanup(L.Close)
	f.Fuzz(func(t *testing.T, text string) {
		var tree any
		if json.Unmarshal([]byte(text), &tree) != nil || !solid(tree, 0) {
			return
		}
		got, err := ToTree(FromTree(L, tree), emptyTable{})
		if err != nil || !reflect.DeepEqual(got, tree) {
			t.Errorf("%#v, %v, want %#v", got, err, tree)
		}
	})
}

func solid(tree any, depth int) bool {
	switch tree := tree.(type) {
	case nil:
		return false
	case []any:
		for _, v := range tree {
			if !solid(v, depth+1) {
				return false
			}
		}
		return len(tree) > 0 && depth < maxTreeDepth
	case map[string]any:
		for _, v := range tree {
			if !solid(v, depth+1) {
				return false
			}
		}
		return len(tree) > 0 && depth < maxTreeDepth
	}
	return true
}
