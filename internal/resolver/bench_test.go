package resolver

import (
	"fmt"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
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
