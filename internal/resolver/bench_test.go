package resolver

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

func BenchmarkLookupCached(b *testing.B) {
	const domains = 1000
	c := client(newServer(b, "*.test. MX 10 mx1.test.\n*.test. MX 20 mx2.test."))
	defer c.Close()
	names := make([]string, domains)
	for i := range names {
		names[i] = fmt.Sprintf("domain-%d.test", i)
		c.Lookup(b.Context(), names[i], TypeMX)
	}
	b.Run("one caller", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if c.Lookup(b.Context(), names[i%domains], TypeMX).Result != Records {
				b.Fatal("not cached")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if c.Lookup(b.Context(), names[i%domains], TypeMX).Result != Records {
					b.Error("not cached")
				}
			}
		})
	})
}

func BenchmarkLookupAsked(b *testing.B) {
	c := client(newServer(b, "a.test. MX 10 mx1.test.\na.test. MX 20 mx2.test."))
	c.CacheSize = -1
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if c.Lookup(b.Context(), "a.test", TypeMX).Result != Records {
			b.Fatal("no answer")
		}
	}
}

// BenchmarkLookupAskedOver is a question that nobody asked before, over the loopback's sockets.
func BenchmarkLookupAskedOver(b *testing.B) {
	ca := smtptest.CA(b)
	s := dnstest.Start(b, "a.test. MX 10 mx1.test.\na.test. MX 20 mx2.test.")
	address, err := s.ListenTLS(ca.Server(b, "dns.test"))
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct{ name, server string }{
		{"UDP", s.Addr()}, {"TLS", "tls://" + address + "#dns.test"},
	} {
		c := &Client{Servers: []string{way.server}, RootCAs: ca.Pool, CacheSize: -1}
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := c.Lookup(b.Context(), "a.test", TypeMX); got.Result != Records {
					b.Fatal(got.Err)
				}
			}
		})
		c.Close()
	}
	b.Run("a TLS handshake each", func(b *testing.B) {
		for b.Loop() {
			c := &Client{Servers: []string{"tls://" + address + "#dns.test"}, RootCAs: ca.Pool}
			if got := c.Lookup(b.Context(), "a.test", TypeMX); got.Result != Records {
				b.Fatal(got.Err)
			}
			c.Close()
		}
	})
}

// BenchmarkCacheMemory says what an answer in the cache weighs: that of two MXs, one address, and that there is none.
func BenchmarkCacheMemory(b *testing.B) {
	const answers = 100_000
	s := newServer(b, "*.mx.test. MX 10 mx1.provider.test.\n*.mx.test. MX 20 mx2.provider.test.\n*.a.test. A 192.0.2.1")
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for _, kind := range []struct {
		name string
		typ  Type
	}{{"mx.test", TypeMX}, {"a.test", TypeA}, {"nx", TypeMX}} {
		b.Run(kind.name, func(b *testing.B) {
			for b.Loop() {
				c := &Client{CacheSize: answers}
				before := heap()
				for i := range answers {
					q := question{fmt.Sprintf("domain-%d.%s", i, kind.name), kind.typ}
					query := newQuery(q, true)
					m, _, err := parseResponse(dnstest.Pack(s.Answer("udp", query)), query)
					if err != nil {
						b.Fatal(err)
					}
					r, err := readReply(m, q, false)
					if err != nil {
						b.Fatal(err)
					}
					c.remember(q, c.finish(q, r.answer, r.answer.TTL, false), false, time.Now())
				}
				b.ReportMetric(float64(heap()-before)/answers, "B/answer")
				if n := c.Stats().Entries; n != answers {
					b.Fatalf("%d entries", n)
				}
			}
		})
	}
}

func BenchmarkReadResponse(b *testing.B) {
	q := question{"a.test", TypeMX}
	query := newQuery(q, true)
	packet := dnstest.Pack(newServer(b, "a.test. MX 10 mx1.test.\na.test. MX 20 mx2.test.").Answer("udp", query))
	b.ReportAllocs()
	for b.Loop() {
		m, _, err := parseResponse(packet, query)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := readReply(m, q, true); err != nil {
			b.Fatal(err)
		}
	}
}
