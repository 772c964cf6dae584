package kumo

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

func benchmarkPolicy(b *testing.B) []byte {
	source, err := os.ReadFile("testdata/webhook.lua")
	if err != nil {
		b.Fatal(err)
	}
	return source
}

func BenchmarkState(b *testing.B) {
	source := benchmarkPolicy(b)
	o := stubs()
	setup := func(L *lua.LState) error {
		Install(L, o)
		return nil
	}
	program, err := luastate.Compile("webhook.lua", source)
	if err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, compile bool) {
		b.ReportAllocs()
		for b.Loop() {
			p := program
			if compile {
				if p, err = luastate.Compile("webhook.lua", source); err != nil {
					b.Fatal(err)
				}
			}
			s, err := p.NewState(b.Context(), luastate.Options{Setup: setup})
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	}
	b.Run("compiled", func(b *testing.B) { run(b, false) })
	b.Run("source", func(b *testing.B) { run(b, true) })
	b.Run("memory", func(b *testing.B) {
		const n = 200
		for b.Loop() {
			states := make([]*luastate.State, n)
			time.Sleep(50 * time.Millisecond) // what watches the last ones lets go of them
			before := heap()
			for i := range states {
				if states[i], err = program.NewState(b.Context(), luastate.Options{Setup: setup}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(heap()-before)/n, "B/state")
			for _, s := range states {
				s.Close()
			}
		}
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSend is one message through a warm connection, beside the bare call of the same function
// with the same userdata.
func BenchmarkSend(b *testing.B) {
	for name, body := range map[string]string{
		"trivial": "return 'OK'",
		"reads":   "local id, to = message:id(), message:sender().email return 'OK'",
		"meta":    "local id, tenant = message:id(), message:get_meta 'tenant' return 'OK'",
		"to":      "local to = message:recipient() local user, domain = to.user, to.domain return 'OK'",
	} {
		s := newState(b, stubs(), "connection = {} function connection:send(message) "+body+" end")
		connection := s.L.GetGlobal("connection")
		l := &letter{to: []Address{jane}, meta: map[string]any{"tenant": "one"}}
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		send, err := s.Index(ctx, connection, "send")
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/bare", func(b *testing.B) {
			message := NewMessage(s.L, l)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, connection, message); err != nil {
					b.Fatal(err)
				}
				s.L.Pop(1)
			}
		})
		b.Run(name+"/call", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				message := NewMessage(s.L, l)
				if _, err := s.Call(ctx, 1, send, connection, message); err != nil {
					b.Fatal(err)
				}
				Expire(message)
			}
		})
	}
}
