package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"
)

func TestPolicyCall(t *testing.T) {
	rt, _ := quiet(t)
	p := withPolicy(t, rt, `
		kumo.on('echo', function(...) return ... end)
		kumo.on('nothing', function() end)
		kumo.on('requeue_message', function(message, response)
			if response == 'keep' then return end
			message:set_meta('tried', { message:num_attempts() })
			if response == 'bounce' then kumo.reject(550, 'no more') end
			return message:id()
		end)
		kumo.on('config', function() return kumo.make_queue_config { max_age = '1h' } end)
		kumo.on('function', function() return print end)
		kumo.on('raise', function() error 'boom' end)
		kumo.on('hang', function() while true do end end)
		kumo.on('keeps', function(m) kept = m end)
		`)
	type object = map[string]any
	for _, test := range []struct {
		event string
		args  []any
		want  []any
	}{
		{"no such event", nil, nil},
		{"nothing", nil, []any{}},
		{"echo", []any{nil}, []any{nil}},
		{"echo", []any{true, 1, 2.5, "s", uint8(3)}, []any{true, 1.0, 2.5, "s", 3.0}},
		{"echo", []any{[]any{"a", []string{"b"}}, object{"k": object{"deep": 1}}}, []any{[]any{"a", []any{"b"}}, object{"k": object{"deep": 1.0}}}},
		{"echo", []any{object{}, []any{}}, []any{object{}, object{}}},
		{"requeue_message", []any{&EventMessage{Message: messageTo("a@x.test")}, "keep"}, nil},
		{"requeue_message", []any{&EventMessage{Message: messageTo("a@x.test")}, "more"}, []any{"m1"}},
	} {
		got, err := p.Call(t.Context(), test.event, test.args...)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %v: %#v, %v; want %#v", test.event, test.args, got, err, test.want)
		}
	}
	if got, err := p.Call(t.Context(), "config"); err != nil || got[0].(object)["max_age"] != "1h" {
		t.Errorf("a config: %v, %v", got, err)
	}

	m := &EventMessage{Message: messageTo("a@x.test")}
	m.Message.Attempts = 3
	_, err := p.Call(t.Context(), "requeue_message", m, "bounce")
	if r, ok := errors.AsType[*LuaRejection](err); !ok || *r != (LuaRejection{550, "no more"}) || err.Error() != "550 no more" {
		t.Errorf("a rejection: %v", err)
	}
	if m.Changes == nil || fmt.Sprint(m.Changes.Meta) != "map[tried:[3]]" || m.Message.Meta != nil {
		t.Errorf("changes %+v", m.Changes)
	}

	for _, test := range []struct {
		event string
		args  []any
		says  string
		line  int
	}{
		{"raise", nil, "boom", 12},
		{"function", nil, "no plain form", 0},
		{"echo", []any{"ok", make(chan int)}, "argument 2: a chan int is no plain value", 0},
		{"echo", []any{lua.LString("x")}, "argument 1: a lua.LString is no plain value", 0},
		{"echo", []any{&EventMessage{Message: &Message{}}}, "Recipients", 0},
	} {
		got, err := p.Call(t.Context(), test.event, test.args...)
		if err == nil || got != nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, %v", test.event, got, err)
			continue
		}
		if e, ok := errors.AsType[*ConfigError](err); test.line > 0 && (!ok || e.Line != test.line || e.File != "test.lua") {
			t.Errorf("%s: %#v", test.event, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Call(ctx, "hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that ends with its context: %v", err)
	}
	if got, err := p.Call(t.Context(), "keeps", m); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// counter is what a host may lend its policies: userdata with a method, shared by all states.
type counter struct {
	mu    sync.Mutex
	total float64
}

func (c *counter) load(L *lua.LState) int {
	methods := L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"add": func(L *lua.LState) int {
			c := L.CheckUserData(1).Value.(*counter)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.total += float64(L.CheckNumber(2))
			L.Push(lua.LNumber(c.total))
			return 1
		},
		"panic": func(*lua.LState) int { panic("in the host") },
		"wait":  func(L *lua.LState) int { <-L.Context().Done(); return 0 },
	})
	metatable := L.NewTypeMetatable("counter")
	metatable.RawSetString("__index", methods)
	module := L.NewTable()
	L.SetFuncs(module, map[string]lua.LGFunction{"open": func(L *lua.LState) int {
		L.Push(&lua.LUserData{Value: c, Metatable: metatable})
		return 1
	}})
	L.Push(module)
	return 1
}

func TestLuaModules(t *testing.T) {
	rt, log := quiet(t)
	shared := &counter{}
	rt.LuaModules = map[string]lua.LGFunction{"host.counter": shared.load}
	withPolicy(t, rt, `
		local counter = require 'host.counter'
		kumo.on('make.it', function()
			made = (made or 0) + 1
			local total = counter.open()
			return { send = function(self, message)
				if message:get_meta 'panic' then total:panic() end
				return made .. ' ' .. total:add(message:get_meta 'n' or 1)
			end }
		end)`)
	p := protocolOf(t, rt, luaConfig)
	for _, test := range []struct {
		meta map[string]any
		want string
	}{
		{nil, "1 1"},
		{map[string]any{"n": 5}, "1 6"},
		{map[string]any{"panic": true}, "delivery: error in deliver_message: sender:send method failed: test.lua:7: panic: in the host"},
		{nil, "1 7"}, // another state: it counts its connections anew, the host does not
	} {
		msg := messageTo("a@hook.test")
		msg.Meta = test.meta
		r := p.Deliver(t.Context(), msg).Results[0]
		if r.Response.Text != test.want || (test.meta["panic"] != nil) != (r.Status == Transient) {
			t.Errorf("%v: %s %s", test.meta, r.Status, r.Response)
		}
	}
	if !strings.Contains(log.String(), "luahost_test.go") {
		t.Errorf("the log does not say where the host panicked: %s", log)
	}
}

func TestLuaModulesThatCannotBe(t *testing.T) {
	for name, load := range map[string]lua.LGFunction{"kumo": new(counter).load, "kumo.http": new(counter).load, "string": new(counter).load, "mine": nil} {
		rt, _ := quiet(t)
		rt.LuaModules = map[string]lua.LGFunction{name: load}
		_, err := rt.ParsePolicy(t.Context(), "test.lua", nil)
		if _, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(err.Error(), `LuaModules: "`+name+`"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAHostFunctionThatWaits ends with the watchdog, as L.Context says.
func TestAHostFunctionThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, _ := quiet(t)
		rt.LuaModules = map[string]lua.LGFunction{"host.counter": new(counter).load}
		withPolicy(t, rt, `local counter = require 'host.counter'
			kumo.on('get_egress_path_config', function() return kumo.make_egress_path { dispatcher_progress_watchdog_timeout = '3s' } end)`+
			connectionWith("counter.open():wait() return 'OK'"))
		r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
		if r.Status != Transient || !r.MaybeDelivered || r.Response.Code != 451 {
			t.Errorf("%s %s", r.Status, r.Response)
		}
	})
}

// TestAHostFunctionThatDoesNotReturn: the message has its result, others are delivered, and Close returns.
func TestAHostFunctionThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		rt, _ := quiet(t)
		rt.LuaModules = map[string]lua.LGFunction{"host": func(L *lua.LState) int {
			L.Push(L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{"stuck": func(*lua.LState) int { <-release; return 0 }}))
			return 1
		}}
		withPolicy(t, rt, `local host = require 'host'
			kumo.on('get_egress_path_config', function() return kumo.make_egress_path { dispatcher_progress_watchdog_timeout = '3s' } end)`+
			connectionWith("if message:recipient().user == 'stuck' then host.stuck() end return 'OK'"))
		p := protocolOf(t, rt, luaConfig)
		began := time.Now()
		r := p.Deliver(t.Context(), messageTo("stuck@hook.test")).Results[0]
		if r.Status != Transient || !r.MaybeDelivered || r.Response.Code != 451 || time.Since(began) != 4*time.Second {
			t.Errorf("%s %s after %s", r.Status, r.Response, time.Since(began))
		}
		if r := p.Deliver(t.Context(), messageTo("other@hook.test")).Results[0]; r.Status != Delivered {
			t.Errorf("%s %s", r.Status, r.Response)
		}
		if err := rt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		close(release)
	})
}

func TestLuaCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Trace: &Trace{LuaCalled: func(c LuaCall) {
			session := "-"
			if c.Session != nil {
				session = c.Session.Peer
			}
			seen = append(seen, fmt.Sprintf("%s %s %s %d %v %v", c.Policy, c.Name, session, c.Messages, c.Took, c.Err))
		}}}
		p := withPolicy(t, rt, `
			kumo.on('init', function() kumo.sleep(1) end)
			kumo.on('get_queue_config', function() end)
			kumo.on('make.it', function()
				kumo.sleep(2)
				return {
					send = function(self, m)
						kumo.sleep(3)
						if m:get_meta 'raise' then error 'boom' end
						kumo.reject(450, 'later')
					end,
					send_batch = function(self, list) return 'OK' end,
					close = function() kumo.sleep(4) end,
				}
			end)
			kumo.on('get_egress_path_config', function() return kumo.make_egress_path { connection_limit = 1 } end)`)
		if _, err := p.QueueConfig(t.Context(), QueueName{Domain: "x.test"}); err != nil {
			t.Error(err)
		}
		if _, err := p.Call(t.Context(), "unknown"); err != nil {
			t.Error(err)
		}
		config := func(text string) Protocol {
			c, err := ParseQueueConfig([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			p, err := rt.Protocol(c)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		single, batches := config(luaConfig), config(`{"protocol": {"custom_lua": {"constructor": "make.it", "batch_size": 2}}}`)
		msg := messageTo("a@hook.test")
		single.Deliver(t.Context(), msg)
		batches.Deliver(t.Context(), msg)
		msg.Meta = map[string]any{"raise": true}
		single.Deliver(t.Context(), msg)
		if err := rt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		want := []string{
			"test.lua init - 0 1s <nil>",
			"test.lua get_queue_config - 0 0s <nil>",
			"test.lua get_egress_path_config - 0 0s <nil>",
			"test.lua make.it - 0 2s <nil>",
			"test.lua send Lua via make.it 1 3s 450 later",
			"test.lua send_batch Lua via make.it 1 0s <nil>",
			"test.lua send Lua via make.it 1 3s test.lua:9: boom",
			"test.lua close Lua via make.it 0 4s <nil>",
		}
		if !reflect.DeepEqual(seen, want) {
			t.Errorf("got  %q\nwant %q", seen, want)
		}
	})
}

func TestSettingsOfStates(t *testing.T) {
	// The policy counts in a global how often its state was used.
	const counts = "kumo.on('use', function() uses = (uses or 0) + 1 return uses end)\n"
	for _, test := range []struct {
		policy string
		wait   time.Duration
		want   string // what five calls see
	}{
		{"", 0, "1 2 3 4 5"},
		{"kumo.set_max_lua_context_use_count(3)", 0, "1 2 1 2 3"}, // loading was the first use of the first
		{"kumo.on('init', function() kumo.set_max_lua_context_use_count(3) end)", 0, "1 2 1 2 3"},
		{"kumo.on('pre_init', function() kumo.set_max_lua_context_use_count(0) end)", 0, "1 1 1 1 1"},
		{"kumo.set_max_lua_context_age(25)", 10 * time.Second, "1 2 1 2 3"},
		{"kumo.set_max_lua_context_age(0)", 0, "1 2 3 4 5"}, // no time passes
		{"kumo.set_max_lua_context_age(1e300)", 1000 * time.Hour, "1 2 3 4 5"},
		{"kumo.set_max_spare_lua_contexts(0)", 0, "1 1 1 1 1"},
		{"kumo.set_max_spare_lua_contexts(1)", 0, "1 2 3 4 5"},
		{"kumo.set_lua_gc_on_put(10)", 0, "1 2 3 4 5"}, // which Go does by itself
	} {
		synctest.Test(t, func(t *testing.T) {
			rt, _ := quiet(t)
			p, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(counts+test.policy))
			if strings.Contains(test.policy, "1e300") {
				if err == nil || !strings.Contains(err.Error(), "want a whole number from 0, got 1e+300") {
					t.Errorf("%s: %v", test.policy, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for range 5 {
				time.Sleep(test.wait)
				uses, err := p.Call(t.Context(), "use")
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(uses[0]))
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("%s: %s, want %s", test.policy, got, test.want)
			}
		})
	}
	for _, policy := range []string{
		"kumo.set_max_lua_context_use_count(-1)", "kumo.set_max_lua_context_age(1.5)", "kumo.set_max_spare_lua_contexts('x')", "kumo.set_max_lua_context_age()",
	} {
		rt, _ := quiet(t)
		_, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(policy))
		if e, ok := errors.AsType[*ConfigError](err); !ok || e.Line != 1 {
			t.Errorf("%s: %v", policy, err)
		}
	}
	rt, _ := quiet(t)
	p := withPolicy(t, rt, "kumo.on('late', function() kumo.set_max_lua_context_age(1) end)")
	if _, err := p.Call(t.Context(), "late"); err == nil || !strings.Contains(err.Error(), "kumo.set_max_lua_context_age inside an event handler") {
		t.Errorf("%v", err)
	}
}
