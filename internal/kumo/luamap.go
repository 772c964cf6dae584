package kumo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// luaMap is an object of Lua that is indexed by more than equality: by domain names, addresses, expressions.
type luaMap struct {
	m     *module
	L     *lua.LState
	index mapIndex
	// fixed says that Lua cannot write to it, and shared that other states read the same index.
	fixed, shared bool
	size          int64 // about what a shared index takes
}

// mapIndex is how a map finds its values.
type mapIndex interface {
	// name is the function that makes such maps.
	name() string
	get(ctx context.Context, key string) (mapped, error)
	set(key string, v mapped) error
	each(yield func(key string, v mapped) error) error
	// empty is a new index of the same kind.
	empty() mapIndex
}

// mapped is a value in a map: one of its state, or one that is kept for all. The zero value is nil.
type mapped struct {
	live lua.LValue
	kept frozen
}

func (v mapped) in(m *module, L *lua.LState) lua.LValue {
	if v.live != nil {
		return v.live
	}
	return m.thaw(L, v.kept)
}

// maxMapKey bounds the key of a map: what is made of it takes many times the memory.
const maxMapKey = 1024

// mapFunction is kumo.domain_map.new and its siblings: of a table, which may be absent, they make a map.
func (m *module) mapFunction(module, name string) lua.LGFunction {
	switch module + "." + name {
	case "domain_map.new":
		return m.mapMaker(func() mapIndex { return &domainIndex{} }, false)
	case "cidr.make_map":
		return m.mapMaker(func() mapIndex { return &cidrIndex{} }, false)
	case "regex_set_map.new":
		return m.mapMaker(func() mapIndex { return &patternIndex{options: m.options} }, true)
	}
	return nil
}

func (m *module) mapMaker(make func() mapIndex, fixed bool) lua.LGFunction {
	return func(L *lua.LState) int {
		c := &luaMap{m: m, L: L, index: make(), fixed: fixed}
		if L.Get(1) != lua.LNil {
			c.fill(L, L.CheckTable(1))
		}
		L.Push(c.userdata())
		return 1
	}
}

// fill takes the entries of a table, in an order that does not depend on how it was made.
func (c *luaMap) fill(L *lua.LState, tbl *lua.LTable) {
	entries := map[string]lua.LValue{}
	var keys []string
	var err error
	tbl.ForEach(func(k, v lua.LValue) {
		if _, ok := k.(lua.LString); !ok {
			err = fmt.Errorf("a key is a string, not a %s", k.Type().String())
			return
		}
		keys = append(keys, k.String())
		entries[k.String()] = v
	})
	slices.Sort(keys)
	for _, key := range keys {
		if err == nil {
			err = c.set(key, entries[key])
		}
	}
	if err != nil {
		fail(L, c.index.name(), err)
	}
}

func (c *luaMap) set(key string, v lua.LValue) error {
	if len(key) > maxMapKey {
		return fmt.Errorf("the key %q is longer than %d bytes", excerpt(key), maxMapKey)
	}
	return c.index.set(key, mapped{live: v})
}

func (c *luaMap) userdata() *lua.LUserData {
	mt := c.m.metatable(c.L, c.index.name(), func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{"__index": mapGet, "__newindex": mapSet})
	})
	return &lua.LUserData{Value: c, Env: c.L.Env, Metatable: mt}
}

func checkMap(L *lua.LState) *luaMap {
	c, ok := L.CheckUserData(1).Value.(*luaMap)
	if !ok {
		L.ArgError(1, "map expected")
	}
	return c
}

// mapKey is the second argument, which must be a string.
func (c *luaMap) key(L *lua.LState) string {
	key, ok := L.Get(2).(lua.LString)
	if !ok {
		fail(L, c.index.name(), fmt.Errorf("a key is a string, not a %s", L.Get(2).Type().String()))
	}
	return string(key)
}

func mapGet(L *lua.LState) int {
	c := checkMap(L)
	v, err := c.index.get(contextOf(L), c.key(L))
	if err != nil {
		fail(L, c.index.name(), err)
	}
	L.Push(v.in(c.m, L))
	return 1
}

func mapSet(L *lua.LState) int {
	c := checkMap(L)
	key := c.key(L)
	var err error
	switch {
	case c.fixed:
		err = errors.New("nothing can be added to this map: give its constructor all entries")
	case c.shared:
		err = c.unshare()
	}
	if err == nil {
		err = c.set(key, L.Get(3))
	}
	if err != nil {
		fail(L, c.index.name(), err)
	}
	return 0
}

// unshare gives a map that was kept, and that other states read, an index of its own.
func (c *luaMap) unshare() error {
	index := c.index.empty()
	if err := c.index.each(index.set); err != nil {
		return err
	}
	c.index, c.shared = index, false
	return nil
}

// freezeIn makes a copy of the map for all states, whose values b freezes.
func (c *luaMap) freezeIn(b *icebox) (frozen, error) {
	b.depth++
	defer func() { b.depth-- }()
	index, fixed, before := c.index, c.fixed, b.size
	if c.shared {
		b.size += c.size
	} else {
		index = c.index.empty()
		if err := c.index.each(func(key string, v mapped) error {
			b.size += mapEntrySize*int64(1+strings.Count(key, ".")) + int64(len(key))
			kept, err := b.freeze(v.in(c.m, c.L))
			if err != nil {
				return fmt.Errorf("%s[%q]: %w", c.index.name(), excerpt(key), err)
			}
			return index.set(strings.Clone(key), mapped{kept: kept})
		}); err != nil {
			return nil, err
		}
	}
	if large, ok := index.(interface{ Size() int }); ok && !c.shared {
		b.size += int64(large.Size())
	}
	size := b.size - before
	return thaw(func(m *module, L *lua.LState) lua.LValue {
		return (&luaMap{m: m, L: L, index: index, fixed: fixed, shared: true, size: size}).userdata()
	}), nil
}

// mapEntrySize is about what an entry of a map takes, for each label of its key.
const mapEntrySize = 256

var errMapInMap = errors.New("a map in a map cannot be written as data")

// Tree makes a table of the map.
func (c *luaMap) Tree() (any, error) {
	if c.m.inTree {
		// Maps may contain each other in circles, or one the same other a thousand times.
		return nil, errMapInMap
	}
	c.m.inTree = true
	defer func() { c.m.inTree = false }()
	tbl := c.L.NewTable()
	if err := c.index.each(func(key string, v mapped) error {
		tbl.RawSetString(key, v.in(c.m, c.L))
		return nil
	}); err != nil {
		return nil, err
	}
	return luastate.ToTree(tbl, struct{}{})
}
