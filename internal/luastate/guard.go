package luastate

import (
	"fmt"

	lua "github.com/yuin/gopher-lua"
)

// Guarded is a function of the host's, of which nobody knows how it behaves: it is Outside, and a panic in it ends the
// call, whatever the program does to catch it.
func Guarded(fn lua.LGFunction) lua.LGFunction {
	return func(L *lua.LState) int {
		r := runOf(L)
		if r == nil {
			return fn(L)
		}
		r.guarded.Add(1)
		defer func() {
			r.uncount()
			switch p := recover().(type) {
			case nil:
			case *lua.ApiError: // an error of Lua, on its way
				panic(p)
			default:
				if p != callStackOverflow {
					r.stop(fmt.Errorf("%w: %v", ErrPanic, p))
				}
				panic(p)
			}
		}()
		return fn(L)
	}
}

// GuardedModule loads a module of the host's, and guards every function of Go that it brings: what load returns, and
// the types of userdata that it registers.
func GuardedModule(load lua.LGFunction) lua.LGFunction {
	load = Guarded(load)
	return func(L *lua.LState) int {
		before := map[lua.LValue]bool{}
		L.G.Registry.ForEach(func(_, v lua.LValue) { before[v] = true })
		top := L.GetTop()
		results := load(L)
		g := guard{seen: map[lua.LValue]bool{L.G.Global: true, L.G.Registry: true}}
		if ud, ok := L.G.Registry.RawGetString(librariesKey).(*lua.LUserData); ok {
			g.shared, _ = ud.Value.(*libraries)
		}
		for i := top + 1; i <= L.GetTop(); i++ {
			g.value(L.Get(i))
		}
		L.G.Registry.ForEach(func(_, v lua.LValue) {
			if !before[v] {
				g.value(v)
			}
		})
		return results
	}
}

type guard struct {
	seen   map[lua.LValue]bool
	shared *libraries // which are none of the host's
}

func (g *guard) value(v lua.LValue) {
	switch v.(type) {
	case *lua.LTable, *lua.LUserData, *lua.LFunction:
		if g.seen[v] || g.shared.has(v) {
			return
		}
		g.seen[v] = true
	}
	switch v := v.(type) {
	case *lua.LTable:
		g.value(v.Metatable)
		v.ForEach(func(_, field lua.LValue) { g.value(field) })
	case *lua.LUserData:
		g.value(v.Metatable)
	case *lua.LFunction:
		for _, up := range v.Upvalues {
			if up != nil {
				g.value(up.Value())
			}
		}
		if v.IsG {
			v.GFunction = Guarded(v.GFunction)
		}
	}
}
