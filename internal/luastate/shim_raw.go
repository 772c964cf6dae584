package luastate

import lua "github.com/yuin/gopher-lua"

// luaNext shows the view of a library as if it were the library.
func luaNext(L *lua.LState) int {
	tbl, _ := libraryOf(L.CheckTable(1))
	key, value := tbl.Next(L.Get(2))
	if key == lua.LNil {
		L.Push(lua.LNil)
		return 1
	}
	L.Push(key)
	L.Push(value)
	return 2
}

func luaRawGet(L *lua.LState) int {
	tbl, _ := libraryOf(L.CheckTable(1))
	L.Push(tbl.RawGet(L.CheckAny(2)))
	return 1
}

func luaRawSet(L *lua.LState) int {
	tbl, key := L.CheckTable(1), L.CheckAny(2)
	if _, isView := libraryOf(tbl); isView {
		L.RaiseError("the library is read-only")
	}
	L.RawSet(tbl, checkedKey(L, key), L.CheckAny(3))
	L.SetTop(1)
	return 1
}

// luaSetMetatable is for tables alone, as in Lua 5.4: those of other types are shared by all their values.
func luaSetMetatable(L *lua.LState) int {
	tbl := L.CheckTable(1)
	L.CheckTypes(2, lua.LTNil, lua.LTTable)
	if mt, ok := tbl.Metatable.(*lua.LTable); ok && mt.RawGetString("__metatable") != lua.LNil {
		L.RaiseError("cannot change a protected metatable")
	}
	L.SetMetatable(tbl, L.Get(2))
	L.SetTop(1)
	return 1
}
