package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

const testZone = `
example.com.          3600 SOA ns.example.com. hostmaster.example.com. 1 3600 600 86400 120
example.com.          300  MX 10 MX1.Example.com.
example.com.          300  MX 20 mx2.example.com.
mx1.example.com.      300  A 192.0.2.1
mx1.example.com.      300  A 192.0.2.2
mx1.example.com.      300  AAAA 2001:db8::1
mapped.example.com.   300  AAAA ::ffff:192.0.2.9
null.example.com.     300  MX 0 .
text.example.com.     300  TXT "v=STSv1; " "id=1;"
text.example.com.     300  TXT "a\"b\\c\001\200"
_25._tcp.mx1.example.com. 300 TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
www.example.com.      60   CNAME a.example.com.
a.example.com.        50   CNAME mx1.example.com.
dangling.example.com. 300  CNAME gone.example.com.
nomx.example.com.     300  CNAME mx1.example.com.
loop.example.com.     300  CNAME pool.example.com.
pool.example.com.     300  CNAME loop.example.com.
self.example.com.     300  CNAME self.example.com.
short.example.com.    0    A 192.0.2.1
long.example.com.     4000000 A 192.0.2.1
never.example.com.    4000000000 A 192.0.2.1
nosoa.test.           300  A 192.0.2.1
1.2.0.192.in-addr.arpa. 300 PTR Mail.Example.com.
1.2.0.192.in-addr.arpa. 300 PTR other.example.com.
7.2.0.192.in-addr.arpa. 90 CNAME 7.0/25.2.0.192.in-addr.arpa.
7.0/25.2.0.192.in-addr.arpa. 60 PTR seven.example.com.
`

// client asks the servers, in this order, within the process.
func client(servers ...*dnstest.Server) *Client {
	c := &Client{TrustAD: true}
	at := make(map[string]*dnstest.Server)
	for i, s := range servers {
		ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		c.Servers = append(c.Servers, ip.String())
		at[ip.String()+":53"] = s
	}
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return at[address].Dial(ctx, network, address)
	}
	return c
}

func newServer(t testing.TB, zone string, options ...dnstest.Option) *dnstest.Server {
	t.Helper()
	s, err := dnstest.New(zone, options...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func addrs(text ...string) (all []netip.Addr) {
	for _, s := range text {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func TestLookup(t *testing.T) {
	s := dnstest.Start(t, testZone,
		dnstest.ServFail("servfail.example.com"), dnstest.Fail(dns.RcodeRefused, "refused.example.com"),
		dnstest.Fail(dns.RcodeNotImplemented, "notimp.example.com"), dnstest.Fail(dns.RcodeNotAuth, "notauth.example.com"),
		dnstest.Explain(6, "bogus.example.com"), dnstest.Explain(12, "nonsec.example.com"),
		dnstest.Explain(5, "indeterminate.example.com"), dnstest.Explain(22, "unreachable.example.com"))
	digest := []byte("\x01\x23\x45\x67\x89\xab\xcd\xef")
	digest = append(append(append(digest, digest...), digest...), digest...)
	for _, test := range []struct {
		name string
		typ  Type
		want Answer
	}{
		{"example.com", TypeMX, Answer{Result: Records, TTL: 300 * time.Second, Name: "example.com",
			MX: []MX{{10, "mx1.example.com"}, {20, "mx2.example.com"}}}},
		{"EXAMPLE.com.", TypeMX, Answer{Result: Records, TTL: 300 * time.Second, Name: "example.com",
			MX: []MX{{10, "mx1.example.com"}, {20, "mx2.example.com"}}}},
		{"null.example.com", TypeMX, Answer{Result: Records, TTL: 300 * time.Second, Name: "null.example.com",
			MX: []MX{{0, "."}}}},
		{"mx1.example.com", TypeA, Answer{Result: Records, TTL: 300 * time.Second, Name: "mx1.example.com",
			Addrs: addrs("192.0.2.1", "192.0.2.2")}},
		{"mx1.example.com", TypeAAAA, Answer{Result: Records, TTL: 300 * time.Second, Name: "mx1.example.com",
			Addrs: addrs("2001:db8::1")}},
		{"mapped.example.com", TypeAAAA, Answer{Result: Records, TTL: 300 * time.Second, Name: "mapped.example.com",
			Addrs: addrs("::ffff:192.0.2.9")}},
		{"text.example.com", TypeTXT, Answer{Result: Records, TTL: 300 * time.Second, Name: "text.example.com",
			TXT: []string{"v=STSv1; id=1;", "a\"b\\c\x01\xc8"}}},
		{"_25._tcp.mx1.example.com", TypeTLSA, Answer{Result: Records, TTL: 300 * time.Second, Name: "_25._tcp.mx1.example.com",
			TLSA: []TLSA{{3, 1, 1, digest}}}},
		{"1.2.0.192.in-addr.arpa", TypePTR, Answer{Result: Records, TTL: 300 * time.Second, Name: "1.2.0.192.in-addr.arpa",
			PTR: []string{"mail.example.com", "other.example.com"}}},
		{"7.2.0.192.in-addr.arpa", TypePTR, Answer{Result: Records, TTL: 60 * time.Second, Name: "7.0/25.2.0.192.in-addr.arpa",
			PTR: []string{"seven.example.com"}}}, // RFC 2317 section 4
		{"9.2.0.192.in-addr.arpa", TypePTR, Answer{Result: NXDomain, TTL: 60 * time.Second, Name: "9.2.0.192.in-addr.arpa"}},
		{"www.example.com", TypeCNAME, Answer{Result: Records, TTL: 60 * time.Second, Name: "www.example.com",
			CNAME: "a.example.com"}},
		{"www.example.com", TypeA, Answer{Result: Records, TTL: 50 * time.Second, Name: "mx1.example.com",
			Addrs: addrs("192.0.2.1", "192.0.2.2")}},
		{"short.example.com", TypeA, Answer{Result: Records, TTL: time.Second, Name: "short.example.com",
			Addrs: addrs("192.0.2.1")}},
		{"long.example.com", TypeA, Answer{Result: Records, TTL: 24 * time.Hour, Name: "long.example.com",
			Addrs: addrs("192.0.2.1")}},
		{"never.example.com", TypeA, Answer{Result: Records, TTL: time.Second, Name: "never.example.com",
			Addrs: addrs("192.0.2.1")}},
		{"mx1.example.com", TypeMX, Answer{Result: NoData, TTL: 120 * time.Second, Name: "mx1.example.com"}},
		{"mx1.example.com", TypeCNAME, Answer{Result: NoData, TTL: 120 * time.Second, Name: "mx1.example.com"}},
		{"nomx.example.com", TypeMX, Answer{Result: NoData, TTL: 120 * time.Second, Name: "mx1.example.com"}},
		{"_tcp.mx1.example.com", TypeA, Answer{Result: NoData, TTL: 120 * time.Second, Name: "_tcp.mx1.example.com"}},
		{"nosoa.test", TypeMX, Answer{Result: NoData, TTL: 60 * time.Second, Name: "nosoa.test"}},
		{"nx.example.com", TypeMX, Answer{Result: NXDomain, TTL: 120 * time.Second, Name: "nx.example.com"}},
		{"nx.test", TypeMX, Answer{Result: NXDomain, TTL: 60 * time.Second, Name: "nx.test"}},
		{"dangling.example.com", TypeA, Answer{Result: NXDomain, TTL: 120 * time.Second, Name: "gone.example.com"}},
		{"loop.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"self.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"servfail.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"refused.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"notimp.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"notauth.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"bogus.example.com", TypeA, Answer{Result: Bogus, TTL: 5 * time.Second}},
		{"nonsec.example.com", TypeA, Answer{Result: Bogus, TTL: 5 * time.Second}},
		{"indeterminate.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
		{"unreachable.example.com", TypeA, Answer{Result: TempFail, TTL: 5 * time.Second}},
	} {
		t.Run(test.want.Result.String()+" "+test.name+" "+test.typ.String(), func(t *testing.T) {
			c := Client{Servers: []string{s.Addr()}}
			defer c.Close()
			got := c.Lookup(t.Context(), test.name, test.typ)
			failed := test.want.Result == TempFail || test.want.Result == Bogus
			if failed {
				var e *Error
				if !errors.As(got.Err, &e) || e.Name != test.name || e.Type != test.typ || e.Server != s.Addr() {
					t.Errorf("error %#v", got.Err)
				}
				got.Err, got.Name = nil, ""
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got\n%+v, want\n%+v", got, test.want)
			}
			if again := c.Lookup(t.Context(), test.name, test.typ); again.Result != got.Result || (again.Err != nil) != failed {
				t.Errorf("asked again: %+v", again)
			}
		})
	}
}

func TestNames(t *testing.T) {
	s := newServer(t, "*.example.com. A 192.0.2.1\n_a.b-.-c.0/25.*.example.com. A 192.0.2.2")
	label := strings.Repeat("a", 63)
	long := strings.Repeat(label+".", 3) + strings.Repeat("a", 253-3*64-len(".example.com")) + ".example.com"
	tooLong := strings.Repeat(label+".", 3) + strings.Repeat("a", 254-3*64-len(".example.com")) + ".example.com"
	for _, name := range []string{
		"a.example.com", "A.EXAMPLE.COM.", "_a.b-.-c.0/25.*.example.com", label + ".example.com", long, long + ".",
	} {
		if got := client(s).Lookup(t.Context(), name, TypeA); got.Result != Records || got.Err != nil {
			t.Errorf("%q: %+v", name, got)
		}
	}
	asked := s.Total()
	for _, name := range []string{
		"", ".", "..", ".example.com", "a..example.com", "example.com..", "a" + label + ".example.com", tooLong,
		"a b.example.com", "a@example.com", "a\x00.example.com", "a\r\nb", "a\tb", `a\.b`, `a"b`, "a;b", "a(b", "a)b", "a'b",
		"dömi.example.com", "\xff", "a\x7f",
	} {
		got := client(s).Lookup(t.Context(), name, TypeA)
		if got.Result != NXDomain || !errors.Is(got.Err, ErrName) {
			t.Errorf("%q: %+v", name, got)
		}
	}
	if s.Total() != asked {
		t.Errorf("%d queries for what is no name", s.Total()-asked)
	}
	if got := client(s).Lookup(t.Context(), "a.example.com", 65); got.Result != TempFail || got.Err == nil {
		t.Errorf("unknown type: %+v", got)
	}
}

func TestSecure(t *testing.T) {
	const zone = testZone + "in.signed.test. CNAME mx1.example.com.\nwithin.signed.test. CNAME a.signed.test.\na.signed.test. A 192.0.2.1\ninto.test. CNAME a.signed.test."
	for _, test := range []struct {
		name  string
		typ   Type
		trust bool
		links int
		want  Answer
	}{
		{"a.signed.test", TypeA, true, 9, Answer{Result: Records, Secure: true}},
		{"a.signed.test", TypeA, false, 9, Answer{Result: Records}},
		{"a.signed.test", TypeMX, true, 9, Answer{Result: NoData, Secure: true}},
		{"nx.signed.test", TypeMX, true, 9, Answer{Result: NXDomain, Secure: true}},
		{"mx1.example.com", TypeA, true, 9, Answer{Result: Records}},
		{"within.signed.test", TypeA, true, 9, Answer{Result: Records, Secure: true}},
		{"in.signed.test", TypeA, true, 9, Answer{Result: Records}},
		{"into.test", TypeA, true, 9, Answer{Result: Records}},
		{"into.test", TypeA, true, 1, Answer{Result: Records}},
		{"within.signed.test", TypeA, true, 1, Answer{Result: Records, Secure: true}},
		{"in.signed.test", TypeA, true, 1, Answer{Result: Records}},
	} {
		s := newServer(t, zone, dnstest.Secure("signed.test"), dnstest.Links(test.links))
		c := client(s)
		c.TrustAD = test.trust
		for _, how := range []string{"asked", "cached"} {
			got := c.Lookup(t.Context(), test.name, test.typ)
			if got.Result != test.want.Result || got.Secure != test.want.Secure {
				t.Errorf("%s, trust %v, links %d, %s: %+v", test.name, test.trust, test.links, how, got)
			}
		}
		if n := s.Queries(test.name, test.typ.String()); n != 1 {
			t.Errorf("%s: %d queries", test.name, n)
		}
	}
}

func TestCNAMEsOverManyMessages(t *testing.T) {
	var zone strings.Builder
	for i := range 12 {
		zone.WriteString(string(rune('a'+i)) + ".test. " + "30 CNAME " + string(rune('b'+i)) + ".test.\n")
	}
	zone.WriteString("m.test. 20 A 192.0.2.1\nround.test. CNAME trip.test.\ntrip.test. CNAME round.test.\nlost.test. CNAME nx.test.\n")
	for _, links := range []int{1, 2, 3, 5, 16} {
		for _, test := range []struct {
			name string
			want Result
			last string
		}{
			{"e.test", Records, "m.test"}, // 8 CNAMEs
			{"d.test", TempFail, ""},      // 9
			{"round.test", TempFail, ""},  // no end
			{"lost.test", NXDomain, "nx.test"},
		} {
			s := newServer(t, zone.String(), dnstest.Links(links))
			got := client(s).Lookup(t.Context(), test.name, TypeA)
			if got.Result != test.want || test.want != TempFail && got.Name != test.last {
				t.Errorf("%s, %d at a time: %+v", test.name, links, got)
			}
			if test.want == Records && got.TTL != 20*time.Second {
				t.Errorf("%s, %d at a time: TTL %v", test.name, links, got.TTL)
			}
			if n := s.Total(); n > maxCNAMEs+1 {
				t.Errorf("%s, %d at a time: %d queries", test.name, links, n)
			}
		}
	}
}

func TestErrorText(t *testing.T) {
	s := newServer(t, testZone, dnstest.Explain(7, "old.test"))
	got := client(s).Lookup(t.Context(), "old.test", TypeMX)
	const want = `MX of "old.test": server 192.0.2.1:53: SERVFAIL (Signature Expired)`
	if got.Err == nil || got.Err.Error() != want {
		t.Errorf("got %v, want %s", got.Err, want)
	}
}
