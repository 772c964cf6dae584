package luastate

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unsafe"

	lua "github.com/yuin/gopher-lua"
)

// PCall calls the function below its nargs arguments on the stack, as L.PCall does, with three differences.
//
// The variables that closures share with the functions outside stay shared: when an error is raised,
// gopher-lua gives every closure on the whole stack a copy of its own, unless there is a handler, and then leaves
// those of the functions that the error ends pointing into a stack that others use from then on.
//
// A panic of Go code ends the call from outside: no program can know what it left behind.
//
// And it is an error where the call stack is nearly full: at its very end, gopher-lua's would forget the frames below.
//
// The handler may be nil; it gets the error, and what it returns is the error then. The error is an
// *lua.ApiError, with a traceback if traced.
func PCall(L *lua.LState, nargs, nret int, handler *lua.LFunction, traced bool) error {
	if _, deep := L.GetStack(callStackSize - 32); deep {
		L.Pop(nargs + 1)
		return &lua.ApiError{Type: lua.ApiErrorRun, Object: lua.LString("stack overflow")}
	}
	if !inside.known() {
		return L.PCall(nargs, nret, handler)
	}
	c := protectedCall{base: int(inside.registers(L).Field(inside.top).Int()) - nargs - 1, traced: traced}
	L.Insert(&lua.LFunction{IsG: true, Env: L.Env, GFunction: c.run}, L.GetTop()-nargs)
	shares := inside.hasErrorFunc(L)
	before := *shares
	*shares = true
	err := L.PCall(nargs+1, nret, handler)
	*shares = before
	if err != nil {
		forgetUpvalues(L)
	}
	if api, ok := errors.AsType[*lua.ApiError](err); ok {
		api.StackTrace = strings.TrimPrefix(api.StackTrace, untraced)
	}
	return err
}

type protectedCall struct {
	base   int // the index of the function, counted from the start of all registers
	traced bool
}

// untraced stands for a traceback that nobody wants: its cost grows with the square of the depth.
const untraced = "-"

// run stands between L.PCall and the function. It sees errors while everything is still on the stack.
func (c *protectedCall) run(L *lua.LState) int {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		closeUpvalues(L, c.base)
		switch err := p.(type) {
		case *lua.ApiError:
			switch {
			case err.StackTrace != "":
			case c.traced:
				err.StackTrace = traceback(L)
			default:
				err.StackTrace = untraced
			}
		default:
			if p == callStackOverflow {
				panic(&lua.ApiError{Type: lua.ApiErrorRun, Object: lua.LString("stack overflow"), StackTrace: untraced})
			}
			if r := runOf(L); r != nil {
				r.stop(fmt.Errorf("%w: %v", ErrPanic, p))
			}
		}
		panic(p)
	}()
	L.Call(L.GetTop()-1, lua.MultRet)
	return L.GetTop()
}

// closeUpvalues gives the closures that outlive the frames from base on their variables.
func closeUpvalues(L *lua.LState, base int) {
	for up := inside.firstUpvalue(L); up != nil; {
		v := reflect.ValueOf(up).Elem()
		if int(v.Field(inside.upvalueIndex).Int()) > base {
			up.Close()
		}
		up = (*lua.Upvalue)(v.Field(inside.upvalueNext).UnsafePointer())
	}
}

// forgetUpvalues takes the closed ones off the list of those that are open, as the return of a function does
// which stands where the failed one stood.
func forgetUpvalues(L *lua.LState) {
	ctx := L.Context()
	L.RemoveContext() // which may have ended
	defer setContext(L, ctx)
	L.Push(&lua.LFunction{Proto: emptyFunction(), Env: L.Env})
	L.Call(0, 0)
}

var emptyFunction = sync.OnceValue(func() *lua.FunctionProto {
	proto, err := compile("", nil)
	if err != nil {
		panic(err) // an empty program
	}
	return proto
})

// traceback is that of the running function.
func traceback(L *lua.LState) string {
	top := L.GetTop()
	L.Push(&lua.LFunction{IsG: true, Env: L.Env, GFunction: debugTraceback()})
	L.Push(lua.LNil)
	L.Push(lua.LNumber(1))
	L.Call(2, 1)
	text := L.Get(-1).String()
	L.SetTop(top)
	return strings.TrimPrefix(text, "\n")
}

// debugTraceback is the function of the library, which is all that makes a traceback.
var debugTraceback = sync.OnceValue(func() lua.LGFunction {
	L := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer L.Close()
	lua.OpenDebug(L)
	return L.GetField(L.Get(-1), "traceback").(*lua.LFunction).GFunction
})

// internals are fields of gopher-lua's types that it does not export: what a state holds, and whose variables are
// still on the stack. With a version of it that has others, less is known; a test sees to it that this one
// has them.
type internals struct {
	array, keys               int // of LTable
	registry, uvcache, shares int // of LState
	values, top               int // of its registry
	upvalueIndex, upvalueNext int // of Upvalue
}

var inside = func() internals {
	table, state, upvalue := reflect.TypeFor[lua.LTable](), reflect.TypeFor[lua.LState](), reflect.TypeFor[lua.Upvalue]()
	values, number, flag, next := reflect.TypeFor[[]lua.LValue](), reflect.TypeFor[int](), reflect.TypeFor[bool](), reflect.TypeFor[*lua.Upvalue]()
	in := internals{
		array: fieldOf(table, "array", values), keys: fieldOf(table, "keys", values),
		uvcache: fieldOf(state, "uvcache", next), shares: fieldOf(state, "hasErrorFunc", flag),
		upvalueIndex: fieldOf(upvalue, "index", number), upvalueNext: fieldOf(upvalue, "next", next),
		registry: -1, values: -1, top: -1,
	}
	if f, ok := state.FieldByName("reg"); ok && f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct {
		in.registry = f.Index[0]
		in.values, in.top = fieldOf(f.Type.Elem(), "array", values), fieldOf(f.Type.Elem(), "top", number)
	}
	return in
}()

func fieldOf(of reflect.Type, name string, want reflect.Type) int {
	if f, ok := of.FieldByName(name); ok && f.Type == want {
		return f.Index[0]
	}
	return -1
}

// known reports whether all fields are there.
func (in *internals) known() bool {
	return min(in.array, in.keys, in.registry, in.uvcache, in.shares, in.values, in.top, in.upvalueIndex, in.upvalueNext) >= 0
}

func (in *internals) registers(L *lua.LState) reflect.Value {
	return reflect.ValueOf(L).Elem().Field(in.registry).Elem()
}

// clearAbove puts nil where the values will be that a coroutine gets. If it gets fewer than it waits for, gopher-lua takes what is there,
// which may be no value at all.
func (in *internals) clearAbove(L *lua.LState) {
	registers := in.registers(L)
	values := *(*[]lua.LValue)(unsafe.Pointer(registers.Field(in.values).UnsafeAddr()))
	top := int(registers.Field(in.top).Int())
	for i := top; i < min(top+maxRegisters, len(values)); i++ {
		values[i] = lua.LNil
	}
}

// maxRegisters is how many a function has at most.
const maxRegisters = 250

// firstUpvalue begins the list of variables that are still on the stack.
func (in *internals) firstUpvalue(L *lua.LState) *lua.Upvalue {
	return (*lua.Upvalue)(reflect.ValueOf(L).Elem().Field(in.uvcache).UnsafePointer())
}

// hasErrorFunc says that an error leaves the variables on the stack as they are.
func (in *internals) hasErrorFunc(L *lua.LState) *bool {
	return (*bool)(unsafe.Pointer(reflect.ValueOf(L).Elem().Field(in.shares).UnsafeAddr()))
}
