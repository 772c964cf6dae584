//go:build interop && linux

package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// What a resolver that validates says is understood: kind, records, where a chain of CNAMEs ends, and
// what is secure. "SECURE" stands for secure in signed.test, and for nothing in plain.test.
func TestResolveCommon(t *testing.T) {
	const A, AAAA, CNAME, MX, TLSA, TXT = resolver.TypeA, resolver.TypeAAAA, resolver.TypeCNAME, resolver.TypeMX, resolver.TypeTLSA, resolver.TypeTXT
	facts := []fact{
		known("ZONE", MX, "RecordsSECURE: 10 mx1.ZONE, 20 mx2.ZONE"),
		known("ZoNe.", MX, "RecordsSECURE: 10 mx1.ZONE, 20 mx2.ZONE"),
		known("mx1.ZONE", A, "RecordsSECURE: 127.0.0.1"),
		known("mx1.ZONE", AAAA, "RecordsSECURE: ::1"),
		known("mx2.ZONE", A, "RecordsSECURE: 127.0.0.2, 127.0.0.3"),
		known("mx2.ZONE", AAAA, "NoDataSECURE"),
		known("implicit.ZONE", MX, "NoDataSECURE"),
		known("nowhere.ZONE", MX, "NXDomainSECURE"),
		known("null.ZONE", MX, "RecordsSECURE: 0 ."),
		known("nullmixed.ZONE", MX, "RecordsSECURE: 0 ., 10 mx1.ZONE"),
		known("cname.ZONE", MX, "NoDataSECURE at implicit.ZONE"),
		known("cname.ZONE", A, "RecordsSECURE at implicit.ZONE: 127.0.0.1"),
		known("cname.ZONE", CNAME, "RecordsSECURE: implicit.ZONE"),
		known("implicit.ZONE", CNAME, "NoDataSECURE"),
		known("chain1.ZONE", MX, "RecordsSECURE at ZONE: 10 mx1.ZONE, 20 mx2.ZONE"),
		known("loop1.ZONE", MX, "TempFail"),
		known("loop1.ZONE", CNAME, "RecordsSECURE: loop2.ZONE"),
		known("self.ZONE", A, "TempFail"),
		known("dangling.ZONE", A, "NXDomainSECURE at nowhere.ZONE"),
		known("missing.ZONE", A, "NoDataSECURE at text.ZONE"),
		known("host.dname.ZONE", A, "RecordsSECURE at host.renamed.ZONE: 127.0.0.1"),
		known("any.thing.many.ZONE", MX, "RecordsSECURE: 10 mx1.ZONE"),
		known("any.many.ZONE", A, "NoDataSECURE"),
		known("text.ZONE", TXT, "RecordsSECURE: caf\xc3\xa9 \"\\, one record"),
		known("brief.ZONE", MX, "RecordsSECURE: 10 mx1.ZONE"),
		known("_25._tcp.mx1.ZONE", TLSA, "RecordsSECURE: 3 1 1 0123456789abcdef"),
		known("_26._tcp.mx1.ZONE", TLSA, "NXDomainSECURE"),
		known("_tcp.mx1.ZONE", TLSA, "NoDataSECURE"),
	}
	for zone, secure := range map[string]string{"signed.test": " secure", "plain.test": ""} {
		fill := strings.NewReplacer("ZONE", zone, "ZoNe", strings.ToUpper(zone), "SECURE", secure).Replace
		t.Run(zone, func(t *testing.T) {
			c := client(t, lab.names.unbound)
			for _, f := range facts {
				checkFact(t, c, known(fill(f.name), f.typ, fill(f.want[0])))
			}
		})
	}
}

// What is signed, what is not and what is signed wrongly can meet in every way.
func TestResolveSigned(t *testing.T) {
	const A, AAAA, CNAME, MX = resolver.TypeA, resolver.TypeAAAA, resolver.TypeCNAME, resolver.TypeMX
	c := client(t, lab.names.unbound)
	for _, f := range []fact{
		known("insecure.signed.test", MX, "Records: 10 mx.insecure.signed.test"),
		known("nowhere.insecure.signed.test", MX, "NXDomain"),
		known("child.signed.test", MX, "Records secure: 10 mx.child.signed.test"),
		known("nowhere.child.signed.test", MX, "NXDomain secure"),
		known("astray.signed.test", MX, "Bogus"),
		known("nowhere.astray.signed.test", MX, "Bogus"),
		known("distrusted.test", MX, "Bogus"),
		known("forged.signed.test", MX, "Bogus"),
		known("outdated.signed.test", MX, "Bogus"),
		known("stripped.signed.test", MX, "TempFail", "Bogus"),
		known("forgedhost.signed.test", MX, "Records secure: 10 forged-a.signed.test"),
		known("forged-a.signed.test", A, "Bogus"),
		known("half.signed.test", A, "Records secure: 127.0.0.1"),
		known("half.signed.test", AAAA, "Bogus"),
		known("any.forged-many.signed.test", MX, "Bogus"),
		known("toforged.signed.test", MX, "Bogus"),
		known("toforged.signed.test", CNAME, "Records secure: forged.signed.test"),
		known("forgedalias.signed.test", A, "Bogus"),
		known("forgedalias.signed.test", CNAME, "Bogus"),
		known("tochild.signed.test", A, "Records secure at mx.child.signed.test: 127.0.0.1"),
		known("toplain.signed.test", A, "Records at mx1.plain.test: 127.0.0.1"),
		known("toplain.signed.test", CNAME, "Records secure: mx1.plain.test"),
		known("toplain.signed.test", MX, "NoData at mx1.plain.test"),
		known("toinsecure.signed.test", A, "Records at mx.insecure.signed.test: 127.0.0.1"),
		known("tosigned.plain.test", A, "Records at mx1.signed.test: 127.0.0.1"),
		known("tolame.signed.test", A, "TempFail"),
		known("lame.test", MX, "TempFail"),
		known("elsewhere.example", MX, "NXDomain"),
	} {
		checkFact(t, c, f)
	}
}

// Nobody is secure where the resolver does not validate, or is not trusted with it; and one that gives no
// reasons has no answer where another says that it is bogus.
func TestResolveTrust(t *testing.T) {
	distrustful := client(t, lab.names.unbound)
	distrustful.TrustAD = false
	const MX = resolver.TypeMX
	for _, test := range []struct {
		name  string
		c     *resolver.Client
		facts []fact
	}{
		{"not trusted", distrustful, []fact{
			known("signed.test", MX, "Records: 10 mx1.signed.test, 20 mx2.signed.test"),
			known("nowhere.signed.test", MX, "NXDomain"),
			known("forged.signed.test", MX, "Bogus")}},
		{"gives no reasons", client(t, lab.names.silent), []fact{
			known("signed.test", MX, "Records secure: 10 mx1.signed.test, 20 mx2.signed.test"),
			known("forged.signed.test", MX, "TempFail"),
			known("outdated.signed.test", MX, "TempFail")}},
		{"does not validate", client(t, lab.names.careless), []fact{
			known("signed.test", MX, "Records: 10 mx1.signed.test, 20 mx2.signed.test"),
			known("nowhere.signed.test", MX, "NXDomain"),
			known("forged.signed.test", MX, "Records: 10 mx1.signed.test")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, f := range test.facts {
				checkFact(t, test.c, f)
			}
		})
	}
}

// An answer that has no room in a datagram is asked for again over TCP, and is whole and secure there.
func TestResolveTruncated(t *testing.T) {
	var used networks
	c := client(t, lab.names.unbound)
	c.Dial = used.dial
	var all []string
	for i := range manyExchangers {
		all = append(all, fmt.Sprintf("%d a-mail-exchanger-with-a-long-name-%d.signed.test", i, i))
	}
	slices.Sort(all)
	checkFact(t, c, known("big.signed.test", resolver.TypeMX, "Records secure: "+strings.Join(all, ", ")))
	if got := used.all(); !slices.Equal(got, []string{"udp", "tcp"}) {
		t.Errorf("asked over %v, want udp and then tcp", got)
	}
	checkFact(t, c, known("mx1.signed.test", resolver.TypeA, "Records secure: 127.0.0.1"))
	if got := used.all(); !slices.Equal(got, []string{"udp", "tcp", "udp"}) {
		t.Errorf("asked over %v, want the small question by udp alone", got)
	}
}

// A server that is not there is passed over.
func TestResolveSecondServer(t *testing.T) {
	c := client(t, lab.names.unbound)
	nobody, err := freeDNSPort()
	if err != nil {
		t.Fatal(err)
	}
	c.Servers = []string{loopback(nobody), lab.names.address}
	checkFact(t, c, known("mx1.signed.test", resolver.TypeA, "Records secure: 127.0.0.1"))
	checkFact(t, c, known("forged.signed.test", resolver.TypeMX, "Bogus"))
}

// The resolvers speak TLS too, and are who they say.
func TestResolveOverTLS(t *testing.T) {
	roots := x509.NewCertPool()
	roots.AddCert(lab.trusted.certificate)
	c := &dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{RootCAs: roots, ServerName: unboundName}}
	query := new(dns.Msg).SetQuestion("mx1.signed.test.", dns.TypeA)
	query.AuthenticatedData = true
	for name, u := range map[string]*unbound{"validating": lab.names.unbound, "silent": lab.names.silent, "careless": lab.names.careless} {
		m, _, err := c.ExchangeContext(t.Context(), query, u.tls)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Answer) != 1 || m.AuthenticatedData != (name != "careless") {
			t.Errorf("%s: %s", name, m)
		}
	}
}

// client asks a resolver that it trusts, and keeps nothing.
func client(t *testing.T, u *unbound) *resolver.Client {
	c := &resolver.Client{Servers: []string{u.address}, TrustAD: true, CacheSize: -1}
	t.Cleanup(func() { c.Close() })
	return c
}

// checkFact checks what is answered to one question.
func checkFact(t *testing.T, c *resolver.Client, f fact) {
	t.Helper()
	a := c.Lookup(t.Context(), f.name, f.typ)
	if got := describe(f.name, f.typ, a); !slices.Contains(f.want, got) {
		t.Errorf("%s of %s: got %q (%v), want %q", f.typ, f.name, got, a.Err, f.want)
	}
	if (a.Err != nil) != (a.Result == resolver.TempFail || a.Result == resolver.Bogus) {
		t.Errorf("%s of %s: %s with the error %v", f.typ, f.name, a.Result, a.Err)
	}
}

// networks notes over what is dialled.
type networks struct {
	mu   sync.Mutex
	used []string
}

func (n *networks) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.used = append(n.used, network)
	n.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (n *networks) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.used)
}
