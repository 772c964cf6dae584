package kumo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// MakeError is a kumo.make_* call that was refused.
type MakeError struct {
	Func  string // "make_queue_config"
	File  string // where it was called, if from Lua
	Line  int
	Table string // its argument as JSON
	Err   error
}

// Error stands between "deserialize error: " and ", while processing " and the table, and has "invalid" in it where it is
// about a value: helper modules of policies look for these words, and take what has none for an option that nobody knows.
func (e *MakeError) Error() string {
	reason := e.Err.Error()
	if !strings.Contains(reason, "unknown field") {
		reason = "invalid value: " + reason
	}
	return "deserialize error: " + reason + ", while processing " + e.Table
}

func (e *MakeError) Unwrap() error { return e.Err }

// config is what a kumo.make_* call returns to Lua.
type config struct {
	name  string // of the function that made it
	value any
	table *lua.LTable // the value as Lua sees it, once it has looked
}

// Tree lets json_encode and other configs take in what a config holds.
func (c *config) Tree() (any, error) {
	if t, ok := c.value.(luastate.Treer); ok {
		return t.Tree()
	}
	return nil, fmt.Errorf("what kumo.%s returns cannot be looked into", c.name)
}

// Config is the Go value in what a kumo.make_* call returned; ok is false for any other Lua value.
func Config(v lua.LValue) (value any, ok bool) {
	if ud, ok := v.(*lua.LUserData); ok {
		if c, ok := ud.Value.(*config); ok {
			return c.value, true
		}
	}
	return nil, false
}

// maker is the Lua function kumo.NAME.
func (m *module) maker(name string, makeValue func(any) (any, error)) lua.LGFunction {
	return func(L *lua.LState) int {
		tbl, ok := L.Get(1).(*lua.LTable)
		if !ok {
			L.RaiseError("kumo.%s wants a table, got %s", name, L.Get(1).Type().String())
		}
		value, err := makeFrom(tbl, m.options.Empty, makeValue)
		if err != nil {
			e := &MakeError{Func: name, Table: describe(tbl), Err: err}
			e.File, e.Line = luastate.Where(L)
			luastate.Raise(L, e)
		}
		L.Push(&lua.LUserData{Value: &config{name: name, value: value}, Env: L.Env, Metatable: m.configType(L)})
		return 1
	}
}

func makeFrom(tbl *lua.LTable, empty any, makeValue func(any) (any, error)) (any, error) {
	tree, err := luastate.ToTree(tbl, empty)
	if err != nil {
		return nil, err
	}
	return makeValue(tree)
}

func (m *module) configType(L *lua.LState) *lua.LTable {
	return m.metatable(L, "config", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index": func(L *lua.LState) int {
				L.Push(checkConfig(L).RawGet(L.Get(2)))
				return 1
			},
			"__len": func(L *lua.LState) int {
				L.Push(lua.LNumber(checkConfig(L).Len()))
				return 1
			},
			"__pairs": func(L *lua.LState) int {
				L.Push(L.GetGlobal("next"))
				L.Push(checkConfig(L))
				return 2
			},
			"__newindex": func(L *lua.LState) int {
				L.RaiseError("a config cannot be changed after it was made")
				return 0
			},
			"__tostring": func(L *lua.LState) int {
				text := "config"
				if c, ok := L.CheckUserData(1).Value.(*config); ok {
					text = strings.TrimPrefix(c.name, "make_")
				}
				L.Push(lua.LString(text))
				return 1
			},
		})
	})
}

// checkConfig is the first argument's content as a table.
func checkConfig(L *lua.LState) *lua.LTable {
	c, ok := L.CheckUserData(1).Value.(*config)
	if !ok {
		L.ArgError(1, "config expected")
	}
	if c.table == nil {
		tree, err := c.Tree()
		if err != nil {
			luastate.Raise(L, err)
		}
		tbl, ok := luastate.FromTree(L, tree).(*lua.LTable)
		if !ok {
			L.RaiseError("what kumo.%s returns cannot be looked into", c.name)
		}
		c.table = tbl
	}
	return c.table
}

// maxDescription bounds the table in the text of an error.
const maxDescription = 4096

// describe writes any table as JSON as far as it goes: it is for people to recognise.
func describe(tbl *lua.LTable) string {
	out := string(appendDescription(nil, tbl, 0))
	if len(out) > maxDescription {
		out = strings.ToValidUTF8(out[:maxDescription], "") + "..."
	}
	return out
}

// appendDescription stops when there is more than is shown. One table may stand in many places, of which only the
// ones that are shown may cost time: nested, they are more than anybody can wait for.
func appendDescription(out []byte, v lua.LValue, depth int) []byte {
	switch v := v.(type) {
	case *lua.LNilType:
		return append(out, "null"...)
	case lua.LBool, lua.LNumber:
		return append(out, v.String()...)
	case lua.LString:
		return appendText(out, string(v[:min(len(v), maxDescription)]))
	case *lua.LTable:
		if depth == 8 {
			return append(out, `"..."`...)
		}
		return appendTable(out, v, depth)
	}
	return appendText(out, v.Type().String())
}

func appendTable(out []byte, tbl *lua.LTable, depth int) []byte {
	type field struct {
		name  string
		value lua.LValue
	}
	var fields []field
	isList := tbl.Len() > 0
	tbl.ForEach(func(k, v lua.LValue) {
		if len(fields) >= maxDescription {
			return
		}
		isList = isList && k.Type() == lua.LTNumber
		fields = append(fields, field{k.String(), v})
	})
	open, end := byte('{'), byte('}')
	if isList {
		open, end = '[', ']' // ForEach has given them in order
	} else {
		slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	}
	out = append(out, open)
	for i, f := range fields {
		if len(out) > maxDescription {
			return out
		}
		if i > 0 {
			out = append(out, ',')
		}
		if !isList {
			out = append(appendText(out, f.name[:min(len(f.name), maxDescription)]), ':')
		}
		out = appendDescription(out, f.value, depth+1)
	}
	return append(out, end)
}

func appendText(out []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil {
		return strconv.AppendQuote(out, text)
	}
	return append(out, quoted...)
}
