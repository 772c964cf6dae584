package delivery

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// tlsa is the digest of a certificate's key, as usage 3, selector 1, matching 1 has it.
func tlsa(cert tls.Certificate) []byte {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return sum[:]
}

func secured(a DNSAnswer, name string) DNSAnswer {
	a.Secure, a.Name, a.TTL = true, name, time.Hour
	return a
}

func tlsaRecords(usage uint8, digests ...[]byte) DNSAnswer {
	a := DNSAnswer{Result: DNSRecords}
	for _, d := range digests {
		a.TLSA = append(a.TLSA, TLSARecord{Usage: usage, Selector: 1, MatchingType: 1, Data: d})
	}
	return a
}

// TestDANE: what TLSA records do to the mail for a host, upstream's cases of "dane" among them.
func TestDANE(t *testing.T) {
	authority := smtptest.CA(t)
	cert := authority.Certificate(t, "elsewhere.test") // for a name that nobody asked for
	right, wrong := tlsa(cert), bytes.Repeat([]byte{7}, 32)
	signed := func() zone {
		return zone{
			"safe.test MX":               secured(mx(MXRecord{10, "mx.safe.test"}), "safe.test"),
			"mx.safe.test A":             secured(addrs("192.0.2.1"), "mx.safe.test"),
			"_25._tcp.mx.safe.test TLSA": secured(tlsaRecords(3, right), "_25._tcp.mx.safe.test"),
		}
	}
	const (
		inMX = `{}`
		ok   = "delivered dane Required dane ok"
	)
	for _, test := range []struct {
		name, config, path string
		change             func(zone)
		want               string // status, what vouched, mode, by, DANE; or the status and what the text says
		report             string
	}{
		{"it matches", inMX, "", nil, ok, "tlsa mx.safe.test mx.safe.test  true"},
		{"it matches, and TLS is disabled", inMX, `"enable_tls": "Disabled", `, nil, ok, "tlsa mx.safe.test mx.safe.test  true"},
		{"a wrong digest", inMX, `"enable_tls": "Disabled", "remember_broken_tls": "1h", "opportunistic_tls_reconnect_on_failed_handshake": true, `,
			func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = secured(tlsaRecords(3, wrong), "") }, "transient: DANE", "tlsa mx.safe.test mx.safe.test certificate-not-trusted false"},
		{"a wrong one and the right one", inMX, "", func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = secured(tlsaRecords(3, wrong, right), "") }, ok, ""},
		{"an insecure chain of addresses", inMX, `"enable_tls": "OpportunisticInsecure", `, func(z zone) { z["mx.safe.test A"] = addrs("192.0.2.1") },
			"delivered none OpportunisticInsecure enable_tls insecure_chain", "no-policy-found safe.test mx.safe.test certificate-host-mismatch true"},
		{"an insecure choice of the host", inMX, `"enable_tls": "OpportunisticInsecure", `, func(z zone) { z["safe.test MX"] = mx(MXRecord{10, "mx.safe.test"}) },
			"delivered none OpportunisticInsecure enable_tls not_applicable", ""},
		{"records that nobody vouches for", inMX, `"enable_tls": "OpportunisticInsecure", `, func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = tlsaRecords(3, wrong) },
			"delivered none OpportunisticInsecure enable_tls none", ""},
		{"no records", inMX, `"enable_tls": "OpportunisticInsecure", `, func(z zone) { delete(z, "_25._tcp.mx.safe.test TLSA") },
			"delivered none OpportunisticInsecure enable_tls none", ""},
		{"unusable records", inMX, `"enable_tls": "Disabled", `, func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = secured(tlsaRecords(1, right), "") },
			"delivered none RequiredInsecure dane unusable", "tlsa mx.safe.test mx.safe.test tlsa-invalid true"},
		{"unusable records, and the operator wants more", inMX, `"enable_tls": "Required", `, func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = secured(tlsaRecords(1, right), "") },
			"transient: certificate", ""},
		{"records that cannot be had", inMX, "", func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = DNSAnswer{} },
			"transient: TLSA records could not be looked up", "tlsa mx.safe.test mx.safe.test dnssec-invalid false"},
		{"bogus records", inMX, "", func(z zone) { z["_25._tcp.mx.safe.test TLSA"] = DNSAnswer{Result: DNSBogus} },
			"transient: TLSA records could not be looked up", "tlsa mx.safe.test mx.safe.test dnssec-invalid false"},
		{"an alias in a signed zone", inMX, "", func(z zone) {
			z["safe.test MX"] = secured(mx(MXRecord{10, "alias.safe.test"}), "safe.test")
			z["alias.safe.test A"] = secured(addrs("192.0.2.1"), "mx.safe.test")
		}, ok, "tlsa mx.safe.test alias.safe.test  true"},
		{"an alias into an unsigned zone", inMX, "", func(z zone) {
			a := addrs("192.0.2.1")
			a.Name = "mx.unsigned.test"
			z["mx.safe.test A"] = a
			z["mx.safe.test CNAME"] = secured(DNSAnswer{Result: DNSRecords, CNAME: "mx.unsigned.test"}, "mx.safe.test")
		}, ok, "tlsa mx.safe.test mx.safe.test  true"},
		{"an mx_list", `{"protocol": {"smtp": {"mx_list": ["mx.safe.test"]}}}`, `"enable_tls": "OpportunisticInsecure", `, nil,
			"delivered none OpportunisticInsecure enable_tls not_applicable", ""},
		{"an mx_list that is secure", `{"protocol": {"smtp": {"mx_list": ["mx.safe.test"], "treat_mx_list_as_secure": true}}}`, "", nil, ok, ""},
		{"an address that is secure", `{"protocol": {"smtp": {"mx_list": [{"name": "mx.safe.test", "addr": "192.0.2.9", "is_secure": true}], "treat_mx_list_as_secure": true}}}`, "", nil, ok, ""},
		{"an address that is not", `{"protocol": {"smtp": {"mx_list": [{"name": "mx.safe.test", "addr": "192.0.2.9"}], "treat_mx_list_as_secure": true}}}`, `"enable_tls": "OpportunisticInsecure", `, nil,
			"delivered none OpportunisticInsecure enable_tls insecure_chain", ""},
		{"a literal", `{"protocol": {"smtp": {"mx_list": ["[192.0.2.9]"], "treat_mx_list_as_secure": true}}}`, `"enable_tls": "OpportunisticInsecure", `, nil,
			"delivered none OpportunisticInsecure enable_tls not_applicable", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			z := signed()
			if test.change != nil {
				test.change(z)
			}
			sink := &smtptest.Sink{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
			addr, err := sink.Listen()
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close()
			rt := newRuntime(t)
			rt.Resolver, rt.Egress = z, loopback(`"enable_dane": true, `+test.path)
			rt.Dial = func(ctx context.Context, _ DialRequest) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", addr)
			}
			report := ""
			rt.Trace = &Trace{TLSReport: func(_ string, r TLSReport) {
				report = fmt.Sprintf("%s %s %s %s %v", r.PolicyType, r.PolicyDomain, r.Host, r.Failure, r.Sent)
			}}
			r := protocolOf(t, rt, test.config).Deliver(t.Context(), messageTo("a@safe.test")).Results[0]
			got := fmt.Sprint(r.Status)
			if r.Status == Delivered {
				p, info := r.Session.TLSPolicy, r.Session.TLS
				if info == nil || info.Verified != (info.By != "none") {
					t.Fatalf("%+v", info)
				}
				got = fmt.Sprintf("%s %s %s %s %s", r.Status, info.By, p.Mode, p.By, p.DANE)
			} else if _, says, _ := strings.Cut(test.want, ": "); strings.Contains(r.Response.Text, says) {
				got += ": " + says
			}
			if n := len(sink.Messages()); got != test.want || (r.Status == Delivered) != (n == 1) {
				t.Errorf("%q, want %q; the peer has %d: %s", got, test.want, n, r.Response)
			}
			if test.report != "" && report != test.report {
				t.Errorf("reported %q, want %q", report, test.report)
			}
		})
	}
}

// TestNoDowngrade: whatever somebody on the way does to STARTTLS, where a policy requires TLS nothing of the mail
// is said in clear.
func TestNoDowngrade(t *testing.T) {
	authority := smtptest.CA(t)
	cert := authority.Certificate(t, "mx.safe.test")
	requires := func(m *Message) { m.MailOptions = &smtp.MailOptions{RequireTLS: true} }
	for name, policy := range map[string]struct {
		path   string
		usage  uint8
		policy string
		change func(*Message)
	}{
		"enable_tls Required":         {path: `"enable_tls": "Required", `},
		"enable_tls RequiredInsecure": {path: `"enable_tls": "RequiredInsecure", `},
		"DANE":                        {path: `"enable_dane": true, `, usage: 3},
		"DANE, unusable":              {path: `"enable_dane": true, "enable_tls": "Disabled", `, usage: 1},
		"MTA-STS":                     {path: `"enable_tls": "OpportunisticInsecure", `, policy: "enforce"},
		"REQUIRETLS":                  {change: requires},
	} {
		for _, how := range []string{"", "is stripped", "is refused", "has text injected", "has no reply", "stalls", "fails", "is cut"} {
			t.Run(name+"/STARTTLS "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sink := &smtptest.Sink{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Offer: []string{"REQUIRETLS"}}
					inClear := false
					if how == "is stripped" {
						sink.TLS = nil
					}
					defer sink.Close()
					rt := newRuntime(t)
					rt.RootCAs = authority.Pool
					z := zone{
						"safe.test MX":   secured(mx(MXRecord{10, "mx.safe.test"}), "safe.test"),
						"mx.safe.test A": secured(addrs("192.0.2.1"), "mx.safe.test"),
					}
					if policy.usage != 0 {
						z["_25._tcp.mx.safe.test TLSA"] = secured(tlsaRecords(policy.usage, tlsa(cert)), "")
					}
					if policy.policy != "" {
						rt.MTASTS.Store = &shelf{entries: map[string]PolicyEntry{"safe.test": {ID: "1", Fetched: time.Now(), Expires: time.Now().Add(24 * time.Hour),
							Policy: []byte("version: STSv1\nmode: " + policy.policy + "\nmx: mx.safe.test\nmax_age: 86400\n")}}}
					}
					rt.Resolver = z
					rt.Egress = loopback(`"remember_broken_tls": "1h", "opportunistic_tls_reconnect_on_failed_handshake": true, ` + policy.path)
					rt.Dial = func(context.Context, DialRequest) (net.Conn, error) {
						var link smtptest.Link
						return link.Dial(func(conn net.Conn) { sink.ServeConn(&meddled{conn, how, &inClear}) }), nil
					}
					p := protocolOf(t, rt, `{}`)
					for range 3 { // what is remembered of the first must not help the others
						msg := messageTo("a@safe.test")
						if policy.change != nil {
							policy.change(msg)
						}
						r := p.Deliver(t.Context(), msg).Results[0]
						if good := how == ""; good != (r.Status == Delivered) || !good && r.Status != Transient {
							t.Errorf("%s %s", r.Status, r.Response)
						}
						time.Sleep(time.Minute)
					}
					for _, m := range sink.Messages() {
						if !m.TLS {
							t.Errorf("sent in clear: %+v", m)
						}
					}
					if inClear {
						t.Error("the envelope was sent in clear")
					}
					rt.Close(context.Background())
				})
			})
		}
	}
}

// serveHosts makes a runtime's dials end at a sink for each address.
func serveHosts(t *testing.T, rt *Runtime, sinks map[string]*smtptest.Sink) {
	t.Helper()
	at := map[string]string{}
	for ip, sink := range sinks {
		addr, err := sink.Listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sink.Close() })
		at[ip] = addr
	}
	rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at[to.Address])
	}
}

// ownIssuer is a certificate that is its own issuer.
func ownIssuer(t *testing.T, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestDANEForOneDomainOnly: a certificate that is good for the name of the domain alone serves no other domain with the
// same mail exchanger, not even over a connection that is open already.
func TestDANEForOneDomainOnly(t *testing.T) {
	cert := ownIssuer(t, "a.test")
	sink := &smtptest.Sink{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
	rt := newRuntime(t)
	digest := sha256.Sum256(cert.Certificate[0])
	records := secured(DNSAnswer{Result: DNSRecords, TLSA: []TLSARecord{{Usage: 2, Selector: 0, MatchingType: 1, Data: digest[:]}}}, "")
	rt.Resolver = zone{
		"a.test MX":                  secured(mx(MXRecord{10, "mx.host.test"}), "a.test"),
		"b.test MX":                  secured(mx(MXRecord{10, "mx.host.test"}), "b.test"),
		"mx.host.test A":             secured(addrs("192.0.2.1"), "mx.host.test"),
		"_25._tcp.mx.host.test TLSA": records,
	}
	rt.Egress = loopback(`"enable_dane": true, `)
	serveHosts(t, rt, map[string]*smtptest.Sink{"192.0.2.1:25": sink})
	p := protocolOf(t, rt, `{}`)
	for _, test := range []struct {
		to   string
		want Status
	}{{"x@b.test", Transient}, {"x@a.test", Delivered}, {"x@b.test", Transient}, {"x@a.test", Delivered}} {
		if r := p.Deliver(t.Context(), messageTo(test.to)).Results[0]; r.Status != test.want {
			t.Errorf("%s: %s %s", test.to, r.Status, r.Response)
		}
	}
	if n, _ := sink.Sessions(); n != 3 {
		t.Errorf("%d sessions", n)
	}
}
