package luastate

import (
	"fmt"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// Options says what a state has. The zero value has the standard library without what is dangerous, and the default
// limits.
type Options struct {
	Limits Limits
	// Allow names what else of the standard library there is: of Dangerous.
	Allow []string
	// Forbid names libraries and functions that there are not, such as "io" and "os.getenv". A call of one is an
	// error that says so.
	Forbid []string
	// Setup adds to a new state, before the program runs. An error of it is the one of NewState.
	Setup func(L *lua.LState) error
}

// Dangerous is what a state has only where Options.Allow names it: programs, files run as Lua, and what gets behind
// the walls of the library.
var Dangerous = [...]string{"debug", "dofile", "io.popen", "loadfile", "os.execute"}

// Validate says what the lists cannot name, beginning with the name of the list.
func (o *Options) Validate() error {
	for _, name := range o.Allow {
		if !slices.Contains(Dangerous[:], name) {
			return fmt.Errorf("%s: %q is not one of %s", "Allow", name, strings.Join(Dangerous[:], ", "))
		}
	}
	for _, name := range o.Forbid {
		if lib, _, _ := strings.Cut(name, "."); name == "" || slices.Contains([]string{"_G", "package", "require", "kumo"}, lib) {
			return fmt.Errorf("%s: %q is none of the library, or no state could do without it", "Forbid", name)
		}
	}
	return nil
}

// openLibs opens the standard library, io in a form of our own. Channels are a thing of gopher-lua alone.
func openLibs(L *lua.LState) {
	for _, lib := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
		{lua.StringLibName, lua.OpenString},
		{lua.MathLibName, lua.OpenMath},
		{lua.CoroutineLibName, lua.OpenCoroutine},
		{lua.OsLibName, lua.OpenOs},
		{lua.DebugLibName, lua.OpenDebug},
	} {
		L.Push(L.NewFunction(lib.open))
		L.Push(lua.LString(lib.name))
		L.Call(1, 0)
	}
	openIO(L)
}

// restrict takes away what the options do not have.
func restrict(L *lua.LState, o *Options) {
	for _, name := range Dangerous {
		if !slices.Contains(o.Allow, name) {
			forbid(L, name)
		}
	}
	for _, name := range o.Forbid {
		forbid(L, name)
	}
}

// forbid replaces a function, or each of a library, by one that says that it is not available. Of debug
// only traceback stays.
func forbid(L *lua.LState, name string) {
	lib, function, inLib := strings.Cut(name, ".")
	if !inLib {
		lib, function = "_G", name
	}
	tbl, ok := L.G.Global.RawGetString(lib).(*lua.LTable)
	if !ok {
		return
	}
	switch v := tbl.RawGetString(function).(type) {
	case *lua.LFunction:
		tbl.RawSetString(function, L.NewFunction(absent(name)))
	case *lua.LTable:
		each := map[string]lua.LGFunction{}
		v.ForEach(func(key, value lua.LValue) {
			if full := name + "." + key.String(); value.Type() == lua.LTFunction && full != "debug.traceback" {
				each[key.String()] = absent(full)
			}
		})
		setAll(L, v, each)
	}
}

// protected are the libraries that a program cannot change.
var protected = []string{
	lua.TabLibName, lua.StringLibName, lua.MathLibName, lua.CoroutineLibName, lua.IoLibName, lua.OsLibName, lua.DebugLibName, "utf8",
}

// protectLibs makes the libraries and the metatable of strings read-only.
func protectLibs(L *lua.LState) {
	loaded, _ := L.G.Registry.RawGetString("_LOADED").(*lua.LTable)
	for _, name := range protected {
		lib, ok := L.G.Global.RawGetString(name).(*lua.LTable)
		if !ok {
			continue
		}
		view := ReadOnly(L, name, lib)
		L.G.Global.RawSetString(name, view)
		if loaded != nil {
			loaded.RawSetString(name, view)
		}
	}
	strings, ok := L.GetMetatable(lua.LString("")).(*lua.LTable)
	if !ok {
		return
	}
	// Looking up a method goes straight to the library; a program that asks for the metatable sees the view of it.
	view := ReadOnly(L, "string metatable", strings)
	view.Metatable.(*lua.LTable).RawSetString("__index", L.NewFunction(func(L *lua.LState) int {
		if L.Get(2) == lua.LString("__index") {
			L.Push(L.G.Global.RawGetString(lua.StringLibName))
		} else {
			L.Push(strings.RawGet(L.Get(2)))
		}
		return 1
	}))
	strings.RawSetString("__metatable", view)
}

// behind is the field of a view's metatable that has the library itself. No program gets at the metatable.
const behind = "luastate.library"

// ReadOnly is a view of a library, for programs: what is there cannot be changed. While a program loads, it may
// still add functions of other names, as is the custom with string and table.
func ReadOnly(L *lua.LState, name string, lib *lua.LTable) *lua.LTable {
	mt := L.CreateTable(0, 5)
	mt.RawSetString(behind, lib)
	mt.RawSetString("__index", lib)
	mt.RawSetString("__metatable", lua.LFalse)
	mt.RawSetString("__newindex", L.NewFunction(func(L *lua.LState) int {
		key := L.CheckAny(2)
		if Loaded(L) || lib.RawGet(key) != lua.LNil {
			L.RaiseError("%s is read-only: cannot set %s", name, toString(L, key))
		}
		lib.RawSet(checkedKey(L, key), L.Get(3))
		return 0
	}))
	view := L.CreateTable(0, 0)
	view.Metatable = mt
	return view
}

// libraryOf is the library that a table is the view of, and the table itself if it is none.
func libraryOf(tbl *lua.LTable) (lib *lua.LTable, isView bool) {
	if mt, ok := tbl.Metatable.(*lua.LTable); ok {
		if lib, ok := mt.RawGetString(behind).(*lua.LTable); ok {
			return lib, true
		}
	}
	return tbl, false
}
