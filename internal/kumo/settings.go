package kumo

import (
	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// setting is a function of the module that takes a whole number for the host to honour; nil if the host does
// not know it.
func (m *module) setting(path, name string) lua.LGFunction {
	set := m.options.Settings[name]
	if path != "kumo" || set == nil {
		return nil
	}
	return func(L *lua.LState) int {
		v := L.CheckNumber(1)
		n := int(v)
		if lua.LNumber(n) != v || n < 0 {
			L.ArgError(1, "want a whole number from 0, got "+v.String())
		}
		if err := set(L, n); err != nil {
			luastate.Raise(L, err)
		}
		return 0
	}
}
