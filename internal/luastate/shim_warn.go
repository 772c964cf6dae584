package luastate

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// newWarn is warn of a new state. As in Lua, it is silent until warn '@on'; then it prints, and where a
// host sends what the program prints the warnings go too.
func newWarn() lua.LGFunction {
	on := false
	return func(L *lua.LState) int {
		message := text{L: L}
		message.add("Lua warning: ")
		for i := 1; i <= max(L.GetTop(), 1); i++ {
			message.add(L.CheckString(i))
		}
		if first := L.CheckString(1); L.GetTop() == 1 && strings.HasPrefix(first, "@") {
			switch first {
			case "@on":
				on = true
			case "@off":
				on = false
			}
			return 0
		}
		if print := L.GetGlobal("print"); on && callable(L, print) {
			L.Push(print)
			message.push()
			L.Call(1, 0)
		}
		return 0
	}
}
