package delivery

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var luaSends = flag.Int("lua.sends", 20_000, "TestLuaIsFlat sends so many messages (the figures of the README: 1000000)")

// TestLuaIsFlat sends many messages through one policy, one by one and in batches: memory does not grow with
// them, and no goroutine is left.
//
//	go test . -run '^TestLuaIsFlat$' -v -args -lua.sends 1000000
func TestLuaIsFlat(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard}
	text, err := os.ReadFile("testdata/policies/records.lua")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := rt.ParsePolicy(t.Context(), "records.lua", append(text, `
		kumo.on('make.batch', function()
			return { send_batch = function(self, messages)
				local results = {}
				for i, message in ipairs(messages) do results[i] = message:id() end
				return results
			end }
		end)`...))
	if err != nil {
		t.Fatal(err)
	}
	rt.SetPolicy(policy)
	send := func(p Protocol, n int) {
		var callers sync.WaitGroup
		var begun atomic.Int64
		for range 16 {
			callers.Go(func() {
				msg := messageTo("user@example.com")
				msg.Queue = QueueName{Tenant: "tenant", Domain: "example.com"}
				msg.Meta = map[string]any{"log_record": map[string]any{"type": "Delivery", "recipient": "a@b.test", "code": 250.0}}
				for begun.Add(1) <= int64(n) {
					if r := p.Deliver(context.Background(), msg).Results[0]; r.Status != Delivered {
						t.Error(r.Response)
					}
				}
			})
		}
		callers.Wait()
	}
	for _, config := range []CustomLua{{Constructor: "make.it"}, {Constructor: "make.batch", BatchSize: 10}} {
		p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &config}})
		if err != nil {
			t.Fatal(err)
		}
		send(p, *luaSends/10)
		before := heap()
		send(p, *luaSends*9/10)
		after := heap()
		t.Logf("%s: %.2f MB of heap after the first tenth of %d messages, %.2f MB after the last; %d goroutines",
			config.Constructor, float64(before)/1e6, *luaSends, float64(after)/1e6, runtime.NumGoroutine())
		if after > before+4<<20 { // one of the idle connections more, or some kB of a state, are no growth
			t.Errorf("%s: the heap grew from %d to %d bytes", config.Constructor, before, after)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	goroutinesEnd(t, goroutines)
}

// goroutinesEnd fails if there are more goroutines than before.
func goroutinesEnd(t *testing.T, before int) {
	t.Helper()
	for range 1000 { // one that has done its work may not have ended yet
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}
