package luastate

import (
	"errors"
	"fmt"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

func luaPCall(L *lua.LState) int {
	if fn := L.CheckAny(1); !callable(L, fn) {
		L.Push(lua.LFalse)
		L.Push(notCallable(fn))
		return 2
	}
	if err := PCall(L, L.GetTop()-1, lua.MultRet, nil, false); err != nil {
		return caught(L, err)
	}
	L.Insert(lua.LTrue, 1)
	return L.GetTop()
}

func luaXPCall(L *lua.LState) int {
	fn := L.CheckAny(1)
	handler := L.CheckFunction(2)
	nargs := max(L.GetTop()-2, 0)
	if !callable(L, fn) {
		fn = L.NewClosure(raise, notCallable(fn))
	}
	top := L.GetTop()
	L.Push(fn)
	for i := range nargs {
		L.Push(L.Get(3 + i))
	}
	if err := PCall(L, nargs, lua.MultRet, handler, false); err != nil {
		return caught(L, err)
	}
	L.Insert(lua.LTrue, top+1)
	return L.GetTop() - top
}

func notCallable(v lua.LValue) lua.LString {
	return lua.LString("attempt to call a " + typeName(v) + " value")
}

// raise raises its upvalue.
func raise(L *lua.LState) int {
	L.Error(L.Get(lua.UpvalueIndex(1)), 0)
	return 0
}

// caught returns false and the error, which goes on instead if it is none of Lua's.
func caught(L *lua.LState, err error) int {
	api, ok := errors.AsType[*lua.ApiError](err)
	switch {
	case !ok:
		L.Push(lua.LFalse)
		L.Push(lua.LString(err.Error()))
		return 2
	case api.Type == lua.ApiErrorPanic && api.Object.String() == callStackOverflow:
		api.Object = lua.LString("stack overflow")
	case api.Type == lua.ApiErrorPanic, isPanic(api.Object):
		panicked(L, api.Object.String())
	}
	L.Push(lua.LFalse)
	L.Push(api.Object)
	return 2
}

// callStackOverflow is how gopher-lua's call stack panics at its limit. That harms nothing.
const callStackOverflow = "lua callstack overflow"

// isPanic knows the panics of Go that gopher-lua has made texts of. Errors of programs begin with their position.
func isPanic(v lua.LValue) bool {
	text, ok := v.(lua.LString)
	return ok && (strings.HasPrefix(string(text), "runtime error: ") || text == "assignment to entry in nil map")
}

// panicked ends the call because Go code panicked below it: no program can know what that left behind.
func panicked(L *lua.LState, value string) {
	if r := runOf(L); r != nil {
		r.stop(fmt.Errorf("%w: %s", ErrPanic, value))
	}
	L.RaiseError("panic: %s", value)
}
