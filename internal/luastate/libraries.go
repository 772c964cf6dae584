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
	// Unruly says that there are functions of Go in the state that may not return when their context ends. Each call
	// then has a goroutine of its own, which is left behind if it must be.
	Unruly bool
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

// libraries is the standard library as the options of a program have it. Its functions know nothing of the state that
// calls them but what they find in it, and its tables are never changed: so all states of a program have the same.
type libraries struct {
	globals map[string]lua.LValue
	tables  map[string]*lua.LTable
	ours    map[lua.LValue]bool // the tables and functions
}

// has reports whether a value is one of the libraries'.
func (libs *libraries) has(v lua.LValue) bool { return libs != nil && libs.ours[v] }

// sharedLibraries are those that states share. The others, io and package, have what is open and loaded in them.
var sharedLibraries = []struct {
	name string
	open lua.LGFunction
}{
	{lua.TabLibName, lua.OpenTable},
	{lua.StringLibName, lua.OpenString},
	{lua.MathLibName, lua.OpenMath},
	{lua.CoroutineLibName, lua.OpenCoroutine},
	{lua.OsLibName, lua.OpenOs},
	{lua.DebugLibName, lua.OpenDebug},
	{"utf8", func(*lua.LState) int { return 0 }}, // by the shim
}

func openLibrary(L *lua.LState, name string, open lua.LGFunction) {
	L.Push(L.NewFunction(open))
	L.Push(lua.LString(name))
	L.Call(1, 0)
}

func newLibraries(o *Options) *libraries {
	L := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer L.Close()
	openLibrary(L, lua.LoadLibName, lua.OpenPackage)
	openLibrary(L, lua.BaseLibName, lua.OpenBase)
	for _, lib := range sharedLibraries {
		openLibrary(L, lib.name, lib.open)
	}
	Shim(L)
	restrict(L, o)

	libs := &libraries{globals: map[string]lua.LValue{}, tables: map[string]*lua.LTable{}, ours: map[lua.LValue]bool{}}
	own := func(v lua.LValue) {
		if v.Type() == lua.LTFunction || v.Type() == lua.LTTable {
			libs.ours[v] = true
		}
	}
	L.G.Global.ForEach(func(name, v lua.LValue) {
		if v.Type() != lua.LTTable {
			libs.globals[name.String()] = v
			own(v)
		}
	})
	for _, lib := range sharedLibraries {
		tbl := L.G.Global.RawGetString(lib.name).(*lua.LTable)
		if lib.name == lua.StringLibName {
			tbl.RawSetString("__index", lua.LNil) // gopher-lua has it for the metatable of strings too
		}
		libs.tables[lib.name] = tbl
		own(tbl)
		tbl.ForEach(func(_, v lua.LValue) { own(v) })
	}
	return libs
}

// libraries are made for the first state of a program, and again if one has other options.
func (p *Program) libraries(o *Options) *libraries {
	key := strings.Join(o.Allow, " ") + ";" + strings.Join(o.Forbid, " ")
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.libs == nil || p.libsFor != key || slices.Contains(o.Allow, lua.DebugLibName) { // debug gets behind every wall
		p.libs, p.libsFor = newLibraries(o), key
	}
	return p.libs
}

const librariesKey = "luastate.libraries"

// install gives a new state the libraries.
func (libs *libraries) install(L *lua.LState, o *Options) {
	L.G.Registry.RawSetString(librariesKey, &lua.LUserData{Value: libs, Metatable: lua.LNil})
	openLibrary(L, lua.LoadLibName, lua.OpenPackage)
	for name, v := range libs.globals {
		L.G.Global.RawSetString(name, v)
	}
	loaded, _ := L.G.Registry.RawGetString("_LOADED").(*lua.LTable)
	L.G.Global.RawSetString("_G", L.G.Global)
	loaded.RawSetString("_G", L.G.Global)
	loaded.RawSetString(lua.LoadLibName, L.G.Global.RawGetString(lua.LoadLibName))
	for name, tbl := range libs.tables {
		view := readOnly(L, name, tbl, true)
		L.G.Global.RawSetString(name, view)
		loaded.RawSetString(name, view)
	}
	installStringMethods(L, libs.tables[lua.StringLibName])
	openIO(L)
	restrictIO(L, o)
	view := ReadOnly(L, lua.IoLibName, L.G.Global.RawGetString(lua.IoLibName).(*lua.LTable))
	L.G.Global.RawSetString(lua.IoLibName, view)
	loaded.RawSetString(lua.IoLibName, view)
}

// installStringMethods makes the functions of the library the methods of strings. To look one up goes straight to the
// library; a program that asks for the metatable sees a view of it.
func installStringMethods(L *lua.LState, library *lua.LTable) {
	mt := L.CreateTable(0, 2)
	mt.RawSetString("__index", library)
	L.SetMetatable(lua.LString(""), mt)
	view := ReadOnly(L, "string metatable", mt)
	view.Metatable.(*lua.LTable).RawSetString("__index", L.NewFunction(func(L *lua.LState) int {
		if L.Get(2) == lua.LString("__index") {
			L.Push(L.G.Global.RawGetString(lua.StringLibName))
		} else {
			L.Push(mt.RawGet(L.Get(2)))
		}
		return 1
	}))
	mt.RawSetString("__metatable", view)
	L.G.Registry.RawSetString(stringsKey, mt)
}

// stringsKey is where the metatable of strings itself is.
const stringsKey = "luastate.strings"

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

// restrictIO is restrict for the library io, which each state has for itself.
func restrictIO(L *lua.LState, o *Options) {
	if !slices.Contains(o.Allow, "io.popen") {
		forbid(L, "io.popen")
	}
	for _, name := range o.Forbid {
		if name == lua.IoLibName || strings.HasPrefix(name, "io.") {
			forbid(L, name)
		}
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

// behind is the field of a view's metatable that has the library itself. No program gets at the metatable.
const behind = "luastate.library"

// ReadOnly is a view of a library, for programs: what is there cannot be changed. While a program loads, it may
// still add functions of other names, as is the custom with string and table.
func ReadOnly(L *lua.LState, name string, lib *lua.LTable) *lua.LTable {
	return readOnly(L, name, lib, false)
}

// readOnly is ReadOnly; a library that others share is copied before something is added to it.
func readOnly(L *lua.LState, name string, lib *lua.LTable, shared bool) *lua.LTable {
	mt := L.CreateTable(0, 4)
	mt.RawSetString(behind, lib)
	mt.RawSetString("__index", lib)
	mt.RawSetString("__metatable", lua.LFalse)
	mt.RawSetString("__newindex", L.NewFunction(func(L *lua.LState) int {
		key := L.CheckAny(2)
		if Loaded(L) || lib.RawGet(key) != lua.LNil {
			L.RaiseError("%s is read-only: cannot set %s", name, toString(L, key))
		}
		if shared {
			lib, shared = copyOf(L, lib), false
			mt.RawSetString(behind, lib)
			mt.RawSetString("__index", lib)
			if strings, ok := L.G.Registry.RawGetString(stringsKey).(*lua.LTable); ok && name == lua.StringLibName {
				strings.RawSetString("__index", lib)
			}
		}
		lib.RawSet(checkedKey(L, key), L.Get(3))
		return 0
	}))
	view := L.CreateTable(0, 0)
	view.Metatable = mt
	return view
}

func copyOf(L *lua.LState, tbl *lua.LTable) *lua.LTable {
	own := L.CreateTable(0, 32)
	tbl.ForEach(func(key, value lua.LValue) { own.RawSet(key, value) })
	return own
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
