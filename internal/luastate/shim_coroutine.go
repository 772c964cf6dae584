package luastate

import (
	"runtime"
	"strings"

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
		"yield":       coroutineYield,
	})
	resumeAny := resume.GFunction
	lib.RawSetString("resume", L.NewFunction(func(L *lua.LState) int {
		thread := L.CheckThread(1)
		if refused := refusal(L, thread); refused != "" {
			L.Push(lua.LFalse)
			L.Push(lua.LString(refused))
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
			if refused := refusal(L, thread); refused != "" {
				L.RaiseError("%s", refused)
			}
			lend(L, thread)
			return wrapped.GFunction(L)
		}, thread))
		return 1
	}))
}

// maxNested bounds coroutines that run within one another: each has a call stack of its own, and all of them are on
// the one of Go, whose end is the end of the process.
const (
	maxNested = 50
	tooNested = "stack overflow: too many coroutines within one another"
)

// refusal says why L cannot resume a thread. One that waits for another which it has resumed would become its own
// ancestor: gopher-lua only knows the one that runs.
func refusal(L, thread *lua.LState) string {
	switch {
	case thread.Parent != nil, thread == L.G.MainThread:
		return "cannot resume non-suspended coroutine"
	case nested(L):
		return tooNested
	}
	return ""
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

func lend(from, to *lua.LState) { setContext(to, from.Context()) }

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
	if status := L.Status(thread); thread == L.G.MainThread || thread.Parent != nil || status == "running" || status == "normal" {
		L.RaiseError("cannot close a running coroutine")
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
