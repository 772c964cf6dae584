package luastate

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// SearchIn makes require look for the program's own modules in folder: name.lua, then name/init.lua,
// dots in the name being folders. Without it, require knows only what package.preload has.
func SearchIn(L *lua.LState, folder string) {
	if pkg, ok := L.GetGlobal(lua.LoadLibName).(*lua.LTable); ok {
		pkg.RawSetString("path", lua.LString(filepath.Join(folder, "?.lua")+";"+filepath.Join(folder, "?", "init.lua")))
	}
}

// installLoader makes require read the path and nothing of the environment, and compile through p.
// There are no modules in C.
func installLoader(L *lua.LState, p *Program) {
	pkg, ok := L.GetGlobal(lua.LoadLibName).(*lua.LTable)
	if !ok {
		return
	}
	pkg.RawSetString("path", lua.LString(""))
	pkg.RawSetString("searchers", pkg.RawGetString("loaders"))
	if loaders, ok := pkg.RawGetString("loaders").(*lua.LTable); ok {
		loaders.RawSetInt(2, L.NewFunction(func(L *lua.LState) int { return loadModule(L, p, pkg) }))
	}
	if loaded, ok := L.G.Registry.RawGetString("_LOADED").(*lua.LTable); ok {
		loading := L.NewUserData()
		L.SetGlobal("require", L.NewFunction(func(L *lua.LState) int { return require(L, loaded, loading) }))
	}
}

// require leaves nothing behind when a module fails, so that the next call says the same error again.
// Loading marks the modules that are being loaded.
func require(L *lua.LState, loaded *lua.LTable, loading *lua.LUserData) int {
	name := L.CheckString(1)
	switch module := loaded.RawGetString(name); {
	case module == loading:
		L.RaiseError("module '%s' requires itself while it is loaded", name)
	case lua.LVAsBool(module):
		L.Push(module)
		return 1
	}
	chunk := search(L, name)
	loaded.RawSetString(name, loading)
	defer func() {
		if loaded.RawGetString(name) == loading {
			loaded.RawSetString(name, lua.LNil)
		}
	}()
	L.Push(chunk)
	L.Push(lua.LString(name))
	L.Call(1, 1)
	module := L.Get(-1)
	if module == lua.LNil {
		// A chunk may have put its module there itself.
		if module = loaded.RawGetString(name); module == loading {
			module = lua.LTrue
		}
	}
	loaded.RawSetString(name, module)
	L.Push(module)
	return 1
}

// search asks the searchers for a module's chunk.
func search(L *lua.LState, name string) *lua.LFunction {
	searchers, ok := L.G.Registry.RawGetString("_LOADERS").(*lua.LTable)
	if !ok {
		L.RaiseError("package.loaders must be a table")
	}
	tried := text{L: L}
	tried.add("module '" + name + "' not found")
	for i := 1; ; i++ {
		charge(L, 1, 0)
		searcher := searchers.RawGetInt(i)
		if searcher == lua.LNil {
			break
		}
		L.Push(searcher)
		L.Push(lua.LString(name))
		L.Call(1, 1)
		found := L.Get(-1)
		L.Pop(1)
		switch found := found.(type) {
		case *lua.LFunction:
			return found
		case lua.LString:
			if found != "" {
				tried.add(", ")
				tried.add(string(found))
			}
		}
	}
	L.RaiseError("%s", tried.out.String())
	return nil
}

// maxPaths bounds the paths that are tried for one module, all together: they have texts of the program in them.
const maxPaths = 64 << 10

// loadModule is the searcher: it returns the module's chunk, or a text that says where it is not.
func loadModule(L *lua.LState, p *Program, pkg *lua.LTable) int {
	name := strings.ReplaceAll(L.CheckString(1), ".", string(filepath.Separator))
	templates, ok := pkg.RawGetString("path").(lua.LString)
	if !ok {
		L.RaiseError("package.path must be a string")
	}
	if len(templates)+strings.Count(string(templates), "?")*len(name) > maxPaths {
		L.RaiseError("the paths of the module in package.path have more than %d bytes", maxPaths)
	}
	limit := int64(maxSource)
	if Loaded(L) {
		limit = maxLateSource
	}
	var tried []string
	for template := range strings.SplitSeq(string(templates), ";") {
		if template == "" {
			continue
		}
		path := strings.ReplaceAll(template, "?", name)
		charge(L, len(path), len(path))
		proto, err := p.module(path, limit)
		switch {
		case err == nil:
			L.Push(L.NewFunctionFromProto(proto))
			return 1
		case !errors.Is(err, fs.ErrNotExist):
			Raise(L, err)
		}
		tried = append(tried, "no file '"+path+"'")
	}
	L.Push(lua.LString(strings.Join(tried, ", ")))
	return 1
}
