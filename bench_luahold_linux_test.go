package delivery

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var luaHold = flag.Int("hold.lua", 0, "TestLuaHold sends so many messages through one policy (the figures of the documentation: 1000000)")

// TestLuaHold sends many messages through the connections of one policy, and says what memory that takes. Nothing may be
// left of it after Close.
//
//	go test . -run '^TestLuaHold$' -v -args -hold.lua 1000000
func TestLuaHold(t *testing.T) {
	if *luaHold == 0 {
		t.Skip("figures, not a test: see -hold.lua")
	}
	goroutines, memory := runtime.NumGoroutine(), heap()
	rt, _ := quiet(t)
	policy, err := rt.ParsePolicy(t.Context(), "hold.lua", []byte(`
		local kumo = require 'kumo'
		kumo.on('make.it', function(domain, tenant, campaign)
			local connection = {sent = 0}
			function connection:send(message)
				self.sent = self.sent + 1
				message:set_meta('sent', {number = self.sent, to = message:recipient().email})
				return string.format('%d: %s for %s', self.sent, message:id(), message:get_meta('sent').to:lower())
			end
			function connection:close() self.sent = nil end
			return connection
		end)
		kumo.on('get_egress_path_config', function()
			return kumo.make_egress_path { connection_limit = 16, idle_timeout = '1h', max_deliveries_per_connection = 1024 }
		end)
		kumo.on('get_egress_source', function(name) return kumo.make_egress_source { name = name } end)
		kumo.on('get_egress_pool', function(name) return kumo.make_egress_pool { name = name, entries = { { name = 'one' } } } end)`))
	if err != nil {
		t.Fatal(err)
	}
	rt.SetPolicy(policy)
	c, err := ParseQueueConfig([]byte(`{"protocol": {"custom_lua": {"constructor": "make.it"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	const steps = 10
	var first, last int64
	for step := range steps {
		began := time.Now()
		var callers sync.WaitGroup
		var left atomic.Int64
		left.Store(int64(*luaHold / steps))
		for i := range 16 {
			callers.Go(func() {
				for left.Add(-1) >= 0 {
					if r := p.Deliver(context.Background(), messageTo(fmt.Sprintf("user%d@x.test", i))).Results[0]; r.Status != Delivered {
						t.Errorf("%s %s %v", r.Status, r.Response, r.Err)
						return
					}
				}
			})
		}
		callers.Wait()
		took := time.Since(began)
		if last = heap(); step == 0 {
			first = last
		}
		t.Logf("after %8d messages (%6.0f/s): heap %6.1f MB, %d goroutines", (step+1)*(*luaHold)/steps,
			float64(*luaHold/steps)/took.Seconds(), float64(last-memory)/1e6, runtime.NumGoroutine())
	}
	if growth := last - first; growth > 5e6 {
		t.Errorf("the heap grew by %d bytes after the first %d messages", growth, *luaHold/steps)
	}
	if err := rt.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for range 1000 { // what has ended is counted for a moment longer
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("after Close: %d goroutines (%d before), heap %.1f MB", runtime.NumGoroutine(), goroutines, float64(heap()-memory)/1e6)
	if runtime.NumGoroutine() > goroutines {
		t.Error("something is left")
	}
}
