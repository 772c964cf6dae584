package luastate

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

type emptyTable struct{}

type treer struct {
	tree any
	err  error
}

func (t treer) Tree() (any, error) { return t.tree, t.err }

func TestToTree(t *testing.T) {
	s := newState(t, "", func(L *lua.LState) error {
		L.SetGlobal("good", &lua.LUserData{Value: treer{tree: "inner"}, Metatable: lua.LNil})
		L.SetGlobal("bad", &lua.LUserData{Value: treer{err: errHost}, Metatable: lua.LNil})
		L.SetGlobal("opaque", L.NewUserData())
		return nil
	})
	for _, test := range []struct {
		source string
		want   any
		err    string
	}{
		{"nil", nil, ""},
		{"true", true, ""},
		{"509", 509.0, ""},
		{"'\\255'", "\xff", ""},
		{"{}", emptyTable{}, ""},
		{"{{}, {}}", []any{emptyTable{}, emptyTable{}}, ""},
		{"{1, 'a', false}", []any{1.0, "a", false}, ""},
		{"{a = {b = {1}}, c = 'd'}", map[string]any{"a": map[string]any{"b": []any{1.0}}, "c": "d"}, ""},
		{"{[1] = 'a', [2] = 'b'}", []any{"a", "b"}, ""},
		{"{a = nil}", emptyTable{}, ""},
		{"{p = good}", map[string]any{"p": "inner"}, ""},
		{"print", nil, "a function cannot stand here"},
		{"{protocol = {smtp = {mx_list = {'a', {name = print}}}}}", nil, "protocol.smtp.mx_list[2].name: a function cannot stand here"},
		{"{p = bad}", nil, "p: the host said no"},
		{"{p = opaque}", nil, "p: a userdata cannot stand here"},
		{"{1, 2, x = 3}", nil, "a table is either a list or has named fields, not both"},
		{"{p = {[1] = 1, x = 3}}", nil, "p: a table is either a list"},
		{"{p = {1, nil, 3}}", nil, "p: the list has no element 2 but has an element 3"},
		{"{p = {[2] = 1}}", nil, "p: the list has no element 1 but has an element 2"},
		{"{[0] = 1}", nil, "key 0 is no position in a list and no name"},
		{"{[1.5] = 1}", nil, "key 1.5 is no position"},
		{"{[-1] = 1, x = 1}", nil, "key -1 is no position"},
		{"{[true] = 1}", nil, "a boolean cannot be a key here"},
		{"(function() local t = {} t.self = {t} return t end)()", nil, "self[1]: the table contains itself"},
		{"(function() local t = {} for _ = 1, 70 do t = {t} end return t end)()", nil, "tables are nested more than 64 deep"},
		{"(function() local t = {1} for _ = 1, 30 do t = {t, t} end return t end)()", nil, "there are more than 1048576 values"},
		{"(function() local s, t = ('x'):rep(1000000), {} for i = 1, 17 do t[i] = s end return t end)()", nil,
			"the strings are longer than 16 MiB together"},
		// The same table twice is no cycle.
		{"(function() local t = {1} return {a = t, b = t} end)()", map[string]any{"a": []any{1.0}, "b": []any{1.0}}, ""},
	} {
		t.Run(test.source, func(t *testing.T) {
			if err := s.L.DoString("value = " + test.source); err != nil {
				t.Fatal(err)
			}
			got, err := ToTree(s.L.GetGlobal("value"), emptyTable{})
			if test.err != "" {
				var e *TreeError
				if !errors.As(err, &e) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %#v, %v", got, err)
			}
		})
	}
	if _, err := ToTree(s.L.GetGlobal("bad"), nil); !errors.Is(err, errHost) {
		t.Error("the cause is lost:", err)
	}
}

func TestFromTree(t *testing.T) {
	type named string
	L := lua.NewState()
	defer L.Close()
	for _, test := range []struct {
		tree any
		want any // what ToTree makes of it again
	}{
		{nil, nil}, {true, true}, {1.5, 1.5}, {7, 7.0}, {int64(1 << 53), float64(1 << 53)}, {uint16(9), 9.0},
		{float32(0.5), 0.5}, {json.Number("12"), 12.0}, {json.Number("x"), "x"}, {"\xff", "\xff"}, {[]byte("b"), "b"},
		{named("n"), "n"}, {emptyTable{}, emptyTable{}}, {[]any{}, emptyTable{}}, {map[string]any{}, emptyTable{}},
		{[]any{"a", 1}, []any{"a", 1.0}}, {[]string{"a"}, []any{"a"}}, {map[string]int{"a": 1}, map[string]any{"a": 1.0}},
		{map[string]any{"a": nil, "b": []any{true}}, map[string]any{"b": []any{true}}},
		{treer{tree: 1}, 1.0}, {treer{err: errHost}, nil}, {make(chan int), nil}, {map[int]int{1: 1}, nil},
		{lua.LString("as it is"), "as it is"},
	} {
		got, err := ToTree(FromTree(L, test.tree), emptyTable{})
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%#v: got %#v, %v", test.tree, got, err)
		}
	}
}
