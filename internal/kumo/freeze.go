package kumo

import (
	"errors"
	"fmt"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// frozen is a Lua value that belongs to no state: nil, a bool, a float64, a string, a *frozenTable or a thaw. It is
// never written to, so many states may read it at once.
type frozen any

// frozenTable is a table with whatever keys, also both of a list and of a map.
type frozenTable struct {
	list   []frozen
	fields []frozenField
}

type frozenField struct{ key, value frozen }

// thaw makes a new userdata in L.
type thaw func(m *module, L *lua.LState) lua.LValue

// freezer is the Go value of a userdata that may be kept. What its thaw makes shares with it only what nobody
// writes to any more. One that may be large has a Size, about the bytes that it takes.
type freezer interface{ freeze() thaw }

// userdataSize is what a userdata takes besides its Size.
const userdataSize = 1024

// Bounds of what is kept of one call.
const (
	maxFrozenDepth  = 64
	maxFrozenValues = 1 << 20
	maxFrozenSize   = 16 << 20
)

var errManyFrozen = fmt.Errorf("it has more than %d values", maxFrozenValues)

// icebox counts while it freezes.
type icebox struct {
	depth, values int
	size          int64 // about what it takes in memory
}

func (b *icebox) freeze(v lua.LValue) (frozen, error) {
	b.values++
	b.size += 16
	if text, ok := v.(lua.LString); ok {
		b.size += int64(len(text))
	}
	switch {
	case b.values > maxFrozenValues:
		return nil, errManyFrozen
	case b.size > maxFrozenSize:
		return nil, fmt.Errorf("it is larger than %d MiB", maxFrozenSize>>20)
	case b.depth > maxFrozenDepth:
		return nil, fmt.Errorf("tables are nested more than %d deep", maxFrozenDepth)
	}
	switch v := v.(type) {
	case *lua.LNilType:
		return nil, nil
	case lua.LBool:
		return bool(v), nil
	case lua.LNumber:
		return float64(v), nil
	case lua.LString:
		return strings.Clone(string(v)), nil // which may be cut from a much longer one
	case *lua.LTable:
		return b.table(v)
	case *lua.LUserData:
		if c, ok := v.Value.(*luaMap); ok {
			return c.freezeIn(b)
		}
		if t := freezeValue(v.Value); t != nil {
			b.size += userdataSize
			if large, ok := v.Value.(interface{ Size() int }); ok {
				b.size += int64(large.Size())
			}
			return t, nil
		}
	}
	return nil, errors.New("a " + v.Type().String() + " cannot be kept")
}

func freezeValue(v any) thaw {
	switch v := v.(type) {
	case freezer:
		return v.freeze()
	case time.Time:
		return func(m *module, L *lua.LState) lua.LValue { return m.newTime(L, v) }
	case time.Duration:
		return func(m *module, L *lua.LState) lua.LValue { return m.newDelta(L, v) }
	}
	return nil
}

func (b *icebox) table(tbl *lua.LTable) (frozen, error) {
	b.depth++
	defer func() { b.depth-- }()
	length := tbl.Len()
	if length > maxFrozenValues {
		return nil, errManyFrozen
	}
	t := &frozenTable{list: make([]frozen, 0, length)}
	for i := 1; i <= length; i++ {
		v, err := b.freeze(tbl.RawGetInt(i))
		if err != nil {
			return nil, err
		}
		t.list = append(t.list, v)
	}
	var err error
	tbl.ForEach(func(k, v lua.LValue) {
		if n, ok := k.(lua.LNumber); err != nil || ok && n >= 1 && n <= lua.LNumber(length) && n == lua.LNumber(int(n)) {
			return
		}
		var f frozenField
		if f.key, err = b.key(k); err != nil {
			return
		}
		f.value, err = b.freeze(v)
		t.fields = append(t.fields, f)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (b *icebox) key(k lua.LValue) (frozen, error) {
	switch k.(type) {
	case lua.LString, lua.LNumber, lua.LBool:
		return b.freeze(k)
	}
	return nil, errors.New("a " + k.Type().String() + " cannot be a key of what is kept")
}

// thaw makes a frozen value one of L.
func (m *module) thaw(L *lua.LState, v frozen) lua.LValue {
	switch v := v.(type) {
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	case string:
		return lua.LString(v)
	case thaw:
		return v(m, L)
	case *frozenTable:
		tbl := L.CreateTable(len(v.list), len(v.fields))
		for i, item := range v.list {
			tbl.RawSetInt(i+1, m.thaw(L, item))
		}
		for _, f := range v.fields {
			tbl.RawSet(m.thaw(L, f.key), m.thaw(L, f.value))
		}
		return tbl
	}
	return lua.LNil
}

// A config is not written to after it was made, but for what Lua has looked at of it.
func (c *config) freeze() thaw {
	name, value := c.name, c.value
	return func(m *module, L *lua.LState) lua.LValue {
		return &lua.LUserData{Value: &config{name: name, value: value}, Env: L.Env, Metatable: m.configType(L)}
	}
}

func (c *config) Size() int {
	tree, err := plainConfig(c.value)
	if err != nil {
		return 0
	}
	return treeSize(tree)
}

// treeSize is about what a plain tree takes in memory.
func treeSize(tree any) int {
	size := 32
	switch tree := tree.(type) {
	case string:
		size += len(tree)
	case []any:
		for _, v := range tree {
			size += treeSize(v)
		}
	case map[string]any:
		for name, v := range tree {
			size += len(name) + treeSize(v)
		}
	}
	return size
}

func (a *Address) Size() int { return len(a.User) + len(a.Domain) + len(a.Email) }

func (a *Address) freeze() thaw {
	address := *a
	return func(m *module, L *lua.LState) lua.LValue { return m.address(L, address) }
}
