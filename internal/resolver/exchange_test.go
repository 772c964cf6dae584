package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// forgeries are messages that are not the response to query, each with an address that nobody may use.
func forgeries(query *dns.Msg) (packets [][]byte) {
	for _, change := range []func(m *dns.Msg){
		func(m *dns.Msg) { m.Id++ },
		func(m *dns.Msg) { m.Response = false },
		func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus },
		func(m *dns.Msg) { m.Question[0].Name = "other." + m.Question[0].Name },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		func(m *dns.Msg) { m.Question = nil },
		func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeNameError },
		func(m *dns.Msg) { m.Id++; m.Rcode = dns.RcodeServerFailure },
		func(m *dns.Msg) { m.Id++; m.Question, m.Rcode = nil, dns.RcodeServerFailure },
	} {
		m := new(dns.Msg)
		m.SetReply(query)
		m.Answer = []dns.RR{&dns.A{A: net.IPv4(203, 0, 113, 66), Hdr: dns.RR_Header{
			Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}}}
		change(m)
		packets = append(packets, dnstest.Pack(m))
	}
	return append(packets, nil, []byte{0}, []byte("short"), make([]byte, 600))
}

func TestForgeriesArePassedOver(t *testing.T) {
	forge := dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
		return append(forgeries(query), dnstest.Pack(answer))
	})
	for _, options := range [][]dnstest.Option{{forge}, {forge, dnstest.Truncate()}} {
		s := newServer(t, testZone, options...)
		got := client(s).Lookup(t.Context(), "mx1.example.com", TypeA)
		if got.Result != Records || !slices.Equal(got.Addrs, addrs("192.0.2.1", "192.0.2.2")) {
			t.Errorf("%+v", got)
		}
	}
}

func TestForgeriesAloneAreSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone, dnstest.Intercept(func(_ string, query, _ *dns.Msg) [][]byte { return forgeries(query) }))
		begin := time.Now()
		got := client(s).Lookup(t.Context(), "mx1.example.com", TypeA)
		if got.Result != TempFail || !errors.Is(got.Err, os.ErrDeadlineExceeded) {
			t.Errorf("%+v", got)
		}
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("it took %v, want two tries of 5 s", d)
		}
	})
}

func TestWrongQuestionOverSockets(t *testing.T) {
	s := dnstest.Start(t, testZone, dnstest.WrongQuestion())
	c := Client{Servers: []string{s.Addr()}, Timeout: 50 * time.Millisecond, Attempts: 1}
	defer c.Close()
	if got := c.Lookup(t.Context(), "mx1.example.com", TypeA); got.Result != TempFail {
		t.Errorf("%+v", got)
	}
}

func TestCaseOfTheQuestion(t *testing.T) {
	s := newServer(t, testZone, dnstest.Intercept(func(_ string, _, answer *dns.Msg) [][]byte {
		answer.Question[0].Name = "MX1.eXample.COM."
		answer.Answer[0].(*dns.A).Hdr = dns.RR_Header{Name: "Mx1.Example.coM.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}
		return [][]byte{dnstest.Pack(answer)}
	}))
	got := client(s).Lookup(t.Context(), "mx1.example.com", TypeA)
	if got.Result != Records || len(got.Addrs) != 2 || got.Name != "mx1.example.com" {
		t.Errorf("%+v", got)
	}
}

func TestTCP(t *testing.T) {
	big := "big.test. 300 TXT"
	for range 12 {
		big += ` "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"`
	}
	for _, test := range []struct {
		name    string
		options []dnstest.Option
		typ     Type
		tcp     int
	}{
		{"example.com", nil, TypeMX, 0},
		{"example.com", []dnstest.Option{dnstest.Truncate()}, TypeMX, 1},
		{"big.test", nil, TypeTXT, 1},
	} {
		for _, sockets := range []bool{true, false} {
			var s *dnstest.Server
			var c *Client
			if sockets {
				s = dnstest.Start(t, testZone+big, test.options...)
				c = &Client{Servers: []string{s.Addr()}}
			} else {
				s = newServer(t, testZone+big, test.options...)
				c = client(s)
			}
			got := c.Lookup(t.Context(), test.name, test.typ)
			if got.Result != Records || test.name == "big.test" && len(got.TXT[0]) != 12*130 {
				t.Errorf("%s: %+v", test.name, got)
			}
			if n := s.QueriesOver("tcp", test.name, test.typ.String()); n != test.tcp {
				t.Errorf("%s: %d queries over TCP", test.name, n)
			}
			if n := s.QueriesOver("udp", test.name, test.typ.String()); n != 1 {
				t.Errorf("%s: %d queries over UDP", test.name, n)
			}
			c.Close()
		}
	}
}

// What is to our question but says nothing that can be relied on ends the try at that server.
func TestNoAnswer(t *testing.T) {
	a := func(name string, ttl uint32) *dns.A {
		return &dns.A{A: net.IPv4(192, 0, 2, 1), Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}}
	}
	set := func(change func(m *dns.Msg)) func(m *dns.Msg) []byte {
		return func(m *dns.Msg) []byte {
			m.Answer, m.Ns = nil, nil
			change(m)
			return dnstest.Pack(m)
		}
	}
	for name, bad := range map[string]func(m *dns.Msg) []byte{
		"records of another name": set(func(m *dns.Msg) { m.Answer = []dns.RR{a("other.test.", 300)} }),
		"records of another type": set(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"}}}
		}),
		"records of another class":  set(func(m *dns.Msg) { r := a("a.test.", 300); r.Hdr.Class = dns.ClassCHAOS; m.Answer = []dns.RR{r} }),
		"NXDOMAIN with the records": set(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError; m.Answer = []dns.RR{a("a.test.", 300)} }),
		"one of two without content": set(func(m *dns.Msg) {
			m.Answer = []dns.RR{a("a.test.", 300), &dns.ANY{Hdr: a("a.test.", 300).Hdr}}
		}),
		"a CNAME without content": set(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET}}}
		}),
		"a referral": set(func(m *dns.Msg) {
			m.Authoritative = false
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 300}, Ns: "ns.test."}}
		}),
		"the SOA of another zone": set(func(m *dns.Msg) {
			m.Authoritative, m.RecursionAvailable = false, false
			m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "b.test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300}, Ns: "ns.test.", Mbox: "h.test."}}
		}),
		"no recursion": set(func(m *dns.Msg) { m.Authoritative, m.RecursionAvailable = false, false }),
		"fewer records than promised": func(m *dns.Msg) []byte {
			m.Answer, m.Ns, m.Extra = nil, nil, nil
			packet := dnstest.Pack(m)
			packet[7] = 1 // ANCOUNT
			return packet
		},
		"less authority than promised": func(m *dns.Msg) []byte {
			m.Answer, m.Ns, m.Extra = nil, nil, nil
			packet := dnstest.Pack(m)
			packet[9] = 1
			return packet
		},
		"cut in a record": func(m *dns.Msg) []byte {
			m.Extra = nil
			packet := dnstest.Pack(m)
			return packet[:len(packet)-1]
		},
		"truncated, also over TCP": set(func(m *dns.Msg) { m.Truncated = true }),
	} {
		t.Run(name, func(t *testing.T) {
			first := newServer(t, "a.test. A 192.0.2.1", dnstest.Intercept(func(_ string, _, answer *dns.Msg) [][]byte {
				return [][]byte{bad(answer)}
			}))
			second := newServer(t, "a.test. A 192.0.2.2")
			if got := client(first).Lookup(t.Context(), "a.test", TypeA); got.Result != TempFail || got.Err == nil {
				t.Errorf("alone: %+v", got)
			}
			got := client(first, second).Lookup(t.Context(), "a.test", TypeA)
			if got.Result != Records || !slices.Equal(got.Addrs, addrs("192.0.2.2")) {
				t.Errorf("with a second server: %+v", got)
			}
		})
	}
}

// Taken for no record at all, an MX record without content would send mail to the domain's own address,
// and a TLSA record without content would make it go without authentication.
func TestRecordsWithoutContent(t *testing.T) {
	for _, typ := range []Type{TypeA, TypeAAAA, TypeMX, TypeTXT, TypeTLSA, TypeCNAME, TypePTR} {
		s := newServer(t, "a.test. TXT x", dnstest.Intercept(func(_ string, _, m *dns.Msg) [][]byte {
			m.Answer = []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: uint16(typ), Class: dns.ClassINET}}}
			return [][]byte{dnstest.Pack(m)}
		}))
		if got := client(s).Lookup(t.Context(), "a.test", typ); got.Result != TempFail || !errors.Is(got.Err, errMalformed) {
			t.Errorf("%v: %+v", typ, got)
		}
	}
}

// A response with other records beside ours is ours; they are not.
func TestOtherOwnersAreIgnored(t *testing.T) {
	s := newServer(t, "a.test. CNAME b.test.\nb.test. A 192.0.2.1\nc.test. A 192.0.2.3\nd.test. A 192.0.2.4",
		dnstest.Intercept(func(_ string, _, m *dns.Msg) [][]byte {
			foreign := func(name, ip string) dns.RR {
				return &dns.A{A: net.ParseIP(ip), Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}}
			}
			// Out of order, too.
			m.Answer = []dns.RR{foreign("c.test.", "192.0.2.3"), m.Answer[1], foreign("d.test.", "192.0.2.4"), m.Answer[0]}
			return [][]byte{dnstest.Pack(m)}
		}))
	got := client(s).Lookup(t.Context(), "a.test", TypeA)
	if got.Result != Records || !slices.Equal(got.Addrs, addrs("192.0.2.1")) || got.Name != "b.test" || got.TTL != 300*time.Second {
		t.Errorf("%+v", got)
	}
}

func TestNextServer(t *testing.T) {
	good := func() *dnstest.Server { return newServer(t, testZone) }
	for name, first := range map[string]dnstest.Option{
		"SERVFAIL": dnstest.ServFail(), "REFUSED": dnstest.Fail(dns.RcodeRefused),
		"NOTIMP": dnstest.Fail(dns.RcodeNotImplemented), "FORMERR": dnstest.Fail(dns.RcodeFormatError),
		"silence": dnstest.Silent(), "wrong question": dnstest.WrongQuestion(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad, second := newServer(t, testZone, first), good()
				got := client(bad, second).Lookup(t.Context(), "example.com", TypeMX)
				if got.Result != Records || bad.Total() == 0 || second.Total() != 1 {
					t.Errorf("%+v after %d and %d queries", got, bad.Total(), second.Total())
				}
			})
		})
	}
	t.Run("cannot be dialled", func(t *testing.T) {
		s := good()
		c := client(s, s)
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "192.0.2.1:53" {
				return nil, errors.New("no route")
			}
			return dial(ctx, network, address)
		}
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != Records {
			t.Errorf("%+v", got)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		gone := dnstest.Start(t, "")
		gone.Close()
		s := dnstest.Start(t, testZone)
		c := Client{Servers: []string{gone.Addr(), s.Addr()}}
		defer c.Close()
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != Records {
			t.Errorf("%+v", got)
		}
	})
	t.Run("final verdicts end it", func(t *testing.T) {
		for name, want := range map[string]Result{"nx.example.com": NXDomain, "bogus.test": Bogus, "mx1.example.com": NoData, "loop.example.com": TempFail} {
			first, second := newServer(t, testZone, dnstest.Explain(6, "bogus.test")), good()
			if got := client(first, second).Lookup(t.Context(), name, TypeMX); got.Result != want || second.Total() != 0 {
				t.Errorf("%s: %+v after %d queries of the second", name, got, second.Total())
			}
		}
	})
}

func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newServer(t, "", dnstest.Silent()), newServer(t, "", dnstest.ServFail())
		c := client(a, b)
		c.Timeout, c.Attempts = 2*time.Second, 3
		begin := time.Now()
		got := c.Lookup(t.Context(), "example.com", TypeMX)
		if got.Result != TempFail || a.Total() != 3 || b.Total() != 3 {
			t.Errorf("%+v after %d and %d queries", got, a.Total(), b.Total())
		}
		if d := time.Since(begin); d != 6*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// A try has one deadline, over UDP and then TCP.
func TestOneDeadlineForATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone, dnstest.Truncate(), dnstest.Delay(3*time.Second))
		c := client(s)
		c.Attempts = 1
		begin := time.Now()
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != TempFail {
			t.Errorf("%+v", got)
		}
		if d := time.Since(begin); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestServerWithoutEDNS(t *testing.T) {
	s := newServer(t, testZone, dnstest.NoEDNS())
	got := client(s).Lookup(t.Context(), "example.com", TypeMX)
	if got.Result != Records || s.Total() != 2 {
		t.Errorf("%+v after %d queries", got, s.Total())
	}
}

func TestTheQuery(t *testing.T) {
	ids := make(map[uint16]bool)
	s := newServer(t, "", dnstest.Intercept(func(network string, query, _ *dns.Msg) [][]byte {
		opt := query.IsEdns0()
		if !query.RecursionDesired || !query.AuthenticatedData || query.CheckingDisabled || query.Response {
			t.Errorf("header %v", query.MsgHdr)
		}
		if opt == nil || opt.UDPSize() != 1232 || opt.Do() {
			t.Errorf("EDNS %v", opt)
		}
		ids[query.Id] = true
		m := new(dns.Msg)
		m.SetRcode(query, dns.RcodeNameError)
		return [][]byte{dnstest.Pack(m)}
	}))
	c := client(s)
	c.CacheSize, c.TrustAD = -1, false
	for range 20 {
		c.Lookup(t.Context(), "a.test", TypeA)
	}
	if len(ids) < 15 {
		t.Errorf("20 queries had %d ids", len(ids))
	}
}

// Each query has a source port of its own, which the system draws.
func TestSourcePorts(t *testing.T) {
	s := dnstest.Start(t, testZone)
	ports, dials := make(map[string]bool), 0
	c := Client{Servers: []string{s.Addr()}, CacheSize: -1}
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			dials++
			ports[conn.LocalAddr().String()] = true
		}
		return conn, err
	}
	defer c.Close()
	for range 20 {
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != Records {
			t.Fatal(got.Err)
		}
	}
	if dials != 20 || len(ports) < 10 {
		t.Errorf("20 queries over %d connections from %d ports", dials, len(ports))
	}
}

func TestNumberOfRecords(t *testing.T) {
	for n, want := range map[int]Result{maxRecords: Records, maxRecords + 1: TempFail} {
		var zone strings.Builder
		for i := range n {
			fmt.Fprintf(&zone, "a.test. A 192.0.%d.%d\n", i/250, i%250)
		}
		got := client(newServer(t, zone.String())).Lookup(t.Context(), "a.test", TypeA)
		if got.Result != want || want == Records && len(got.Addrs) != n {
			t.Errorf("%d records: %v, %d, %v", n, got.Result, len(got.Addrs), got.Err)
		}
	}
}
