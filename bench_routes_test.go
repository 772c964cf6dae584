package delivery

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// BenchmarkCachedRoute is the way of a message whose domain is known: with one host, and with two that are equal
// and change places.
func BenchmarkCachedRoute(b *testing.B) {
	for name, hosts := range map[string][]MXRecord{
		"one host":   {{10, "a.test"}},
		"two equals": {{10, "a.test"}, {10, "b.test"}},
	} {
		b.Run(name, func(b *testing.B) {
			z := zone{"x.test MX": lasting(mx(hosts...), 1e15)}
			for _, h := range hosts {
				z[h.Host+" A"] = lasting(addrs("192.0.2.1"), 1e15)
				z[h.Host+" AAAA"] = lasting(DNSAnswer{Result: DNSNoData}, 1e15)
			}
			z["_mta-sts.x.test TXT"] = lasting(DNSAnswer{Result: DNSNoData}, 1e15)
			rt := &Runtime{Resolver: z}
			defer rt.Close(context.Background())
			rt.ready()
			e, err := newSMTPEngine(rt, &SMTP{}, "")
			if err != nil {
				b.Fatal(err)
			}
			a, err := newAttempt(messageTo("a@x.test"))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if w, failed := e.sources.choose(context.Background(), a, false, e); failed != nil || len(w.plan) != len(hosts) {
					b.Fatal(failed)
				}
			}
		})
	}
}

// BenchmarkKnownRoutes is what a way costs that is kept (bytes/route).
func BenchmarkKnownRoutes(b *testing.B) {
	const routes = 100_000
	for b.Loop() {
		b.StopTimer()
		rt := &Runtime{Resolver: everywhere{}, MTASTS: MTASTS{Off: true}}
		rt.ready()
		e, err := newSMTPEngine(rt, &SMTP{}, "")
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		b.StartTimer()
		for i := range routes {
			a, err := newAttempt(messageTo(fmt.Sprintf("a@x%d.test", i)))
			if err != nil {
				b.Fatal(err)
			}
			if _, failed := e.sources.choose(context.Background(), a, true, e); failed != nil {
				b.Fatal(failed)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/routes, "bytes/route")
		if n := e.ways.Len(); n != routes {
			b.Errorf("%d routes are kept", n)
		}
		rt.Close(context.Background())
		b.StartTimer()
	}
}

// TestManyFirstMessages: ten thousand messages to a hundred domains that nobody knows yet ask the network about a
// hundred times for each type of record.
func TestManyFirstMessages(t *testing.T) {
	var records strings.Builder
	for i := range 100 {
		fmt.Fprintf(&records, "x%d.test. MX 10 mx.x%d.test.\nmx.x%d.test. A 192.0.2.1\n", i, i, i)
	}
	server := dnstest.Start(t, records.String())
	rt := newRuntime(t)
	dns := &DNS{Servers: []string{server.Addr()}, Timeout: time.Minute}
	defer dns.Close()
	rt.Resolver = dns
	p := protocolOf(t, rt, `{}`)
	var callers sync.WaitGroup
	for i := range 10_000 {
		callers.Go(func() {
			plan, err := p.Plan(t.Context(), messageTo(fmt.Sprintf("a@x%d.test", i%100)))
			if err != nil || len(plan.Hosts) != 1 {
				t.Errorf("%+v, %v", plan, err)
			}
		})
	}
	callers.Wait()
	for i := range 100 {
		for question, typ := range map[string]string{"x%d.test.": "MX", "mx.x%d.test.": "A", "_mta-sts.x%d.test.": "TXT"} {
			if n := server.Queries(fmt.Sprintf(question, i), typ); n < 1 || n > 2 { // UDP may lose one
				t.Errorf(question+" %s: %d queries", i, typ, n)
			}
		}
	}
	if n := server.Total(); n > 450 { // MX, A, AAAA and TXT
		t.Errorf("%d queries", n)
	}
}
