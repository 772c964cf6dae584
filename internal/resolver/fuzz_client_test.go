package resolver

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// canned is a connection to a server that has said all it will say, but for the id of the query.
type canned struct {
	net.Conn // of which nothing else is used
	network  string
	packets  [][]byte
	unread   []byte
	queries  *int
}

func (c *canned) Write(p []byte) (int, error) {
	*c.queries++
	query := p
	if c.network == "tcp" {
		query = p[2:]
	}
	for _, packet := range c.packets {
		packet = append([]byte(nil), packet...)
		if len(packet) >= 2 {
			copy(packet, query[:2])
		}
		if c.network == "tcp" {
			c.unread = binary.BigEndian.AppendUint16(c.unread, uint16(len(packet)))
			c.unread = append(c.unread, packet...)
		}
	}
	return len(p), nil
}

func (c *canned) Read(p []byte) (int, error) {
	if c.network == "tcp" && len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	return 0, io.EOF
}

func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }

// cannedUDP returns one packet for each Read.
type cannedUDP struct{ canned }

func (c *cannedUDP) Write(p []byte) (int, error) {
	*c.queries++
	for i, packet := range c.packets {
		if c.packets[i] = append([]byte(nil), packet...); len(packet) >= 2 {
			copy(c.packets[i], p[:2])
		}
	}
	return len(p), nil
}

func (c *cannedUDP) Read(p []byte) (int, error) {
	if len(c.packets) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.packets[0])
	c.packets = c.packets[1:]
	return n, nil
}

// FuzzLookup: whatever the servers say, over UDP and then TCP, an answer agrees with itself, comes after a
// bounded number of queries, and is the same from the cache.
func FuzzLookup(f *testing.F) {
	types := []Type{TypeA, TypeAAAA, TypeMX, TypeTXT, TypeTLSA, TypeCNAME, TypePTR}
	for i, zone := range []string{
		"a.test. A 192.0.2.1\na.test. AAAA ::1\na.test. MX 10 mx.test.\na.test. TXT x\na.test. TLSA 3 1 1 00",
		"a.test. CNAME b.test.\nb.test. A 192.0.2.1", "a.test. CNAME a.test.", "test. SOA ns.test. h.test. 1 1 1 1 60",
	} {
		for n, typ := range types {
			query := newQuery(question{"a.test", typ}, true)
			first := dnstest.Pack(newServer(f, zone, dnstest.Secure(), dnstest.Links(i%2)).Answer("udp", query))
			f.Add(first, dnstest.Pack(newServer(f, zone, dnstest.Truncate()).Answer("udp", query)), uint8(n), i%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte, n uint8, trusted bool) {
		q := question{"a.test", types[int(n)%len(types)]}
		queries := 0
		c := Client{Servers: []string{"192.0.2.1", "192.0.2.2"}, TrustAD: trusted}
		c.Dial = func(_ context.Context, network, address string) (net.Conn, error) {
			conn := canned{network: network, packets: [][]byte{first, second}, queries: &queries}
			if network == "udp" {
				return &cannedUDP{conn}, nil
			}
			return &conn, nil
		}
		got := c.Lookup(t.Context(), q.name, q.typ)
		checkAnswer(t, &c, q, got)
		// Each of two servers twice, with and without EDNS, over UDP and TCP, and for each link of a chain.
		if queries == 0 || queries > 16*(maxCNAMEs+1) {
			t.Fatalf("%d queries", queries)
		}
		asked := queries
		again := c.Lookup(t.Context(), q.name, q.typ)
		if queries != asked || again.Result != got.Result || again.Secure != got.Secure || again.Name != got.Name || again.Err != got.Err || again.TTL > got.TTL {
			t.Fatalf("%+v, and from the cache %+v", got, again)
		}
		c.Close()
		if s := c.Stats(); s.UnderWay != 0 || s.Entries != 0 {
			t.Fatalf("after Close: %+v", s)
		}
	})
}

// checkAnswer: the fields of an answer agree with each other.
func checkAnswer(t *testing.T, c *Client, q question, a Answer) {
	t.Helper()
	has := map[Type]bool{TypeMX: a.MX != nil, TypeTXT: a.TXT != nil, TypeTLSA: a.TLSA != nil, TypeCNAME: a.CNAME != "", TypePTR: a.PTR != nil,
		TypeA: q.typ == TypeA && a.Addrs != nil, TypeAAAA: q.typ == TypeAAAA && a.Addrs != nil}
	for typ, there := range has {
		if there != (a.Result == Records && typ == q.typ) {
			t.Fatalf("%v of %v: %+v", there, typ, a)
		}
	}
	for _, ip := range a.Addrs {
		if ip.Is4() != (q.typ == TypeA) {
			t.Fatalf("%v asked for, %v found", q.typ, ip)
		}
	}
	failed := a.Result == TempFail || a.Result == Bogus
	switch {
	case failed != (a.Err != nil), failed && (a.Secure || a.TTL > maxFailureTTL):
		t.Fatalf("a failure: %+v", a)
	case a.Secure && (!c.TrustAD || a.Stale):
		t.Fatalf("secure: %+v", a)
	case a.Stale && (a.Result != Records || q.typ == TypeTLSA || a.TTL > staleTTL):
		t.Fatalf("stale: %+v", a)
	case a.TTL < 0, a.TTL > maxTTL, a.TTL > maxNegativeTTL && a.Result != Records:
		t.Fatalf("TTL: %+v", a)
	}
}

// FuzzTimeline: in whatever order time passes, the servers fail or answer and somebody asks, an answer is
// as old as its TTL allows, or stale while the servers fail, and a failure is given only when they failed a
// moment ago and there is nothing that could stand in.
func FuzzTimeline(f *testing.F) {
	f.Add([]byte("0L1L2L3L4L5LxL0L1L2L3L4LxL"), uint8(0))
	f.Add([]byte("L5L4xLLL2L4Lx3LLL5L6L7L"), uint8(1))
	f.Add([]byte("xL0L1L2L3xL7LxL7L7L"), uint8(2))
	f.Fuzz(func(t *testing.T, steps []byte, kind uint8) {
		if len(steps) > 200 {
			return
		}
		const ttl = 60 * time.Second
		waits := []time.Duration{time.Millisecond, time.Second, 5 * time.Second, 29 * time.Second, ttl, time.Hour, 23 * time.Hour, 25 * time.Hour}
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			typ, secure := []Type{TypeA, TypeA, TypeTLSA}[kind%3], kind%3 == 1
			mayBeStale := kind%3 == 0
			failing, lastFailure, lastAnswer := false, start.Add(-time.Hour), start.Add(-1000*time.Hour)
			s := newServer(t, "", dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
				answer.Rcode, answer.AuthenticatedData = dns.RcodeSuccess, secure
				header := dns.RR_Header{Name: query.Question[0].Name, Rrtype: uint16(typ), Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
				switch {
				case failing:
					answer.Rcode, lastFailure = dns.RcodeServerFailure, time.Now()
				case typ == TypeA:
					answer.Answer, lastAnswer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(192, 0, 2, 1)}}, time.Now()
				default:
					answer.Answer, lastAnswer = []dns.RR{&dns.TLSA{Hdr: header, Certificate: "00"}}, time.Now()
				}
				return [][]byte{dnstest.Pack(answer)}
			}))
			c := client(s)
			c.TrustAD = secure
			defer c.Close()
			for _, step := range steps {
				switch {
				case step >= '0' && step <= '7':
					time.Sleep(waits[step-'0'])
					continue
				case step == 'x':
					failing = !failing
					continue
				}
				got := c.Lookup(t.Context(), "a.test", typ)
				checkAnswer(t, c, question{"a.test", typ}, got)
				now := time.Now()
				age, failed := now.Sub(lastAnswer), now.Sub(lastFailure)
				switch {
				case got.Stale:
					if !mayBeStale || failed >= staleTTL || age < ttl || age >= ttl+defaultMaxStale || age+got.TTL > ttl+defaultMaxStale {
						t.Fatalf("%v old and stale, %v after a failure: %+v", age, failed, got)
					}
				case got.Result == Records:
					if age+got.TTL != ttl || got.Secure != secure {
						t.Fatalf("%v old: %+v", age, got)
					}
				case got.Result == TempFail:
					if failed+got.TTL != defaultFailureTTL || age < ttl || mayBeStale && now.Add(-failed).Sub(lastAnswer) < ttl+defaultMaxStale {
						t.Fatalf("%v old, %v after a failure: %+v", age, failed, got)
					}
				default:
					t.Fatalf("%+v", got)
				}
			}
		})
	})
}
