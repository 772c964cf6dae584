package luastate

import (
	"context"
	"fmt"
	"sync"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// aside is a call that may not come back.
type aside struct {
	mu   sync.Mutex
	over bool // it has returned
	left bool // nobody waits for it any more
}

// grace is how long a function of Go may take to notice that its context has ended.
const grace = time.Second

// callAside is call in a goroutine of its own. Where that does not come back when ctx ends, because a function of Go
// does not look at it, the call is given up: the state is closed for everybody else, and freed when the function
// returns after all. Nothing of Lua runs then, since the first instruction sees the end of the context.
func (s *State) callAside(ctx context.Context, nret int, fn lua.LValue, args []lua.LValue) ([]lua.LValue, error) {
	type outcome struct {
		results []lua.LValue
		err     error
	}
	done := make(chan outcome, 1)
	var call aside
	go func() {
		results, err := s.call(ctx, nret, fn, args)
		done <- outcome{results, err}
		if call.returned() {
			s.free()
		}
	}()
	select {
	case o := <-done:
		return o.results, o.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.results, o.err
	case <-timer.C:
	}
	if !call.leave() {
		o := <-done
		return o.results, o.err
	}
	s.closed = true
	s.spent.Store(true)
	if r := s.current.Load(); r != nil {
		r.guarded.Load()
	}
	cause := context.Cause(ctx)
	return nil, &Error{Reason: oneLine(fmt.Sprintf("%v, but a function of the host goes on", cause)), cause: cause}
}

// returned notes the end of a call, and reports whether nobody waits for it.
func (a *aside) returned() (left bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	return a.left
}

// leave gives up a call, unless it has returned by now.
func (a *aside) leave() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = !a.over
	return a.left
}
