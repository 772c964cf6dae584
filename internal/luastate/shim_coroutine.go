package luastate

import (
	"runtime"
	"strings"
	"sync"

	lua "github.com/yuin/gopher-lua"
)

// shimCoroutines gives a coroutine the context of whoever resumes it: the call that made it, whose
// context it would have otherwise, may be over long ago.
func shimCoroutines(L *lua.LState) {
	lib, ok := L.G.Global.RawGetString(lua.CoroutineLibName).(*lua.LTable)
	if !ok {
		return
	}
	create, ok1 := lib.RawGetString("create").(*lua.LFunction)
	resume, ok2 := lib.RawGetString("resume").(*lua.LFunction)
	wrap, ok3 := lib.RawGetString("wrap").(*lua.LFunction)
	if !ok1 || !ok2 || !ok3 || !create.IsG || !resume.IsG || !wrap.IsG {
		return
	}
	// Made without a context, a coroutine has no cancel function that someone would have to call.
	free := func(fn lua.LGFunction) lua.LGFunction {
		return func(L *lua.LState) int {
			if body := L.CheckFunction(1); body.IsG {
				L.Replace(1, inLua(L, body))
			}
			if ctx := L.Context(); ctx != nil {
				L.RemoveContext()
				defer L.SetContext(ctx)
			}
			return fn(L)
		}
	}
	setAll(L, lib, map[string]lua.LGFunction{
		"close":       coroutineClose,
		"create":      free(create.GFunction),
		"isyieldable": isYieldable,
		"running":     coroutineRunning,
		"status":      coroutineStatus,
		"yield":       coroutineYield,
	})
	resumeAny := resume.GFunction
	lib.RawSetString("resume", L.NewFunction(func(L *lua.LState) int {
		thread := L.CheckThread(1)
		if why := notResumable(L, thread); why != "" {
			L.Push(lua.LFalse)
			L.Push(lua.LString(why))
			return 2
		}
		lend(L, thread)
		n := resumeAny(L)
		blame(L, n)
		return n
	}))
	wrapAny := free(wrap.GFunction)
	lib.RawSetString("wrap", L.NewFunction(func(L *lua.LState) int {
		wrapAny(L)
		wrapped, _ := L.Get(-1).(*lua.LFunction)
		thread, _ := wrapped.Upvalues[0].Value().(*lua.LState)
		L.Pop(1)
		L.Push(L.NewClosure(func(L *lua.LState) int {
			if why := notResumable(L, thread); why != "" {
				L.RaiseError("%s", why)
			}
			lend(L, thread)
			defer killIfFailed(L, thread)
			return wrapped.GFunction(L)
		}, thread))
		return 1
	}))
}

// inLua is a function of Go within one of Lua: gopher-lua does not come back from a coroutine that is none.
func inLua(L *lua.LState, fn *lua.LFunction) *lua.LFunction {
	L.Push(L.NewFunctionFromProto(calling()))
	L.Push(fn)
	L.Push(passFunction)
	L.Call(2, 1)
	body := L.Get(-1).(*lua.LFunction)
	L.Pop(1)
	return body
}

var calling = sync.OnceValue(func() *lua.FunctionProto {
	proto, err := compile("coroutine", []byte("local f, pass = ... return function(...) return pass(f(...)) end"))
	if err != nil {
		panic(err) // a program of ours
	}
	return proto
})

// killIfFailed sees to a coroutine of wrap whose error goes on in L: gopher-lua leaves it as if it ran.
func killIfFailed(L, thread *lua.LState) {
	if thread.Parent == L {
		thread.Dead, thread.Parent = true, nil
		L.G.CurrentThread = L
	}
}

// maxNested bounds coroutines that run within one another: each has a call stack of its own, and all of them are on
// the one of Go, whose end is the end of the process.
const maxNested = 50

// notResumable says why a coroutine cannot be resumed, if so. To resume one that waits for another which it has resumed
// would close a circle, in which gopher-lua runs for ever.
func notResumable(L, thread *lua.LState) string {
	switch {
	case thread.Dead:
		return "cannot resume dead coroutine"
	case status(L, thread) != "suspended":
		return "cannot resume non-suspended coroutine"
	case nested(L):
		return "stack overflow: too many coroutines within one another"
	}
	return ""
}

// status is that of a coroutine as L sees it, which runs.
func status(L, thread *lua.LState) string {
	switch {
	case thread.Dead:
		return "dead"
	case thread == L:
		return "running"
	case thread.Parent != nil, thread == L.G.MainThread:
		return "normal"
	}
	return "suspended"
}

func coroutineStatus(L *lua.LState) int {
	L.Push(lua.LString(status(L, L.CheckThread(1))))
	return 1
}

func nested(L *lua.LState) bool {
	depth := 0
	for ; L.Parent != nil; L = L.Parent {
		depth++
	}
	return depth >= maxNested
}

// blame ends the call if it was Go code that panicked in a coroutine.
func blame(L *lua.LState, results int) {
	if results == 2 && L.Get(-2) == lua.LFalse && isPanic(L.Get(-1)) {
		panicked(L, L.Get(-1).String())
	}
}

func lend(from, to *lua.LState) {
	setContext(to, from.Context())
	if inside.known() {
		inside.clearAbove(to)
	}
}

// isYieldable tells a coroutine from the main thread.
func isYieldable(L *lua.LState) int {
	L.Push(lua.LBool(L != L.G.MainThread))
	return 1
}

func coroutineRunning(L *lua.LState) int {
	L.Push(L)
	L.Push(lua.LBool(L == L.G.MainThread))
	return 2
}

// coroutineClose ends a coroutine that waits to be resumed.
func coroutineClose(L *lua.LState) int {
	thread := L.CheckThread(1)
	if status := status(L, thread); status == "running" || status == "normal" {
		L.RaiseError("cannot close a %s coroutine", status)
	}
	thread.Dead = true
	L.Push(lua.LTrue)
	return 1
}

// coroutineYield refuses to leave what waits within Go for the function that yields: gopher-lua would not come back
// to it, but lose its way. That is a function of Go, or the virtual machine itself, which calls metamethods and the functions
// of for loops by starting its loop once more.
func coroutineYield(L *lua.LState) int {
	if L == L.G.MainThread {
		L.RaiseError("attempt to yield from outside a coroutine")
	}
	for level := 1; ; level++ {
		frame, ok := L.GetStack(level)
		if !ok {
			break
		}
		if fn, err := L.GetInfo("f", frame, lua.LNil); err == nil && fn.(*lua.LFunction).IsG {
			L.RaiseError("attempt to yield across a C-call boundary")
		}
	}
	if !innermostLoop() {
		L.RaiseError("attempt to yield across a C-call boundary")
	}
	return -1 // gopher-lua's sign for a yield
}

// innermostLoop reports whether the loop over the instructions that runs is the one which the resumption of the coroutine
// began. Where the stack of Go does not look as it is known, it is taken for that.
func innermostLoop() bool {
	var callers [8]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for {
		frame, more := frames.Next()
		if name := frame.Function; strings.HasSuffix(name, "gopher-lua.mainLoop") || strings.HasSuffix(name, "gopher-lua.mainLoopWithContext") {
			above, _ := frames.Next()
			return !strings.HasSuffix(above.Function, "gopher-lua.callR") && !strings.HasSuffix(above.Function, "gopher-lua.(*LState).callR")
		}
		if !more {
			return true
		}
	}
}
