package luastate

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	lua "github.com/yuin/gopher-lua"
)

// Bounds of what ToTree takes. A table that stands in two places counts twice, as it would in the tree: without
// a bound, thirty tables that each hold the next one twice make a billion.
const (
	maxTreeDepth  = 64       // tables inside tables
	maxTreeValues = 1 << 20  // of all kinds, tables included
	maxTreeBytes  = 16 << 20 // of all strings together
)

// Treer is a Go value in a userdata that has a plain form.
type Treer interface{ Tree() (any, error) }

// TreeError says which part of a Lua value has no plain form.
type TreeError struct {
	Path   string // "protocol.smtp.mx_list[2]", empty for the value itself
	Reason string
	cause  error
}

func (e *TreeError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

func (e *TreeError) Unwrap() error { return e.cause }

// ToTree makes a plain tree of a Lua value: nil, bool, float64, string, []any, map[string]any, and
// empty for a table with nothing in it, which may be meant as either. A table is a list if its keys
// are 1 to n. List and map in one, a hole in a list, a key that is no string, a table inside itself, more
// than 64 levels, a million values or 16 MiB of strings, and what only Lua can hold are a *TreeError. Metatables are not looked at; a
// userdata speaks through Treer.
func ToTree(v lua.LValue, empty any) (any, error) {
	w := treeWriter{empty: empty}
	tree, err := w.value(v)
	if err != nil {
		return nil, err // not err alone: a nil *TreeError is no nil error
	}
	return tree, nil
}

// ToJSONTree is ToTree for encoders, which make something of every table, as upstream's do: one with a first element is a
// list, whose holes are nil, and what else it has is left out; any other has named fields, and numbers and booleans
// among its keys become names.
func ToJSONTree(v lua.LValue, empty any) (any, error) {
	w := treeWriter{empty: empty, loose: true}
	tree, err := w.value(v)
	if err != nil {
		return nil, err
	}
	return tree, nil
}

type treeWriter struct {
	empty  any
	loose  bool
	above  []*lua.LTable // the tables that we are inside of
	values int
	bytes  int
}

// count takes one more value, with the length of its text, into account.
func (w *treeWriter) count(length int) *TreeError {
	w.values++
	w.bytes += length
	switch {
	case w.values > maxTreeValues:
		return tooManyValues()
	case w.bytes > maxTreeBytes:
		return &TreeError{Reason: fmt.Sprintf("the strings are longer than %d MiB together", maxTreeBytes>>20)}
	}
	return nil
}

func tooManyValues() *TreeError {
	return &TreeError{Reason: fmt.Sprintf("there are more than %d values", maxTreeValues)}
}

func (w *treeWriter) value(v lua.LValue) (any, *TreeError) {
	text, _ := v.(lua.LString)
	if err := w.count(len(text)); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil, *lua.LNilType:
		return nil, nil
	case lua.LBool:
		return bool(v), nil
	case lua.LNumber:
		return float64(v), nil
	case lua.LString:
		return string(v), nil
	case *lua.LTable:
		return w.table(v)
	case *lua.LUserData:
		if t, ok := v.Value.(Treer); ok {
			tree, err := t.Tree()
			if err != nil {
				return nil, &TreeError{Reason: err.Error(), cause: err}
			}
			if err := w.countAll(tree); err != nil { // one object may stand in a million places
				return nil, err
			}
			return tree, nil
		}
	}
	return nil, &TreeError{Reason: "a " + v.Type().String() + " cannot stand here"}
}

// countAll takes a tree into account that is there already.
func (w *treeWriter) countAll(tree any) *TreeError {
	text, _ := tree.(string)
	err := w.count(len(text))
	switch tree := tree.(type) {
	case []any:
		for i := 0; i < len(tree) && err == nil; i++ {
			err = w.countAll(tree[i])
		}
	case map[string]any:
		for name, v := range tree {
			w.bytes += len(name)
			if err == nil {
				err = w.countAll(v)
			}
		}
	}
	return err
}

func (w *treeWriter) table(tbl *lua.LTable) (any, *TreeError) {
	for _, above := range w.above {
		if above == tbl {
			return nil, &TreeError{Reason: "the table contains itself"}
		}
	}
	if len(w.above) == maxTreeDepth {
		return nil, &TreeError{Reason: fmt.Sprintf("tables are nested more than %d deep", maxTreeDepth)}
	}
	w.above = append(w.above, tbl)
	defer func() { w.above = w.above[:len(w.above)-1] }()

	if w.loose && tbl.RawGetInt(1) != lua.LNil {
		return w.list(tbl, listLength(tbl))
	}
	keys, err := keysOf(tbl)
	switch {
	case w.loose && keys.strings+keys.numbers+keys.others > 0:
		return w.fields(tbl)
	case w.loose:
	case err != nil:
		return nil, err
	case keys.strings > 0:
		return w.fields(tbl)
	case keys.numbers > 0:
		return w.list(tbl, keys.numbers)
	}
	return w.empty, nil
}

// listLength is the length of a table that is a list, if perhaps one with holes; a few elements far away from the others
// are none of it.
func listLength(tbl *lua.LTable) int {
	n, filled := tbl.Len(), 0
	for i := 1; i <= n; i++ {
		if tbl.RawGetInt(i) != lua.LNil {
			filled++
		}
	}
	if n <= 2*filled {
		return n
	}
	for n = 1; tbl.RawGetInt(n+1) != lua.LNil; n++ {
	}
	return n
}

func (w *treeWriter) fields(tbl *lua.LTable) (any, *TreeError) {
	fields := map[string]any{}
	var err *TreeError
	tbl.ForEach(func(k, v lua.LValue) {
		if err != nil {
			return
		}
		switch k.(type) {
		case lua.LString, lua.LNumber, lua.LBool: // of which only strings come here in a strict tree
		default:
			err = &TreeError{Reason: "a " + k.Type().String() + " cannot be a key here"}
			return
		}
		name := k.String()
		w.bytes += len(name)
		fields[name], err = w.value(v)
		err = err.below(name)
	})
	if err != nil {
		return nil, err
	}
	return fields, nil
}

func (w *treeWriter) list(tbl *lua.LTable, n int) (any, *TreeError) {
	if w.values+n > maxTreeValues {
		return nil, tooManyValues()
	}
	list := make([]any, n)
	for i := range list {
		var err *TreeError
		if list[i], err = w.value(tbl.RawGetInt(i + 1)); err != nil {
			return nil, err.below("[" + strconv.Itoa(i+1) + "]")
		}
	}
	return list, nil
}

type tableKeys struct{ strings, numbers, others, highest int }

func keysOf(tbl *lua.LTable) (tableKeys, *TreeError) {
	var keys tableKeys
	var odd lua.LValue
	tbl.ForEach(func(k, _ lua.LValue) {
		switch k := k.(type) {
		case lua.LString:
			keys.strings++
		case lua.LNumber:
			if n := int(k); lua.LNumber(n) == k && n > 0 {
				keys.numbers++
				keys.highest = max(keys.highest, n)
			} else {
				odd = k
				keys.others++
			}
		default:
			odd = k
			keys.others++
		}
	})
	switch {
	case odd != nil && odd.Type() == lua.LTNumber:
		return keys, &TreeError{Reason: "key " + odd.String() + " is no position in a list and no name"}
	case odd != nil:
		return keys, &TreeError{Reason: "a " + odd.Type().String() + " cannot be a key here"}
	case keys.strings > 0 && keys.numbers > 0:
		return keys, &TreeError{Reason: "a table is either a list or has named fields, not both"}
	case keys.highest != keys.numbers:
		for i := 1; ; i++ {
			if tbl.RawGetInt(i) == lua.LNil {
				return keys, &TreeError{Reason: fmt.Sprintf("the list has no element %d but has an element %d", i, keys.highest)}
			}
		}
	}
	return keys, nil
}

// below puts one step in front of the path; a nil error stays nil.
func (e *TreeError) below(step string) *TreeError {
	if e == nil {
		return nil
	}
	switch {
	case e.Path == "":
		e.Path = step
	case e.Path[0] == '[':
		e.Path = step + e.Path
	default:
		e.Path = step + "." + e.Path
	}
	return e
}

// FromTree makes a Lua value of a plain tree: what ToTree gives, also integers, json.Number, byte
// slices, typed slices and maps with string keys, and Treer. An empty struct is an empty table. A nil
// in a list or map is an absence. What has no Lua form (a channel, a function) becomes nil.
func FromTree(L *lua.LState, tree any) lua.LValue {
	switch t := tree.(type) {
	case nil:
		return lua.LNil
	case lua.LValue:
		return t
	case bool:
		return lua.LBool(t)
	case float64:
		return lua.LNumber(t)
	case int:
		return lua.LNumber(t)
	case int64:
		return lua.LNumber(t)
	case string:
		return lua.LString(t)
	case []byte:
		return lua.LString(t)
	case json.Number:
		if f, err := t.Float64(); err == nil {
			return lua.LNumber(f)
		}
		return lua.LString(t)
	case []any:
		tbl := L.CreateTable(len(t), 0)
		for i, v := range t {
			tbl.RawSetInt(i+1, FromTree(L, v))
		}
		return tbl
	case map[string]any:
		tbl := L.CreateTable(0, len(t))
		for k, v := range t {
			tbl.RawSetString(k, FromTree(L, v))
		}
		return tbl
	case Treer:
		inner, err := t.Tree()
		if err != nil {
			return lua.LNil
		}
		return FromTree(L, inner)
	}
	return fromReflected(L, reflect.ValueOf(tree))
}

func fromReflected(L *lua.LState, v reflect.Value) lua.LValue {
	switch v.Kind() {
	case reflect.Bool:
		return lua.LBool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return lua.LNumber(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return lua.LNumber(v.Uint())
	case reflect.Float32, reflect.Float64:
		return lua.LNumber(v.Float())
	case reflect.String:
		return lua.LString(v.String())
	case reflect.Slice, reflect.Array:
		tbl := L.CreateTable(v.Len(), 0)
		for i := range v.Len() {
			tbl.RawSetInt(i+1, FromTree(L, v.Index(i).Interface()))
		}
		return tbl
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return lua.LNil
		}
		tbl := L.CreateTable(0, v.Len())
		for entries := v.MapRange(); entries.Next(); {
			tbl.RawSetString(entries.Key().String(), FromTree(L, entries.Value().Interface()))
		}
		return tbl
	case reflect.Struct:
		if v.NumField() == 0 {
			return L.CreateTable(0, 0)
		}
	}
	return lua.LNil
}
