package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tenants is a policy whose connections say for whom they were made, when they close, and what they carried.
const tenants = `
	kumo.on('make.it', function(domain, tenant)
		local c = { sent = 0 }
		function c:send(message)
			if message:get_meta 'takes' then kumo.sleep(message:get_meta 'takes') end
			self.sent = self.sent + 1
			return tenant .. ' ' .. self.sent
		end
		function c:close() print('closed ' .. tenant) end
		return c
	end)`

// withTenants delivers a message for a tenant; the path is that of the egress path.
func withTenants(t *testing.T, path string, tell func(rt *Runtime, printed *record, send func(ctx context.Context, tenant string, takes float64) string)) {
	synctest.Test(t, func(t *testing.T) {
		rt, printed := &Runtime{Logger: slog.New(slog.DiscardHandler)}, &record{}
		rt.Stdout = printed
		withPolicy(t, rt, tenants+"kumo.on('get_egress_path_config', function() return kumo.make_egress_path { "+path+" } end)")
		c, err := ParseQueueConfig([]byte(luaConfig))
		if err != nil {
			t.Fatal(err)
		}
		p, err := rt.Protocol(c)
		if err != nil {
			t.Fatal(err)
		}
		tell(rt, printed, func(ctx context.Context, tenant string, takes float64) string {
			msg := messageTo("a@hook.test")
			msg.Queue = QueueName{Tenant: tenant, Domain: "hook.test"}
			if takes > 0 {
				msg.Meta = map[string]any{"takes": takes}
			}
			r := p.Deliver(ctx, msg).Results[0]
			if r.Status == Unsent {
				return "unsent"
			}
			return r.Response.Text
		})
		if err := rt.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// TestTheLimitSpansTenants: connections of one tenant never serve another, and an idle one gives way.
func TestTheLimitSpansTenants(t *testing.T) {
	withTenants(t, "connection_limit = 2, idle_timeout = '1h'", func(rt *Runtime, printed *record, send func(context.Context, string, float64) string) {
		for i, step := range []struct{ tenant, want, closed string }{
			{"x", "x 1", ""},
			{"y", "y 1", ""},
			{"x", "x 2", ""},
			{"z", "z 1", "closed y\n"}, // the one that was used least recently
			{"x", "x 3", ""},
			{"y", "y 1", "closed z\n"},
		} {
			before := printed.String()
			if got := send(context.Background(), step.tenant, 0); got != step.want {
				t.Errorf("%d: %q, want %q", i, got, step.want)
			}
			if got := strings.TrimPrefix(printed.String(), before); got != step.closed {
				t.Errorf("%d: closed %q, want %q", i, got, step.closed)
			}
		}
		if n := rt.Stats().Ready; len(n) != 1 || n[0].Idle != 2 || n[0].Limit != 2 || n[0].Opened != 4 {
			t.Errorf("%+v", n)
		}
	})
	// While all are in use, another tenant waits in its turn.
	withTenants(t, "connection_limit = 1, idle_timeout = '1h'", func(rt *Runtime, printed *record, send func(context.Context, string, float64) string) {
		var calls sync.WaitGroup
		got := make([]string, 4)
		for i, tenant := range []string{"x", "x", "y", "x"} {
			calls.Go(func() { got[i] = send(context.Background(), tenant, 1) })
			synctest.Wait()
		}
		calls.Wait()
		if want := []string{"x 1", "x 2", "y 1", "x 1"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestLuaConnectionsEnd(t *testing.T) {
	closes := func(path string, after func(rt *Runtime), want string) {
		t.Helper()
		withTenants(t, path, func(rt *Runtime, printed *record, send func(context.Context, string, float64) string) {
			for _, tenant := range []string{"x", "y", "x"} {
				send(context.Background(), tenant, 0)
			}
			after(rt)
			synctest.Wait()
			lines := strings.Fields(strings.ReplaceAll(printed.String(), "closed ", ""))
			slices.Sort(lines)
			if got := strings.Join(lines, " "); got != want {
				t.Errorf("%s: %q closed, want %q", path, got, want)
			}
		})
	}
	closes("idle_timeout = '5s'", func(*Runtime) { time.Sleep(4 * time.Second) }, "")
	closes("idle_timeout = '5s'", func(*Runtime) { time.Sleep(6 * time.Second) }, "x y")
	closes("max_deliveries_per_connection = 2", func(*Runtime) {}, "x")
	closes("max_deliveries_per_connection = 1", func(*Runtime) {}, "x x y")
	closes("idle_timeout = '1h'", func(rt *Runtime) { rt.SetPolicy(nil) }, "x y")
	closes("idle_timeout = '1h'", func(rt *Runtime) { rt.Close(context.Background()) }, "x y")
}

// TestReloadUnderLoad swaps policies while deliveries run at full speed: each message is delivered once, by
// the policy that was in force when it came, and nothing is left of the old ones.
func TestReloadUnderLoad(t *testing.T) {
	for _, config := range []string{luaConfig, `{"protocol": {"custom_lua": {"constructor": "make.it", "batch_size": 10}}}`} {
		printed := &record{}
		var opened, closed atomic.Int64
		rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: printed, Trace: &Trace{
			Opened: func(*Session) { opened.Add(1) },
			Closed: func(*Session, string) { closed.Add(1) },
		}}
		policy := func(n int) *Policy {
			p, err := rt.ParsePolicy(t.Context(), "test.lua", fmt.Appendf(nil, `
				kumo.on('make.it', function()
					return {
						send = function(self, message) return '%d' end,
						send_batch = function(self, messages) return '%[1]d' end,
						close = function() print 'closed' end,
					}
				end)
				kumo.on('get_egress_path_config', function() return kumo.make_egress_path { connection_limit = 4 } end)`, n))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		rt.SetPolicy(policy(0))
		p := protocolOf(t, rt, config)
		const callers, reloads, between = 8, 20, 200
		var calls sync.WaitGroup
		var current, done atomic.Int64
		for range callers {
			calls.Go(func() {
				for before := current.Load(); before < reloads; before = current.Load() {
					r := p.Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
					done.Add(1)
					var by int64
					fmt.Sscan(r.Response.Text, &by)
					if r.Status != Delivered || by < before {
						t.Errorf("%s %s %v, and policy %d was in force", r.Status, r.Response, r.Err, before)
					}
				}
			})
		}
		for n := 1; n <= reloads; n++ {
			for enough := done.Load() + between; done.Load() < enough; {
				runtime.Gosched()
			}
			rt.SetPolicy(policy(n))
			current.Store(int64(n))
		}
		calls.Wait()
		if n := rt.Stats().Ready[0]; n.Delivered != uint64(done.Load()) {
			t.Errorf("%d calls, %+v", done.Load(), n)
		}
		if err := rt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if o, c := opened.Load(), closed.Load(); o != c || o < reloads || int(o) != strings.Count(printed.String(), "closed") {
			t.Errorf("%d connections were opened, %d closed, of which %d by their own close", o, c, strings.Count(printed.String(), "closed"))
		}
	}
}

// TestAnOldPolicyIsForgotten: nothing holds one that was replaced, whatever was delivered by it.
func TestAnOldPolicyIsForgotten(t *testing.T) {
	rt, _ := quiet(t)
	p := protocolOf(t, rt, luaConfig)
	const reloads = 5
	gone := make(chan struct{}, reloads)
	for range reloads {
		policy, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(connectionWith("return 'OK'")))
		if err != nil {
			t.Fatal(err)
		}
		rt.SetPolicy(policy)
		if r := p.Deliver(t.Context(), messageTo("a@hook.test")).Results[0]; r.Status != Delivered {
			t.Error(r.Response)
		}
		runtime.AddCleanup(policy, func(c chan struct{}) { c <- struct{}{} }, gone)
	}
	for range reloads - 1 { // the last is in force
		for forgotten := false; !forgotten; {
			runtime.GC()
			select {
			case <-gone:
				forgotten = true
			case <-t.Context().Done():
				t.Fatal("a policy is held")
			default:
				runtime.Gosched()
			}
		}
	}
}
