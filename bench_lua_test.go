package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/kumo"
	lua "github.com/yuin/gopher-lua"
)

// benchLua are the connections whose cost is compared with that of the bare calls of their send methods.
func benchLua(b *testing.B) []struct{ name, policy string } {
	return []struct{ name, policy string }{
		{"trivial", connectionWith("return 'OK'")},
		{"reads", connectionWith("local id, to = message:id(), message:sender().email return 'OK'")},
		{"policy", recordsPolicy(b)},
	}
}

// recordsPolicy is a policy of sixty lines.
func recordsPolicy(b *testing.B) string {
	file, err := os.ReadFile("testdata/policies/records.lua")
	if err != nil {
		b.Fatal(err)
	}
	return string(file)
}

// benchPath is that of one warm connection.
const benchPath = "\nkumo.on('get_egress_path_config', function() return kumo.make_egress_path { connection_limit = 1, max_deliveries_per_connection = 1000000000 } end)"

func benchPolicy(b *testing.B, text string) (*Runtime, *Policy) {
	rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard}
	b.Cleanup(func() { rt.Close(context.Background()) })
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

// sideBySide runs parts in turn, n operations of each at a time, and reports the median of what an operation of
// each took: what disturbs the machine for a moment disturbs all of them or counts for none.
func sideBySide(b *testing.B, n int, parts ...benchPart) (medians []float64) {
	took := make([][]float64, len(parts))
	b.ResetTimer()
	for done := 0; done < b.N; done += n {
		for i, part := range parts {
			start := time.Now()
			part.run(n)
			took[i] = append(took[i], float64(time.Since(start))/float64(n))
		}
	}
	for i, part := range parts {
		slices.Sort(took[i])
		medians = append(medians, took[i][len(took[i])/2])
		b.ReportMetric(medians[i], part.name+"-ns")
	}
	b.ReportMetric(0, "ns/op") // which would be that of all parts together
	return medians
}

type benchPart struct {
	name string
	run  func(n int)
}

// bareConnection is what the constructor of a policy makes, in a state of its own, with a message for it.
func bareConnection(b *testing.B, p *Policy) (*lua.LState, *lua.LTable, *attempt) {
	s, err := p.states.Get(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	returned, _, err := p.call(b.Context(), s, "make.it", luaStrings("example.com", "tenant", "")...)
	if err != nil {
		b.Fatal(err)
	}
	a, err := newAttempt(benchMessage())
	if err != nil {
		b.Fatal(err)
	}
	s.L.SetContext(b.Context())
	return s.L, returned[0].(*lua.LTable), a
}

// BenchmarkLua is one more message through a warm Lua connection, beside the bare call of the same function
// with the same userdata: the difference is what a delivery costs.
func BenchmarkLua(b *testing.B) {
	for _, of := range benchLua(b) {
		b.Run(of.name, func(b *testing.B) {
			rt, policy := benchPolicy(b, of.policy+benchPath)
			L, connection, a := bareConnection(b, policy)
			object := kumo.NewMessage(L, &luaMessage{attempt: a})
			send := connection.RawGetString("send")
			p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: "make.it"}}})
			if err != nil {
				b.Fatal(err)
			}
			msg := benchMessage()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			took := sideBySide(b, 5000, benchPart{"bare", func(n int) {
				for range n {
					if err := L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, connection, object); err != nil {
						b.Fatal(err)
					}
					L.Pop(1)
				}
			}}, benchPart{"deliver", func(n int) {
				for range n {
					if r := p.Deliver(ctx, msg).Results[0]; r.Status != Delivered {
						b.Fatal(r.Response)
					}
				}
			}})
			b.ReportMetric(took[1]-took[0], "more-ns")
			b.ReportMetric(took[1]/took[0], "times")
		})
	}
}

// BenchmarkLuaBatch is one message of a batch of a hundred over one warm connection, beside what is none of ours
// in it: its part of the bare call of the same function with a list of a hundred, and the wait of its caller, who is
// parked and woken as the callers of any batch are. What is left is our share.
func BenchmarkLuaBatch(b *testing.B) {
	const size = 100
	rt, policy := benchPolicy(b, `kumo.on('make.it', function() return { send_batch = function(self, messages) return 'OK' end } end)`+benchPath)
	L, connection, a := bareConnection(b, policy)
	send := connection.RawGetString("send_batch")
	p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{
		Constructor: "make.it", BatchSize: size, MinBatchSize: size, MaxBatchLatency: Duration(time.Second)}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var bare rendezvous
	took := sideBySide(b, 200*size, benchPart{"bare", func(n int) {
		for range n / size {
			list := L.CreateTable(size, 0)
			for i := range size {
				list.RawSetInt(i+1, kumo.NewMessage(L, &luaMessage{attempt: a}))
			}
			if err := L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, connection, list); err != nil {
				b.Fatal(err)
			}
			L.Pop(1)
		}
	}}, benchPart{"wait", func(n int) {
		fromManyCallers(2*size, n, func() func() {
			woken := make(chan struct{}, 1)
			return func() { bare.meet(ctx, woken, size) }
		})
	}}, benchPart{"deliver", func(n int) {
		fromManyCallers(2*size, n, func() func() {
			msg := benchMessage()
			return func() {
				if r := p.Deliver(ctx, msg).Results[0]; r.Status != Delivered {
					b.Error(r.Response)
				}
			}
		})
	}})
	b.ReportMetric(took[2]-took[1]-took[0], "ours-ns")
}

// fromManyCallers makes n calls, from as many goroutines as there are callers.
func fromManyCallers(callers, n int, begin func() (call func())) {
	var group sync.WaitGroup
	var begun atomic.Int64
	for range callers {
		group.Go(func() {
			call := begin()
			for begun.Add(1) <= int64(n) {
				call()
			}
		})
	}
	group.Wait()
}

// rendezvous is the least that a batch of calls can be: the last to come wakes the others.
type rendezvous struct {
	mu     sync.Mutex
	others []chan struct{}
	spare  []chan struct{}
}

func (m *rendezvous) meet(ctx context.Context, woken chan struct{}, size int) {
	m.mu.Lock()
	if len(m.others)+1 < size {
		m.others = append(m.others, woken)
		m.mu.Unlock()
		select {
		case <-woken:
		case <-ctx.Done():
		}
		return
	}
	others := m.others
	m.others, m.spare = m.spare, nil
	m.mu.Unlock()
	for _, other := range others {
		other <- struct{}{}
	}
	m.mu.Lock()
	m.spare = others[:0]
	m.mu.Unlock()
}

// BenchmarkLuaParallel shows how throughput rises with Lua states, up to the cores: by eight callers, who wait for a state
// where there are fewer. Bare are the same calls with nothing between callers and states but a channel.
func BenchmarkLuaParallel(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a host's heap is not as small, and collected as often, as that of this process
	for _, states := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("bare/states=%d", states), func(b *testing.B) {
			_, policy := benchPolicy(b, recordsPolicy(b))
			calls := make(chan func(), states)
			for range states {
				L, connection, a := bareConnection(b, policy)
				object, send := kumo.NewMessage(L, &luaMessage{attempt: a}), connection.RawGetString("send")
				calls <- func() {
					if err := L.CallByParam(lua.P{Fn: send, NRet: 1, Protect: true}, connection, object); err != nil {
						b.Error(err)
					}
					L.Pop(1)
				}
			}
			b.ResetTimer()
			fromManyCallers(8, b.N, func() func() {
				return func() {
					call := <-calls
					call()
					calls <- call
				}
			})
		})
		b.Run(fmt.Sprintf("deliver/states=%d", states), func(b *testing.B) {
			rt, _ := benchPolicy(b, recordsPolicy(b)+strings.Replace(benchPath, "connection_limit = 1", fmt.Sprint("connection_limit = ", states), 1))
			p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: "make.it"}}})
			if err != nil {
				b.Fatal(err)
			}
			fromManyCallers(8, b.N, func() func() {
				msg := benchMessage()
				return func() {
					if r := p.Deliver(b.Context(), msg).Results[0]; r.Status != Delivered {
						b.Error(r.Response)
					}
				}
			})
		})
	}
}
