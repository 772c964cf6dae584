package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/luastate"
	"github.com/mtadelivery/delivery/internal/sessions"
	lua "github.com/yuin/gopher-lua"
)

// open makes a connection and puts it into the lease. A result says why it could not.
func (e *luaEngine) open(ctx context.Context, call *luaCall, lease *sessions.Lease[*luaSession], release func()) *Result {
	var s *luaSession
	defer func() {
		if s == nil {
			release()
		}
	}()
	w := call.way
	s, err := e.connect(ctx, call)
	if err != nil {
		if cause := e.runtime.endedBy(ctx, err); cause != nil {
			return new(unsent(cause))
		}
		res := e.notConnected(err)
		if tooOften := w.unreached(err); tooOften != nil {
			res.Scope = ScopeReadyName
			e.runtime.state.lua.Refuse(w.ready, tooOften)
		}
		return &res
	}
	w.name.Reached()
	s.release = release
	lease.Opened(w.keys[0], s)
	return nil
}

// notConnected is the result of a constructor that gave no connection, whatever it raised.
func (e *luaEngine) notConnected(err error) Result {
	e.runtime.logger().Error("policy: constructor failed", "event", e.config.Constructor,
		"error", err, "traceback", luastate.Traceback(err))
	return Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400, Text: safeText(
		"delivery: failed to connect to any candidate hosts: " + viaLua + e.config.Constructor + ": " + luastate.Message(err))}}
}

// connect calls the constructor in a state that then belongs to the connection.
func (e *luaEngine) connect(ctx context.Context, call *luaCall) (*luaSession, error) {
	p, w, queue := call.policy, call.way, &call.attempt.queue
	ctx, release := e.runtime.opening(ctx, w.request.Grace)
	defer release()
	state, err := p.states.Get(ctx)
	if err != nil {
		return nil, err
	}
	args := luaStrings(queue.Domain, queue.Tenant, queue.Campaign)
	returned, handled, err := p.call(ctx, state, e.config.Constructor, args...)
	switch {
	case err != nil:
	case !kumo.Handles(state.L, e.config.Constructor):
		err = fmt.Errorf("the policy %s has no handler for the event %q", p.name, e.config.Constructor)
	case !handled || len(returned) == 0 || returned[0] == lua.LNil:
		err = fmt.Errorf("the event %q returned no connection object", e.config.Constructor)
	}
	if err != nil {
		p.states.Drop(state)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	s := &luaSession{runtime: e.runtime, policy: p, state: state, object: returned[0], info: Session{
		ID: newID(), Protocol: "lua", ReadyName: w.ready, Source: w.source.config.Name, Peer: viaLua + e.config.Constructor}}
	s.alive, s.kill = context.WithCancelCause(context.Background())
	s.calls, s.bark = context.WithCancelCause(s.alive)
	if t := e.runtime.Trace; t != nil && t.Opened != nil {
		t.Opened(s.copyInfo())
	}
	return s, nil
}

// luaSession is a connection object with the state that it lives in.
type luaSession struct {
	runtime *Runtime
	policy  *Policy
	state   *luastate.State
	object  lua.LValue
	info    Session // which never changes: results share it

	alive   context.Context // ends when the session is killed
	kill    context.CancelCauseFunc
	calls   context.Context // of send and send_batch; ends also when the watchdog barks
	bark    context.CancelCauseFunc
	dog     *time.Timer // barks; kept from one call to the next
	release func()      // gives back what it holds of limits that other processes share
	ended   sync.Once

	// doubtful: it is not to be used again.
	doubtful bool
}

func (s *luaSession) copyInfo() *Session {
	info := s.info
	return &info
}

// reused counts calls that take a session which others have used, or use at the same time.
func (s *luaSession) reused(w *way, calls int) {
	w.name.Reused.Add(uint64(calls))
	if t := s.runtime.Trace; t != nil && t.Reused != nil {
		for range calls {
			t.Reused(s.copyInfo())
		}
	}
}

// Capacity is one: a Lua state serves one call at a time.
func (s *luaSession) Capacity() int { return 1 }

// Comfort is one for the same reason.
func (s *luaSession) Comfort() int { return 1 }

// Alive is true: a Lua object says nothing by itself.
func (s *luaSession) Alive() bool { return true }

// Retire calls the connection's close method.
func (s *luaSession) Retire(why sessions.Reason) {
	s.hangUp()
	s.end(string(why))
}

// Kill makes a running call return. The state is then left to the one who called.
func (s *luaSession) Kill() {
	s.kill(ErrClosed)
	s.end("cut")
}

func (s *luaSession) end(why string) {
	s.ended.Do(func() {
		s.release()
		if t := s.runtime.Trace; t != nil && t.Closed != nil {
			t.Closed(s.copyInfo(), why)
		}
	})
}

// closeTimeout bounds a close method.
const closeTimeout = 5 * time.Second

// hangUp calls close, if the object has such a method, and gives the state up. Errors are only for
// the log: there is no message left that they could concern.
func (s *luaSession) hangUp() {
	defer s.policy.states.Drop(s.state)
	defer s.bark(nil)
	if s.alive.Err() != nil {
		return // killed: nothing can be called any more
	}
	ctx, cancel := context.WithTimeout(s.alive, closeTimeout)
	defer cancel()
	method, err := s.state.Index(ctx, s.object, "close")
	if err == nil && method != lua.LNil {
		called := s.runtime.luaCalls(s.policy, "close")
		_, err = s.state.Call(ctx, 0, method, s.object)
		called(s, 0, err)
	}
	if err != nil {
		s.runtime.logger().Warn("policy: close failed", "connection", s.info.Peer, "error", luastate.Message(err))
	}
}

var errWatchdog = errors.New("watchdog: send did not return in time")

// call calls a method of the connection. What has begun is finished, or cut by Runtime.Close or the watchdog:
// the caller's context does not end it.
func (s *luaSession) call(name string, arg lua.LValue, messages int, watchdog time.Duration) (got lua.LValue, err error) {
	called := s.runtime.luaCalls(s.policy, name)
	if s.dog == nil {
		s.dog = time.AfterFunc(watchdog, func() { s.bark(errWatchdog) })
	} else {
		s.dog.Reset(watchdog)
	}
	defer func() {
		if !s.dog.Stop() {
			s.doubtful = true
		}
		called(s, messages, err)
	}()
	method, err := s.state.Index(s.calls, s.object, name)
	if err == nil && method == lua.LNil {
		err = errors.New("the connection object has no method " + name)
	}
	if err != nil {
		return nil, err
	}
	returned, err := s.state.Call(s.calls, 1, method, s.object, arg)
	if err != nil || len(returned) == 0 {
		return lua.LNil, err
	}
	return returned[0], nil
}

// send sends one message, by the method send.
func (s *luaSession) send(c *luaCall, watchdog time.Duration) {
	if err := context.Cause(s.calls); err != nil {
		s.doubtful, c.res = true, unsent(err)
		return
	}
	object := kumo.NewMessage(s.state.L, &c.message)
	returned, err := s.call("send", object, 1, watchdog)
	kumo.Expire(object)
	var text string
	if err == nil {
		text, err = disposition("send", returned)
	}
	if err == nil {
		c.res = delivered(text)
	} else {
		c.res = s.failed("send", err, watchdog, c.message.ID())
	}
	c.res.Session = &s.info
}

// sendBatch sends several messages, by the method send_batch.
func (s *luaSession) sendBatch(calls []*luaCall, watchdog time.Duration) {
	if err := context.Cause(s.calls); err != nil {
		s.doubtful = true
		for _, c := range calls {
			c.res = unsent(err)
		}
		return
	}
	list := s.state.L.CreateTable(len(calls), 0)
	objects := make([]*lua.LUserData, len(calls))
	for i, c := range calls {
		objects[i] = kumo.NewMessage(s.state.L, &c.message)
		list.RawSetInt(i+1, objects[i])
	}
	returned, err := s.call("send_batch", list, len(calls), watchdog)
	for _, object := range objects {
		kumo.Expire(object)
	}
	if err == nil {
		err = s.settleBatch(calls, returned)
	}
	if err != nil {
		res := s.failed("send_batch", err, watchdog, calls[0].message.ID())
		for _, c := range calls {
			c.res = res
		}
	}
	for _, c := range calls {
		c.res.Session = &s.info
	}
}

// failed is the result of a call that raised an error, for each message that it was about.
func (s *luaSession) failed(method string, err error, watchdog time.Duration, message string) Result {
	if rejection, ok := kumo.AsRejection(err); ok {
		s.doubtful = s.doubtful || rejection.Code == 421
		return rejected(rejection)
	}
	res := s.raised(method, err, message)
	if s.calls.Err() != nil { // cut in the middle: what it did before nobody knows
		res.MaybeDelivered = true
		if errors.Is(context.Cause(s.calls), errWatchdog) {
			res.Response.Code, res.Response.Enhanced = 451, EnhancedCode{4, 4, 1}
			res.Response.Text = fmt.Sprintf("dispatcher watchdog aborted task; %s did not return within %s", method, Duration(watchdog))
		}
	}
	return res
}

// raised is the result of an error that is no rejection: it may have left the connection in the middle of
// something.
func (s *luaSession) raised(method string, err error, message string) Result {
	s.doubtful = true
	s.runtime.logger().Error("policy: "+method+" failed", "connection", s.info.Peer, "message", message,
		"error", luastate.Message(err), "traceback", luastate.Traceback(err))
	return Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400,
		Text: safeText("delivery: error in deliver_message: sender:" + method + " method failed: " + luastate.Message(err))}}
}
