package delivery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/luastate"
	lua "github.com/yuin/gopher-lua"
)

// Call calls the handlers of any event of the policy, in a state of its own, for what a host asks its policy
// besides delivery. Arguments are plain values (nil, booleans, numbers, strings, slices, and maps with string
// keys) and [*EventMessage]; results are plain values: nil, bool, float64, string, []any and map[string]any (an empty table
// is one of these). They are nil if the event has no handler or every handler passes on, and not nil, though they may be empty, if one
// answers.
//
// The call ends with ctx, and after a minute at most. The error is a [*LuaRejection] where Lua called
// kumo.reject, a [*MessageError], or a [*ConfigError] with file and line.
func (p *Policy) Call(ctx context.Context, event string, args ...any) ([]any, error) {
	s, err := p.states.Get(ctx)
	if err != nil {
		return nil, policyError(err)
	}
	values, release, err := eventArguments(s.L, args)
	if err != nil {
		p.states.Put(s)
		return nil, err
	}
	returned, handled, err := p.call(ctx, s, event, values...)
	release()
	if err != nil {
		p.states.Drop(s) // an error may have left it in the middle of something
		return nil, luaError(err)
	}
	defer p.states.Put(s)
	if !handled {
		return nil, nil
	}
	results := make([]any, len(returned))
	for i, v := range returned {
		if results[i], err = luastate.ToTree(v, map[string]any{}); err != nil {
			return nil, &ConfigError{File: p.name, Reason: fmt.Sprintf("the event %s returned what has no plain form: %v", event, err), Err: err}
		}
	}
	return results, nil
}

// EventMessage is a message as an argument of [Policy.Call].
type EventMessage struct {
	Message *Message
	// Changes is what Lua changed in it, set by Call; nil: nothing.
	Changes *Changes
}

// eventArguments makes Lua values of Go's. The messages among them are no longer to be used after release.
func eventArguments(L *lua.LState, args []any) (values []lua.LValue, release func(), err error) {
	values = make([]lua.LValue, len(args))
	messages := map[*EventMessage]*luaMessage{}
	var handles []*lua.LUserData
	for i, arg := range args {
		switch arg := arg.(type) {
		case *EventMessage:
			a, err := newAttempt(arg.Message)
			if err != nil {
				return nil, nil, err
			}
			messages[arg] = &luaMessage{attempt: a}
			handle := kumo.NewMessage(L, messages[arg])
			values[i], handles = handle, append(handles, handle)
		case lua.LValue: // which belongs to another state
			return nil, nil, fmt.Errorf("argument %d: a %T is no plain value", i+1, arg)
		default:
			if values[i] = luastate.FromTree(L, arg); values[i] == lua.LNil && arg != nil {
				return nil, nil, fmt.Errorf("argument %d: a %T is no plain value", i+1, arg)
			}
		}
	}
	return values, func() {
		for _, handle := range handles {
			kumo.Expire(handle)
		}
		for arg, m := range messages {
			arg.Changes = m.changes
		}
	}, nil
}

// LuaRejection is what kumo.reject raises.
type LuaRejection struct {
	Code int
	Text string
}

func (r *LuaRejection) Error() string { return strconv.Itoa(r.Code) + " " + r.Text }

// luaError gives what a call of Lua ended with its public form.
func luaError(err error) error {
	if r, ok := kumo.AsRejection(err); ok {
		return &LuaRejection{r.Code, r.Text}
	}
	if err == nil {
		return nil
	}
	return policyError(err)
}

// LuaCall is one call of a policy: see [Trace].LuaCalled.
type LuaCall struct {
	// Policy is the name of the policy's file.
	Policy string
	// Name is the event, that of a constructor included, or the method "send", "send_batch" or "close".
	Name string
	// Session is the connection whose method it was; nil: it was an event.
	Session *Session
	// Messages is how many messages went with it.
	Messages int
	Took     time.Duration
	// Err is what it raised, a [*LuaRejection] for kumo.reject; nil: nothing.
	Err error
}

func notTraced(*luaSession, int, error) {}

// luaCalls begins a call of Lua; what it returns ends it.
func (r *Runtime) luaCalls(p *Policy, name string) (called func(s *luaSession, messages int, err error)) {
	t := r.Trace
	if t == nil || t.LuaCalled == nil {
		return notTraced
	}
	start := time.Now()
	return func(s *luaSession, messages int, err error) {
		c := LuaCall{Policy: p.name, Name: name, Messages: messages, Took: time.Since(start), Err: luaError(err)}
		if s != nil {
			c.Session = s.copyInfo()
		}
		t.LuaCalled(c)
	}
}

// preload lets require find the host's own modules.
func (r *Runtime) preload(L *lua.LState) error {
	if len(r.LuaModules) == 0 {
		return nil
	}
	pkg, _ := L.GetGlobal(lua.LoadLibName).(*lua.LTable)
	if pkg == nil {
		return errors.New("LuaModules: there is no package library")
	}
	preload, _ := pkg.RawGetString("preload").(*lua.LTable)
	loaded, _ := pkg.RawGetString("loaded").(*lua.LTable)
	if preload == nil || loaded == nil {
		return errors.New("LuaModules: there is no package.preload")
	}
	for name, load := range r.LuaModules {
		switch {
		case load == nil:
			return &ConfigError{Reason: fmt.Sprintf("LuaModules: %q has no function", name)}
		case loaded.RawGetString(name) != lua.LNil || preload.RawGetString(name) != lua.LNil:
			return &ConfigError{Reason: fmt.Sprintf("LuaModules: %q is the name of a module that is there already", name)}
		}
		preload.RawSetString(name, L.NewFunction(load))
	}
	return nil
}

// settings are the functions by which a policy says how long its states are kept. Each state that it runs in
// says so again; what the first said counts.
func (p *Policy) settings() map[string]func(L *lua.LState, n int) error {
	set := func(name string, apply func(n int)) func(*lua.LState, int) error {
		return func(L *lua.LState, n int) error {
			switch {
			case !p.loaded:
				apply(n)
			case luastate.Loaded(L):
				return fmt.Errorf("kumo.%s inside an event handler: it stands where the policy is loaded", name)
			}
			return nil
		}
	}
	settings := map[string]func(n int){
		"set_max_lua_context_use_count": func(n int) { p.states.MaxUses = max(n, 1) },
		"set_max_lua_context_age": func(n int) {
			p.states.MaxAge = time.Duration(min(n, int(math.MaxInt64/time.Second)))*time.Second + 1 // never zero
		},
		"set_max_spare_lua_contexts": func(n int) {
			if p.states.MaxSpare = n; n == 0 {
				p.states.MaxSpare = -1
			}
		},
	}
	all := map[string]func(*lua.LState, int) error{}
	for name, apply := range settings {
		all[name] = set(name, apply)
	}
	return all
}
