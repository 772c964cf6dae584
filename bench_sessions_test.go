package delivery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// everywhere is a Resolver that knows a mail exchanger for every domain.
type everywhere struct{}

func (everywhere) Lookup(_ context.Context, name string, t DNSType) DNSAnswer {
	a := DNSAnswer{Result: DNSRecords, Name: name, TTL: time.Hour}
	switch t {
	case DNSTypeMX:
		a.MX = []MXRecord{{Preference: 10, Host: "mx." + name}}
	case DNSTypeA:
		a.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	default:
		a.Result = DNSNoData
	}
	return a
}

// heap is what is in use when there is no garbage.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkIdleReadyNames is what a ready name costs that got a message, and whose connection has ended: its
// counts, its config, its rate, its way (bytes/name).
func BenchmarkIdleReadyNames(b *testing.B) {
	const names = 100_000
	for b.Loop() {
		b.StopTimer()
		sink := &smtptest.Sink{CountOnly: true}
		rt := &Runtime{Resolver: everywhere{}, Egress: loopback(`"idle_timeout": "1ms", "max_message_rate": "100/s"`),
			Dial: func(context.Context, DialRequest) (net.Conn, error) { return smtptest.Link{}.Dial(sink.ServeConn), nil }}
		p, err := rt.Protocol(QueueConfig{})
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		b.StartTimer()
		var callers sync.WaitGroup
		for caller := range 64 {
			callers.Go(func() {
				for i := caller; i < names; i += 64 {
					msg := messageTo("a@x.test")
					msg.Queue = QueueName{Domain: fmt.Sprintf("domain%d.test", i)}
					if r := p.Deliver(context.Background(), msg).Results[0]; r.Status != Delivered {
						b.Errorf("%s %s %v", r.Status, r.Response, r.Err)
						return
					}
				}
			})
		}
		callers.Wait()
		for rt.state.smtp.Totals().Ending > 0 || len(rt.state.smtp.Stats()) > 0 {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		if n := len(rt.Stats().Ready); n != names {
			b.Errorf("%d ready names are known", n)
		}
		b.ReportMetric(float64(heap()-before)/names, "bytes/name")
		rt.Close(context.Background())
		sink.Close()
		b.StartTimer()
	}
}

// BenchmarkWhereCallsGo is 200 messages at once through a warm protocol, to a peer that needs long for each and
// to one that is far away: how many connections they take (conns), and how long all of them (ms).
func BenchmarkWhereCallsGo(b *testing.B) {
	for _, peer := range []struct {
		name string
		link smtptest.Link
		took time.Duration
	}{
		{"slow", smtptest.Link{Latency: time.Millisecond / 2}, 50 * time.Millisecond},
		{"far", smtptest.Link{Latency: 50 * time.Millisecond}, 0},
		{"near", smtptest.Link{}, 0},
	} {
		b.Run(peer.name, func(b *testing.B) {
			sink := &smtptest.Sink{CountOnly: true, Delay: peer.took}
			defer sink.Close()
			rt := &Runtime{Egress: loopback(`"idle_timeout": "1h"`),
				Dial: func(context.Context, DialRequest) (net.Conn, error) { return peer.link.Dial(sink.ServeConn), nil }}
			defer rt.Close(context.Background())
			c, err := ParseQueueConfig([]byte(`{"protocol": {"smtp": {"mx_list": ["192.0.2.1"]}}}`))
			if err != nil {
				b.Fatal(err)
			}
			p, err := rt.Protocol(c)
			if err != nil {
				b.Fatal(err)
			}
			atOnce(p, 1)
			for b.Loop() {
				for _, r := range atOnce(p, 200) {
					if r.Status != Delivered {
						b.Fatalf("%s %s %v", r.Status, r.Response, r.Err)
					}
				}
			}
			_, most := sink.Sessions()
			b.ReportMetric(float64(most), "conns")
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms")
		})
	}
}
