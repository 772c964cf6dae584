package luastate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// The data stack begins small, because most states are idle most of the time, and grows to what
// spreading a table of 100,000 elements needs. It never shrinks. The call stack takes memory only as
// it is used.
const (
	registrySize     = 256
	registryGrowStep = 1024
	registryMaxSize  = 256 * 1024
	callStackSize    = 1024
)

var errClosed = errors.New("the Lua state is closed")

// State is one Lua state, to be used by one goroutine at a time.
type State struct {
	L *lua.LState

	made   time.Time
	uses   int
	closed bool

	limits  Limits
	memory  memory
	current atomic.Pointer[run] // nil: nothing runs
	ticking atomic.Bool
	spent   atomic.Bool

	unruly bool // see Options
}

// Spent reports that the state is not to be used again, because a call broke a limit or Go code panicked.
func (s *State) Spent() bool { return s.spent.Load() }

// NewState makes a state, with the libraries and the shim, and runs the program in it, bounded by ctx. The error is an
// *Error with the line where the program failed, or what Options.Setup returned.
func (p *Program) NewState(ctx context.Context, o Options) (*State, error) {
	L := lua.NewState(lua.Options{
		RegistrySize:        registrySize,
		RegistryGrowStep:    registryGrowStep,
		RegistryMaxSize:     registryMaxSize,
		CallStackSize:       callStackSize,
		MinimizeStackMemory: true,
		SkipOpenLibs:        true,
		IncludeGoStackTrace: true,
	})
	s := Wrap(L, o.Limits)
	s.unruly = o.Unruly
	p.libraries(&o).install(L, &o)
	PrintTo(L, os.Stdout)
	installLoader(L, p)
	if o.Setup != nil {
		if err := o.Setup(L); err != nil {
			s.Close()
			return nil, err
		}
	}
	if _, err := s.Call(ctx, 0, L.NewFunctionFromProto(p.proto)); err != nil {
		s.Close()
		return nil, err
	}
	L.G.Registry.RawSetString(loadedKey, lua.LTrue)
	return s, nil
}

const loadedKey = "luastate.loaded"

// Loaded reports whether L was made by NewState and its program has run to the end: from then on
// whatever runs in it is a call.
func Loaded(L *lua.LState) bool {
	return L.G.Registry.RawGetString(loadedKey) == lua.LTrue
}

// Wrap makes a State of a host's own L, to call functions in it within the limits. Nothing is installed.
func Wrap(L *lua.LState, limits Limits) *State {
	return &State{L: L, made: time.Now(), limits: limits.withDefaults(), memory: memory{heap: heapSize()}}
}

// PrintTo sends what the program prints, or writes to io.stdout, to w, each call in one write. In a state of
// NewState that is the standard output until setup says otherwise.
func PrintTo(L *lua.LState, w io.Writer) {
	if fs := filesOf(L); fs != nil {
		fs.stdout = w
	}
	L.SetGlobal("print", L.NewFunction(printer(w)))
}

// Call calls fn, which may be anything callable, bounded by ctx: Lua code stops within one
// instruction of its end, Go functions when they look at L.Context. With nret -1 the results are as
// many as fn returned, so that "returned nothing" differs from nil. The error is an *Error; a panic of
// a Go function is one too. The stack is afterwards as it was.
func (s *State) Call(ctx context.Context, nret int, fn lua.LValue, args ...lua.LValue) (results []lua.LValue, err error) {
	if s.closed {
		return nil, errClosed
	}
	if err := context.Cause(ctx); err != nil {
		return nil, &Error{Reason: oneLine(err.Error()), cause: err}
	}
	if s.unruly && s.current.Load() == nil {
		return s.callAside(ctx, nret, fn, slices.Clone(args)) // a copy, so that other calls need none on the heap
	}
	return s.call(ctx, nret, fn, args)
}

func (s *State) call(ctx context.Context, nret int, fn lua.LValue, args []lua.LValue) (results []lua.LValue, err error) {
	L := s.L
	top := L.GetTop()
	outer := L.Context()
	r := s.current.Load()
	nested := r != nil
	if r == nil {
		c := s.begin(ctx)
		r = c.run
		defer r.end()
		L.SetContext(c)
	} else {
		L.SetContext(r.within(ctx))
	}
	defer func() {
		if p := recover(); p != nil {
			results, err = nil, &Error{Reason: oneLine(fmt.Sprint("panic: ", p)), Panic: true}
		}
		if e, ok := err.(*Error); ok && e.Panic {
			s.spent.Store(true)
		}
		L.SetTop(top)
		setContext(L, outer)
	}()

	if !callable(L, fn) {
		// Checked here, before a frame is pushed: an error in between does not leave the call stack as it was.
		return nil, &Error{Reason: "attempt to call a " + typeName(fn) + " value"}
	}
	L.Push(fn)
	for _, arg := range args {
		if arg == nil {
			arg = lua.LNil
		}
		L.Push(arg)
	}
	if nested {
		err = PCall(L, len(args), nret, nil, true)
	} else {
		err = L.PCall(len(args), nret, nil)
	}
	if err != nil {
		return nil, s.failed(r, ctx, err)
	}
	if n := L.GetTop() - top; n > 0 {
		results = make([]lua.LValue, n)
		for i := range results {
			results[i] = L.Get(top + 1 + i)
		}
	}
	return results, nil
}

// Index is v[name] with metamethods, bounded and protected as Call is.
func (s *State) Index(ctx context.Context, v lua.LValue, name string) (lua.LValue, error) {
	if tbl, ok := v.(*lua.LTable); ok && !s.closed {
		if field := tbl.RawGetString(name); field != lua.LNil || tbl.Metatable == lua.LNil {
			return field, nil
		}
	}
	if s.closed {
		return nil, errClosed
	}
	get := s.L.NewFunction(func(L *lua.LState) int {
		L.Push(L.GetField(L.Get(1), name))
		return 1
	})
	results, err := s.Call(ctx, 1, get, v)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// Close frees the state. Further calls return an error; Close may be called again.
func (s *State) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.free()
}

func (s *State) free() {
	if fs := filesOf(s.L); fs != nil {
		fs.open.close()
	}
	s.L.Close()
}

func (s *State) failed(r *run, ctx context.Context, err error) *Error {
	api, ok := errors.AsType[*lua.ApiError](err)
	if !ok {
		return &Error{Reason: oneLine(err.Error()), cause: err}
	}
	e := fromLua(api, s.text(api.Object))
	if cause := r.stoppedBy(); cause != nil {
		// Whatever the program made of it on the way.
		e.Reason, e.cause, e.Thrown = oneLine(cause.Error()), cause, nil
		e.Panic = errors.Is(cause, ErrPanic)
		return e
	}
	if cause := context.Cause(ctx); cause != nil && e.cause == nil {
		e.cause = cause
	}
	return e
}

// text is v as Lua prints it. Its __tostring is the program's, so it may fail or never end.
func (s *State) text(v lua.LValue) string {
	if s.L.GetMetaField(v, "__tostring") == lua.LNil {
		if tbl, ok := v.(*lua.LTable); ok {
			// error{code = 400, message = 'x'} is common: show what can be shown.
			for _, key := range []string{"message", "msg"} {
				if text, ok := tbl.RawGetString(key).(lua.LString); ok {
					return string(text)
				}
			}
			return "(error object is a table)"
		}
		return v.String()
	}
	ctx := s.L.Context()
	if ctx == nil || ctx.Err() != nil {
		return v.String()
	}
	printed := v.String()
	s.L.Push(s.L.NewFunction(func(L *lua.LState) int {
		printed = toString(L, L.Get(1))
		return 0
	}))
	s.L.Push(v)
	if err := PCall(s.L, 1, 0, nil, false); err != nil {
		return v.String()
	}
	return printed
}

func callable(L *lua.LState, v lua.LValue) bool {
	if v == nil {
		return false
	}
	return v.Type() == lua.LTFunction || L.GetMetaField(v, "__call").Type() == lua.LTFunction
}

func typeName(v lua.LValue) string {
	if v == nil {
		return lua.LTNil.String()
	}
	return v.Type().String()
}
