package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mtadelivery/delivery/internal/kumo"
	lua "github.com/yuin/gopher-lua"
)

// benchLua are the connections whose cost is compared with that of the bare calls of their send methods.
var benchLua = []struct{ name, policy string }{
	{"trivial", connectionWith("return 'OK'")},
	{"reads", connectionWith("local id, to = message:id(), message:sender().email return 'OK'")},
	{"policy", "testdata/policies/records.lua"},
}

func benchPolicy(b *testing.B, text string) (*Runtime, *Policy) {
	rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard}
	b.Cleanup(func() { rt.Close(context.Background()) })
	if file, err := os.ReadFile(text); err == nil {
		text = string(file)
	}
	p, err := rt.ParsePolicy(b.Context(), "bench.lua", []byte(text))
	if err != nil {
		b.Fatal(err)
	}
	rt.SetPolicy(p)
	return rt, p
}

func benchMessage() *Message {
	msg := messageTo("user@example.com")
	msg.Queue = QueueName{Tenant: "tenant", Domain: "example.com"}
	msg.Meta = map[string]any{"log_record": map[string]any{"type": "Delivery", "recipient": "a@b.test", "code": 250.0}}
	return msg
}

// BenchmarkLua is one more message through a warm Lua connection, beside the bare call of the same function
// with the same userdata: the difference is what a delivery costs.
func BenchmarkLua(b *testing.B) {
	for _, of := range benchLua {
		constructor := "make.it"
		b.Run(of.name+"/bare", func(b *testing.B) {
			_, p := benchPolicy(b, of.policy)
			s, err := p.states.Get(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			made, err := p.Call(b.Context(), "nothing")
			if err != nil || made != nil {
				b.Fatal(made, err)
			}
			returned, _, err := p.call(b.Context(), s, constructor, luaStrings("example.com", "tenant", "")...)
			if err != nil {
				b.Fatal(err)
			}
			connection := returned[0].(*lua.LTable)
			a, err := newAttempt(benchMessage())
			if err != nil {
				b.Fatal(err)
			}
			object := kumo.NewMessage(s.L, &luaMessage{attempt: a})
			send := connection.RawGetString("send")
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			s.L.SetContext(ctx)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, connection, object); err != nil {
					b.Fatal(err)
				}
				s.L.Pop(1)
			}
		})
		b.Run(of.name+"/deliver", func(b *testing.B) {
			rt, _ := benchPolicy(b, of.policy)
			p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: constructor}}})
			if err != nil {
				b.Fatal(err)
			}
			msg := benchMessage()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if r := p.Deliver(ctx, msg).Results[0]; r.Status != Delivered {
					b.Fatal(r.Response)
				}
			}
		})
	}
}

// BenchmarkLuaBatch is one message of a batch of a hundred over one warm connection, beside the bare call of the
// same function with a list of a hundred.
func BenchmarkLuaBatch(b *testing.B) {
	const size = 100
	const policy = `kumo.on('make.it', function() return { send_batch = function(self, messages) return 'OK' end } end)
		kumo.on('get_egress_path_config', function() return kumo.make_egress_path { connection_limit = 1, max_deliveries_per_connection = 1000000 } end)`
	b.Run("bare", func(b *testing.B) {
		_, p := benchPolicy(b, policy)
		s, err := p.states.Get(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		returned, _, err := p.call(b.Context(), s, "make.it")
		if err != nil {
			b.Fatal(err)
		}
		connection := returned[0].(*lua.LTable)
		send := connection.RawGetString("send_batch")
		a, err := newAttempt(benchMessage())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for n := 0; n < b.N; n += size {
			list := s.L.CreateTable(size, 0)
			for i := range size {
				list.RawSetInt(i+1, kumo.NewMessage(s.L, &luaMessage{attempt: a}))
			}
			if err := s.L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, connection, list); err != nil {
				b.Fatal(err)
			}
			s.L.Pop(1)
		}
	})
	b.Run("deliver", func(b *testing.B) {
		rt, _ := benchPolicy(b, policy)
		p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{
			Constructor: "make.it", BatchSize: size, MinBatchSize: size, MaxBatchLatency: Duration(1e8)}}})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		var callers sync.WaitGroup
		total := int64(b.N+2*size-1) / (2 * size) * (2 * size) // so that every batch is full
		var begun atomic.Int64
		for range 2 * size {
			callers.Go(func() {
				msg := benchMessage()
				for begun.Add(1) <= total {
					if r := p.Deliver(context.Background(), msg).Results[0]; r.Status != Delivered {
						b.Error(r.Response)
					}
				}
			})
		}
		callers.Wait()
	})
}

// BenchmarkLuaParallel shows how throughput rises with states, up to the cores.
func BenchmarkLuaParallel(b *testing.B) {
	rt, _ := benchPolicy(b, "testdata/policies/records.lua")
	p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: "make.it"}}})
	if err != nil {
		b.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a host's heap is not as small as that of this process
	for _, callers := range []int{1, 2, 4} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			var calls sync.WaitGroup
			for range callers {
				calls.Go(func() {
					msg := benchMessage()
					for range b.N / callers {
						p.Deliver(context.Background(), msg)
					}
				})
			}
			calls.Wait()
		})
	}
}
