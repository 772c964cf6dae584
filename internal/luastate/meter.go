package luastate

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// run is one call of a state from outside, with all the calls inside it: the unit that Limits.Running and a
// breach of any limit are about.
//
// A timer looks at the state every so often (see wind). It asks the virtual machine for a sign of life, and counts a tick
// where the last one was answered: a script in a long call of Go, or one that the scheduler leaves waiting, does not
// answer, so what is counted is close to the time of the processor and not to that of the wall.
type run struct {
	state *State
	sign  atomic.Uint32
	ticks atomic.Int64
	// guarded counts the calls of functions of the host. Whoever gives such a call up has seen by it all that was done before.
	guarded  atomic.Int64
	stopping atomic.Bool
	cause    error // why it was stopped; written before sign says so
}

// The values of run.sign.
const (
	running uint32 = iota // nothing to do
	asked                 // the timer wants to know whether Lua runs, and how much memory there is
	stopped               // every instruction from now on is an error
)

// stop ends the run: the next instruction of Lua, and the next call of charge, raise an error. The first cause
// counts.
func (r *run) stop(cause error) {
	if r.stopping.CompareAndSwap(false, true) {
		r.cause = cause
		r.sign.Store(stopped)
	}
}

// stoppedBy is why the run was stopped, nil if it was not.
func (r *run) stoppedBy() error {
	if r.sign.Load() == stopped {
		return r.cause
	}
	return nil
}

// callContext is the context that Lua runs with: the caller's, which ends early when the run is stopped.
// The virtual machine asks it for Done before each instruction, so that is where a run is seen to. Functions
// of the host may hand it to whom they like: it goes on as the caller's.
type callContext struct {
	context.Context
	run  *run
	done <-chan struct{} // the caller's
}

// begin makes a run of the state, with the context that its outermost call is to have.
func (s *State) begin(ctx context.Context) *callContext {
	both := &struct {
		callContext
		run run
	}{}
	both.run.state = s
	both.callContext = callContext{Context: ctx, run: &both.run, done: ctx.Done()}
	s.current.Store(&both.run)
	s.wind()
	return &both.callContext
}

// end is called when the outermost call is over.
func (r *run) end() {
	r.checkMemory()
	if r.stoppedBy() != nil {
		r.state.spent.Store(true)
	}
	r.state.current.Store(nil)
}

// within is the context of a call inside.
func (r *run) within(ctx context.Context) *callContext {
	return &callContext{Context: ctx, run: r, done: ctx.Done()}
}

var closedChannel = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (c *callContext) Done() <-chan struct{} {
	if c.run.sign.Load() != running {
		return c.run.answer(c.done)
	}
	return c.done
}

func (c *callContext) Err() error {
	if cause := c.run.stoppedBy(); cause != nil {
		return cause
	}
	return c.Context.Err()
}

// Value hides the caller's context once the run was stopped: context.Cause would ask that for the reason.
func (c *callContext) Value(key any) any {
	if c.run.sign.Load() == stopped {
		return nil
	}
	return c.Context.Value(key)
}

// answer is Done where there is something to do. Others than the virtual machine may ask for Done, in
// goroutines of their own; what looks into the state is only for the machine.
func (r *run) answer(done <-chan struct{}) <-chan struct{} {
	if r.sign.Load() == asked && calledByLua() {
		if r.sign.CompareAndSwap(asked, running) {
			r.state.wind()
		}
		r.checkHeap()
	}
	if r.sign.Load() == stopped {
		return closedChannel
	}
	return done
}

// calledByLua reports whether the function that asked for Done is the loop over the instructions.
func calledByLua() bool {
	var callers [1]uintptr
	if runtime.Callers(4, callers[:]) == 0 { // Callers, calledByLua, answer, Done
		return false
	}
	frame, _ := runtime.CallersFrames(callers[:]).Next()
	return strings.HasSuffix(frame.Function, "gopher-lua.mainLoopWithContext")
}

// tickLength is how often the clock of a state looks: fifty times in the time that a call may take, within reason.
func (l Limits) tickLength() time.Duration {
	return min(max(l.Running/50, time.Millisecond), 20*time.Millisecond)
}

// wind starts the clock of the state, unless it goes already. It makes a tick now and then for as long as Lua runs,
// and rests after one that finds nothing running or that is not answered until the next, so that most calls do not
// meet it at all and those that wait do not feel it.
func (s *State) wind() {
	if !s.ticking.Load() && s.ticking.CompareAndSwap(false, true) {
		time.AfterFunc(s.limits.tickLength(), s.onTick)
	}
}

func (s *State) onTick() {
	r := s.current.Load()
	if r == nil || !r.tick() {
		s.ticking.Store(false)
		// One that began or answered in between may have found the clock going.
		if r = s.current.Load(); r == nil || r.sign.Load() != running || !s.ticking.CompareAndSwap(false, true) {
			return
		}
	}
	time.AfterFunc(s.limits.tickLength(), s.onTick)
}

// tick asks for a sign of life, unless it is still waited for, and counts.
func (r *run) tick() bool {
	if !r.sign.CompareAndSwap(running, asked) {
		return false
	}
	if limits := r.state.limits; r.ticks.Add(1) > int64(limits.Running/limits.tickLength()) {
		r.stop(limits.tooLong())
	}
	return true
}

// uncount takes back a tick that nobody has answered: it did not meet Lua.
func (r *run) uncount() {
	if r.sign.CompareAndSwap(asked, running) {
		r.ticks.Add(-1)
		r.state.wind()
	}
}

func runOf(L *lua.LState) *run {
	if c, ok := L.Context().(*callContext); ok {
		return c.run
	}
	return nil
}

// Outside calls what waits for others, or works for the host: its time is not counted as Lua's own, but for that
// of Lua which it calls in turn.
func Outside(L *lua.LState, call func()) {
	if r := runOf(L); r != nil {
		defer r.uncount()
	}
	call()
}

// WithContext makes Lua run with ctx, which derives from L.Context(), until restore is called. The limits of the
// call go on.
func WithContext(L *lua.LState, ctx context.Context) (restore func()) {
	outer := L.Context()
	if r := runOf(L); r != nil {
		L.SetContext(r.within(ctx))
	} else {
		L.SetContext(ctx)
	}
	return func() { setContext(L, outer) }
}

func setContext(L *lua.LState, ctx context.Context) {
	if ctx != nil {
		L.SetContext(ctx)
	} else {
		L.RemoveContext()
	}
}
