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
