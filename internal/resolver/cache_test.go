package resolver

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func TestCacheTime(t *testing.T) {
	const zone = testZone + "brief.example.com. 30 CNAME mx1.example.com.\nhour.test. 7200 SOA ns.test. h.test. 1 1 1 1 7200\na.hour.test. A 192.0.2.1"
	for _, test := range []struct {
		name string
		typ  Type
		keep time.Duration
	}{
		{"example.com", TypeMX, 300 * time.Second},
		{"brief.example.com", TypeA, 30 * time.Second},
		{"short.example.com", TypeA, time.Second},
		{"long.example.com", TypeA, 24 * time.Hour},
		{"mx1.example.com", TypeMX, 120 * time.Second},
		{"nx.example.com", TypeMX, 120 * time.Second},
		{"brief.example.com", TypeMX, 30 * time.Second},
		{"nx.test", TypeMX, 60 * time.Second},
		{"nx.hour.test", TypeMX, time.Hour},
		{"servfail.test", TypeMX, 5 * time.Second},
		{"bogus.test", TypeMX, 5 * time.Second},
	} {
		t.Run(fmt.Sprint(test.name, " ", test.typ), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, zone, dnstest.ServFail("servfail.test"), dnstest.Explain(6, "bogus.test"))
				c := client(s)
				first := c.Lookup(t.Context(), test.name, test.typ)
				asked := s.Total()
				if first.TTL != test.keep {
					t.Errorf("TTL %v", first.TTL)
				}
				time.Sleep(test.keep - time.Millisecond)
				again := c.Lookup(t.Context(), test.name, test.typ)
				if s.Total() != asked || again.TTL != time.Millisecond || again.Result != first.Result || again.Name != first.Name {
					t.Errorf("just before its end: %+v after %d queries", again, s.Total())
				}
				time.Sleep(time.Millisecond)
				if again = c.Lookup(t.Context(), test.name, test.typ); s.Total() != 2*asked || again.TTL != test.keep {
					t.Errorf("at its end: %+v after %d queries", again, s.Total())
				}
			})
		})
	}
}

func TestCacheSize(t *testing.T) {
	s := newServer(t, "*.test. A 192.0.2.1")
	c := client(s)
	c.CacheSize = 3
	ask := func(name string, want int) {
		t.Helper()
		c.Lookup(t.Context(), name+".test", TypeA)
		if n := s.Queries(name+".test", "A"); n != want {
			t.Errorf("%s: %d queries, want %d", name, n, want)
		}
	}
	ask("a", 1)
	ask("b", 1)
	ask("c", 1)
	ask("a", 1)
	ask("d", 1) // for b, which was used least recently
	ask("a", 1)
	ask("c", 1)
	ask("d", 1)
	ask("b", 2)
	if n := c.cache.used.Len(); n != 3 || len(c.cache.entries) != n {
		t.Errorf("%d entries, %d in the index", n, len(c.cache.entries))
	}

	none := client(s)
	none.CacheSize = -1
	none.Lookup(t.Context(), "e.test", TypeA)
	none.Lookup(t.Context(), "e.test", TypeA)
	if n := s.Queries("e.test", "A"); n != 2 {
		t.Errorf("%d queries without a cache", n)
	}
}

func TestCacheTellsTypesApart(t *testing.T) {
	s := newServer(t, testZone)
	c := client(s)
	for range 2 {
		if got := c.Lookup(t.Context(), "Mx1.example.com.", TypeA); len(got.Addrs) != 2 {
			t.Errorf("%+v", got)
		}
		if got := c.Lookup(t.Context(), "mx1.example.com", TypeAAAA); len(got.Addrs) != 1 {
			t.Errorf("%+v", got)
		}
	}
	if s.Total() != 2 {
		t.Errorf("%d queries", s.Total())
	}
}

// An answer of many bytes takes the room of several, whatever the servers send.
func TestCacheWeight(t *testing.T) {
	text := strings.Repeat(strings.Repeat("x", 255)+" ", 6)
	s := newServer(t, "*.small.test. TXT a\n*.large.test. TXT "+text+"\nhuge.test. TXT "+text+text)
	c := client(s)
	c.CacheSize = 5
	for _, test := range []struct {
		name    string
		weight  int
		entries int
	}{
		{"a.small.test", 1, 1},
		{"b.small.test", 2, 2},
		{"c.small.test", 3, 3},
		{"huge.test", 3, 3},    // more than there is room for at all
		{"a.large.test", 5, 2}, // 1554 bytes in 4 places, beside the last one
		{"b.large.test", 4, 1},
		{"d.small.test", 5, 2},
		{"b.large.test", 5, 2},
	} {
		c.Lookup(t.Context(), test.name, TypeTXT)
		total := 0
		for e := c.cache.used.Front(); e != nil; e = e.Next() {
			total += e.Value.(*cacheEntry).weight
		}
		if c.cache.weight != test.weight || total != test.weight || c.cache.used.Len() != test.entries || len(c.cache.entries) != test.entries {
			t.Errorf("%s: weight %d, really %d, of %d entries", test.name, c.cache.weight, total, c.cache.used.Len())
		}
	}
	if n := s.Queries("b.large.test", "TXT"); n != 2 { // over UDP and TCP
		t.Errorf("%d queries", n)
	}
	if c.forget(); c.cache.weight != 0 {
		t.Errorf("the empty cache weighs %d", c.cache.weight)
	}
}
