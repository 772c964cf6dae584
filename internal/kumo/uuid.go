package kumo

import (
	"fmt"

	"github.com/google/uuid"
	lua "github.com/yuin/gopher-lua"
)

// uuidFunction is kumo.uuid.NAME.
func (m *module) uuidFunction(name string) lua.LGFunction {
	switch name {
	case "new_v1":
		return m.uuidMaker("uuid.new_v1", uuid.NewUUID)
	case "new_v4":
		return m.uuidMaker("uuid.new_v4", uuid.NewRandom)
	case "new_v6":
		return m.uuidMaker("uuid.new_v6", uuid.NewV6)
	case "new_v7":
		return m.uuidMaker("uuid.new_v7", uuid.NewV7)
	case "parse":
		return m.uuidParse
	}
	return nil
}

func (m *module) uuidMaker(function string, make func() (uuid.UUID, error)) lua.LGFunction {
	return func(L *lua.LState) int {
		id, err := make()
		if err != nil {
			fail(L, function, err)
		}
		L.Push(m.newUUID(L, uuidValue{id}))
		return 1
	}
}

// uuidParse is kumo.uuid.parse(text): hyphenated, simple, in braces, or as a URN.
func (m *module) uuidParse(L *lua.LState) int {
	text := L.CheckString(1)
	err := uuid.Validate(text)
	var id uuid.UUID
	if err == nil {
		id, err = uuid.Parse(text)
	}
	if err != nil {
		fail(L, "uuid.parse", fmt.Errorf("%q is no UUID: %w", excerpt(text), err))
	}
	L.Push(m.newUUID(L, uuidValue{id}))
	return 1
}

// uuidValue is a UUID in Lua.
type uuidValue struct{ id uuid.UUID }

func (m *module) newUUID(L *lua.LState, u uuidValue) *lua.LUserData {
	mt := m.metatable(L, "UUID", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index": uuidIndex, "__tostring": uuidText, "__eq": uuidEqual,
		})
	})
	return &lua.LUserData{Value: u, Env: L.Env, Metatable: mt}
}

func (u uuidValue) freeze() thaw {
	return func(m *module, L *lua.LState) lua.LValue { return m.newUUID(L, u) }
}

// Tree makes the text that print shows of it.
func (u uuidValue) Tree() (any, error) { return u.id.String(), nil }

func checkUUID(L *lua.LState, n int) uuidValue {
	u, ok := L.CheckUserData(n).Value.(uuidValue)
	if !ok {
		L.ArgError(n, "UUID expected")
	}
	return u
}

func uuidIndex(L *lua.LState) int {
	id := checkUUID(L, 1).id
	var v string
	switch field := L.Get(2).String(); field {
	case "hyphenated":
		v = id.String()
	case "simple":
		v = fmt.Sprintf("%x", id[:])
	case "braced":
		v = "{" + id.String() + "}"
	case "urn":
		v = id.URN()
	case "bytes":
		v = string(id[:])
	default:
		L.RaiseError("a UUID has no field %q: it has hyphenated, simple, braced, urn and bytes", excerpt(field))
	}
	L.Push(lua.LString(v))
	return 1
}

func uuidText(L *lua.LState) int {
	L.Push(lua.LString(checkUUID(L, 1).id.String()))
	return 1
}

func uuidEqual(L *lua.LState) int {
	L.Push(lua.LBool(checkUUID(L, 1) == checkUUID(L, 2)))
	return 1
}
