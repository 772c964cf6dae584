package luastate

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// shimRead gives the read functions the formats of Lua 5.4, which have no star: "a", "l", "n".
func shimRead(L *lua.LState) {
	holders := []lua.LValue{L.G.Global.RawGetString(lua.IoLibName)}
	if methods, ok := L.GetTypeMetatable("FILE*").(*lua.LTable); ok { // not if io was never opened
		holders = append(holders, methods.RawGetString("__index"))
	}
	for _, holder := range holders {
		tbl, ok := holder.(*lua.LTable)
		if !ok {
			continue
		}
		read, ok := tbl.RawGetString("read").(*lua.LFunction)
		if !ok || !read.IsG {
			continue
		}
		tbl.RawSetString("read", L.NewFunction(func(L *lua.LState) int {
			for i := range L.GetTop() {
				if format, ok := L.Get(i + 1).(lua.LString); ok && !strings.HasPrefix(string(format), "*") {
					L.Replace(i+1, "*"+format)
				}
			}
			return read.GFunction(L)
		}))
	}
}

// shimMatch makes string.match return nil where nothing matches, and not nothing at all.
func shimMatch(L *lua.LState) {
	tbl, ok := L.G.Global.RawGetString(lua.StringLibName).(*lua.LTable)
	if !ok {
		return
	}
	match, ok := tbl.RawGetString("match").(*lua.LFunction)
	if !ok || !match.IsG {
		return
	}
	tbl.RawSetString("match", L.NewFunction(func(L *lua.LState) int {
		if n := match.GFunction(L); n > 0 {
			return n
		}
		L.Push(lua.LNil)
		return 1
	}))
}

// isYieldable tells a coroutine from the main thread.
func isYieldable(L *lua.LState) int {
	L.Push(lua.LBool(L.Parent != nil))
	return 1
}
