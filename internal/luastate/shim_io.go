package luastate

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// shimRead gives the read functions the formats of Lua 5.4, which have no star: "a", "l", "n"; and bounds
// what they read at once, but for the length of a line.
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
		tbl.RawSetString("read", L.NewFunction(reader(read)))
	}
}

// reader is read of io or of a file. The file is the first argument, if there is one.
func reader(read *lua.LFunction) lua.LGFunction {
	return func(L *lua.LState) int {
		first := 1
		if L.Get(1).Type() == lua.LTUserData {
			first = 2
		}
		all := false
		for i := first; i <= L.GetTop(); i++ {
			switch format := L.Get(i).(type) {
			case lua.LString:
				format = "*" + lua.LString(strings.TrimPrefix(string(format), "*"))
				all = all || format == "*a"
				L.Replace(i, format)
			case lua.LNumber:
				n := intArg(L, i)
				if n < 0 || n > maxText {
					L.ArgError(i, "size out of range")
				}
				charge(L, n, n)
			}
		}
		if !all {
			return read.GFunction(L)
		}
		return readEach(L, read, first)
	}
}

// readEach reads one format after the other, until one finds nothing.
func readEach(L *lua.LState, read *lua.LFunction, first int) int {
	formats := L.GetTop()
	for i := first; i <= formats; i++ {
		var v lua.LValue
		if L.Get(i) == lua.LString("*a") {
			v = readAll(L, read, first)
		} else {
			v = readOne(L, read, first, L.Get(i))
		}
		L.Push(v)
		if v == lua.LNil {
			break
		}
	}
	return L.GetTop() - formats
}

func readOne(L *lua.LState, read *lua.LFunction, first int, format lua.LValue) lua.LValue {
	L.Push(read)
	for i := 1; i < first; i++ {
		L.Push(L.Get(i))
	}
	L.Push(format)
	L.Call(first, 1)
	v := L.Get(-1)
	L.Pop(1)
	return v
}

// readAll reads a file to its end piece by piece: some files have none.
func readAll(L *lua.LState, read *lua.LFunction, first int) lua.LValue {
	const piece = 64 << 10
	content := text{L: L}
	for {
		s, ok := readOne(L, read, first, lua.LNumber(piece)).(lua.LString)
		if !ok {
			return content.value()
		}
		content.add(string(s))
	}
}
