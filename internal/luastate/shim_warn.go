package luastate

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// warnKey is set in the registry of a state that shows warnings.
const warnKey = "luastate.warn"

// luaWarn is silent until warn '@on', as in Lua; then it prints, and where a host sends what the program prints the
// warnings go too.
func luaWarn(L *lua.LState) int {
	message := text{L: L}
	message.add("Lua warning: ")
	for i := 1; i <= max(L.GetTop(), 1); i++ {
		message.add(stringArg(L, i))
	}
	if first := stringArg(L, 1); L.GetTop() == 1 && strings.HasPrefix(first, "@") {
		switch first {
		case "@on":
			L.G.Registry.RawSetString(warnKey, lua.LTrue)
		case "@off":
			L.G.Registry.RawSetString(warnKey, lua.LFalse)
		}
		return 0
	}
	if print := L.GetGlobal("print"); L.G.Registry.RawGetString(warnKey) == lua.LTrue && callable(L, print) {
		L.Push(print)
		message.push()
		L.Call(1, 0)
	}
	return 0
}
