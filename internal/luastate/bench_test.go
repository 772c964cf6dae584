package luastate

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// policy is of the size of a small real one.
var policy = strings.Repeat(`
local function helper(a, b)
	local t = {name = a, value = b, list = {1, 2, 3}}
	if a == 'x' then t.name = 'y' elseif b then t.value = b .. 'z' end
	return t
end
`, 8) + "function send(message) return 'OK' end"

func BenchmarkStateFromProgram(b *testing.B) {
	p, err := Compile("policy.lua", []byte(policy))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := p.NewState(b.Context(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkStateFromSource(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		p, err := Compile("policy.lua", []byte(policy))
		if err != nil {
			b.Fatal(err)
		}
		s, err := p.NewState(b.Context(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkBareState(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		lua.NewState().Close()
	}
}

// BenchmarkStateMemory measures what one idle state holds.
func BenchmarkStateMemory(b *testing.B) {
	p, err := Compile("policy.lua", []byte(policy))
	if err != nil {
		b.Fatal(err)
	}
	const n = 200
	for b.Loop() {
		states := make([]*State, n)
		time.Sleep(2 * Limits{}.withDefaults().tickLength()) // the clocks of the last ones rest
		before := heap()
		for i := range states {
			if states[i], err = p.NewState(context.Background(), Options{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/n, "B/state")
		for _, s := range states {
			s.Close()
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkCall(b *testing.B) {
	s := newState(b, policy, nil)
	send := s.L.GetGlobal("send")
	message := s.L.NewUserData()
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, message); err != nil {
				b.Fatal(err)
			}
			s.L.Pop(1)
		}
	})
	b.Run("state", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Call(ctx, 1, send, message); err != nil {
				b.Fatal(err)
			}
		}
	})
}
