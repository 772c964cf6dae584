package resolver

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// FuzzResponse: only what is the response to the query is read, and what is read of it are the records
// at the end of the chain of CNAMEs from the name that was asked for, all of them and no others.
func FuzzResponse(f *testing.F) {
	const id = 0x1234
	types := []Type{TypeA, TypeAAAA, TypeMX, TypeTXT, TypeTLSA, TypeCNAME, TypePTR}
	for _, zone := range []string{
		"a.test. A 192.0.2.1\na.test. AAAA ::1\na.test. MX 10 mx.test.\na.test. TXT one two\na.test. TLSA 3 1 1 00ff",
		"a.test. CNAME b.test.\nb.test. 1 CNAME c.test.\nc.test. A 192.0.2.1\nc.test. MX 0 .",
		"a.test. CNAME a.test.", "test. SOA ns.test. h.test. 1 1 1 1 60\na.test. DNAME b.test.", "test. SOA ns.test. h.test. 1 1 1 1 60",
	} {
		for _, typ := range types {
			for _, option := range []dnstest.Option{dnstest.Secure(), dnstest.Truncate(), dnstest.Explain(6), dnstest.NoEDNS(), dnstest.WrongQuestion()} {
				m := newServer(f, zone, option).Answer("udp", newQuery(question{"a.test", typ}, true))
				m.Id = id
				f.Add(dnstest.Pack(m), uint8(slices.Index(types, typ)), true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, n uint8, trusted bool) {
		q := question{"a.test", types[int(n)%len(types)]}
		query := newQuery(q, true)
		query.Id = id
		m, ours, err := parseResponse(packet, query)
		if !ours {
			if m != nil || err != nil {
				t.Fatalf("not ours, but %v, %v", m, err)
			}
			return
		}
		if binary.BigEndian.Uint16(packet) != id || packet[2]>>3 != 0x10 {
			t.Fatalf("taken for a response: % x", packet[:4])
		}
		if err != nil {
			return
		}
		r, err := readReply(m, q, trusted)
		checkReply(t, m, q, r, err)
		if r.answer.Secure && !trusted {
			t.Fatal("secure by a server that is not trusted")
		}
	})
}

func checkReply(t *testing.T, m *dns.Msg, q question, r reply, err error) {
	a := r.answer
	records := len(a.MX) + len(a.Addrs) + len(a.TXT) + len(a.TLSA) + len(a.PTR)
	if a.CNAME != "" {
		records++
	}
	if err != nil {
		if a.Result != TempFail && !(a.Result == Bogus && saysBogus(m)) || records > 0 || a.Secure {
			t.Fatalf("%+v with %v", a, err)
		}
		return
	}
	if a.TTL < 0 || a.TTL > longestTTL || a.Secure && !m.AuthenticatedData {
		t.Fatalf("%+v", a)
	}
	if !slices.Contains(reachable(m, q), a.Name) || a.Name != strings.ToLower(a.Name) {
		t.Fatalf("no chain leads to %q", a.Name)
	}
	there := 0
	for _, rr := range m.Answer {
		h := rr.Header()
		if bare(h.Name) != a.Name || h.Rrtype != uint16(q.typ) || h.Class != dns.ClassINET {
			continue
		}
		there++
		if a.TTL > time.Duration(h.Ttl)*time.Second {
			t.Fatalf("TTL %v, of a record with %d s", a.TTL, h.Ttl)
		}
		if ip := ipOf(rr); ip.IsValid() && !slices.Contains(a.Addrs, ip) {
			t.Fatalf("%v is missing", ip)
		}
	}
	switch {
	case q.typ == TypeCNAME && there > 0:
		there = 1
	case r.follow && (a.Result != TempFail || r.hops == 0), !r.follow && a.Result == TempFail:
		t.Fatalf("no verdict: %+v", r)
	case a.Result == NXDomain && m.Rcode != dns.RcodeNameError, a.Result != NXDomain && m.Rcode != dns.RcodeSuccess:
		t.Fatalf("%v with rcode %d", a.Result, m.Rcode)
	}
	if absent := a.Result == NoData || a.Result == NXDomain; absent && a.TTL > unprovenTTL && !slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		soa, ok := rr.(*dns.SOA)
		return ok && dns.IsSubDomain(soa.Hdr.Name, absolute(a.Name)) && a.TTL <= time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second
	}) {
		t.Fatalf("an absence for %v without proof", a.TTL)
	}
	if there != records || (records > 0) != (a.Result == Records) {
		t.Fatalf("%d records, of %d: %+v", records, there, a)
	}
}

// saysBogus tells whether a response is a SERVFAIL with a reason that is about validation.
func saysBogus(m *dns.Msg) bool {
	if opt := m.IsEdns0(); opt != nil && m.Rcode == dns.RcodeServerFailure {
		for _, option := range opt.Option {
			if e, ok := option.(*dns.EDNS0_EDE); ok && (e.InfoCode >= 6 && e.InfoCode <= 12 || e.InfoCode == 25 || e.InfoCode == 27) {
				return true
			}
		}
	}
	return false
}

// reachable are the names to which CNAMEs lead from the question.
func reachable(m *dns.Msg, q question) []string {
	names := []string{q.name}
	for i := 0; i < len(names); i++ {
		for _, rr := range m.Answer {
			if c, ok := rr.(*dns.CNAME); ok && bare(c.Hdr.Name) == names[i] && !slices.Contains(names, bare(c.Target)) {
				names = append(names, bare(c.Target))
			}
		}
	}
	return names
}

func ipOf(rr dns.RR) netip.Addr {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr
}

// FuzzName: a name that is accepted is on the wire what it is in text.
func FuzzName(f *testing.F) {
	for _, name := range []string{"example.com", "EXAMPLE.com.", "_25._tcp.mx.test", "a..b", ".", `a\.b`, `a\065`, "a b", "ä", strings.Repeat("a.", 127)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		canonical, err := canonicalName(name)
		if err != nil {
			return
		}
		if canonical != strings.ToLower(strings.TrimSuffix(name, ".")) {
			t.Fatalf("%q became %q", name, canonical)
		}
		var m dns.Msg
		if err := m.Unpack(dnstest.Pack(newQuery(question{canonical, TypeMX}, false))); err != nil {
			t.Fatal(err)
		}
		if got := m.Question[0].Name; got != canonical+"." {
			t.Fatalf("%q went out as %q", canonical, got)
		}
	})
}

// FuzzText: a TXT record's bytes arrive as they were sent.
func FuzzText(f *testing.F) {
	f.Add([]byte("v=STSv1; id=1;"), []byte{})
	f.Add([]byte(`"\\\065\"`), []byte{0, 1, 127, 128, 255, '\\'})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > 255 || len(two) > 255 {
			return
		}
		q := question{"a.test", TypeTXT}
		query := newQuery(q, false)
		m := new(dns.Msg)
		m.SetReply(query)
		packet := dnstest.Pack(m)
		packet[7] = 1                                              // one answer:
		packet = append(packet, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 9) // the question's name, TXT, IN, TTL
		packet = binary.BigEndian.AppendUint16(packet, uint16(len(one)+len(two)+2))
		packet = append(append(packet, byte(len(one))), one...)
		packet = append(append(packet, byte(len(two))), two...)
		m, ours, err := parseResponse(packet, query)
		if !ours || err != nil {
			t.Fatal(ours, err)
		}
		r, err := readReply(m, q, false)
		if err != nil || len(r.answer.TXT) != 1 || r.answer.TXT[0] != string(one)+string(two) {
			t.Fatalf("%q, %q arrived as %+v, %v", one, two, r.answer, err)
		}
	})
}

// FuzzServer: what is taken for a server is one, is encrypted just if it says so, and is written as it is
// read.
func FuzzServer(f *testing.F) {
	for _, text := range []string{"192.0.2.1", "[::1]:53", "fe80::1%lo", "tls://192.0.2.1:853#dns.test", "tls://[::1]", "192.0.2.1#dns.test", "tls://::1#::2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseServer(text)
		if err != nil {
			if s != (server{}) {
				t.Fatalf("%q is %v and %v", text, s, err)
			}
			return
		}
		if at, err := netip.ParseAddrPort(s.address); err != nil || at.Port() == 0 {
			t.Fatalf("%q has the address %q: %v", text, s.address, err)
		}
		if s.encrypted() != strings.HasPrefix(text, "tls://") {
			t.Fatalf("%q: encrypted %v", text, s.encrypted())
		}
		if again, err := parseServer(s.String()); again != s || err != nil {
			t.Fatalf("%q: %q is read as %q, %v", text, s, again, err)
		}
	})
}

// FuzzConfig: whatever stands in the file, there are servers to ask and bounds to the asking.
func FuzzConfig(f *testing.F) {
	f.Add("nameserver 192.0.2.1\noptions trust-ad timeout:2 attempts:3 # x\n;\nnameserver fe80::1%eth0")
	f.Add("options timeout:99999999999999999999 attempts:-1\nnameserver 1\nnameserver")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseConfig(strings.NewReader(text))
		if err != nil {
			return
		}
		if len(s.servers) < 1 || len(s.servers) > maxFileServers || s.attempts < 1 || s.attempts > maxFileAttempts ||
			s.timeout < time.Second || s.timeout > maxFileTimeout*time.Second {
			t.Fatalf("%+v", s)
		}
		for _, one := range s.servers {
			if at, err := netip.ParseAddrPort(one.address); err != nil || at.Port() != clearPort || one.encrypted() {
				t.Fatalf("%+v", one)
			}
		}
		if s.trustAD && !strings.Contains(text, "trust-ad") {
			t.Fatal("trusted")
		}
	})
}
