package dane

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// check verifies and compares with what is wanted: a failure type, or the depth and name of a match.
func check(t *testing.T, p *Policy, chain []*x509.Certificate, failure string, want Match) {
	t.Helper()
	got, err := p.Verify(chain, now)
	if failure == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		if parameters(got.Record) != parameters(want.Record) || !bytes.Equal(got.Record.Data, want.Record.Data) ||
			got.Depth != want.Depth || got.Name != want.Name {
			t.Fatalf("matched %s at %d for %q, want %s at %d for %q", parameters(got.Record), got.Depth, got.Name,
				parameters(want.Record), want.Depth, want.Name)
		}
		return
	}
	refused, ok := errors.AsType[*VerifyError](err)
	if !ok {
		t.Fatalf("got %+v, %v; want a refusal: %s", got, err, failure)
	}
	if refused.FailureType() != failure || refused.Base != p.Base || refused.Unwrap() == nil {
		t.Fatalf("got %s (%v), want %s", refused.FailureType(), refused, failure)
	}
	if got.Record.Data != nil || got.Depth != 0 || got.Name != "" {
		t.Fatalf("a refusal with a match: %+v", got)
	}
}

// Each usage, selector and matching type against each certificate of the chain that a record may describe.
func TestVerifyRecordKinds(t *testing.T) {
	f := newFixture(t)
	sent := chainOf(f.leaf, f.middle, f.root)
	described := []struct {
		name string
		cert *x509.Certificate
		at   int
	}{
		{"leaf", f.leaf.Certificate, 0},
		{"middle", f.middle.Certificate, 1},
		{"root", f.root.Certificate, 2},
		{"stranger", f.stranger.Certificate, -1},
	}
	for usage := range uint8(5) {
		for selector := range uint8(3) {
			for matching := range uint8(4) {
				for _, d := range described {
					t.Run(fmt.Sprintf("%d %d %d %s", usage, selector, matching, d.name), func(t *testing.T) {
						r := tlsa(usage, selector, matching, d.cert)
						known := selector <= 1 && matching <= 2
						failure, want := CertificateNotTrusted, Match{}
						switch {
						case usage == 3 && known && d.at == 0:
							failure, want = "", Match{r, 0, ""}
						case usage == 2 && known && d.at > 0:
							failure, want = "", Match{r, d.at, "mx.example.com"}
						}
						check(t, policyOf(r), sent, failure, want)
					})
				}
			}
		}
	}
}

func TestVerifyEE(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct {
		name string
		leaf *identity
	}{
		{"expired", issue(t, f.middle, server("mx.example.com"), lastYear)},
		{"not yet valid", issue(t, f.middle, server("mx.example.com"), nextYear)},
		{"another name", issue(t, f.middle, server("mx.example.net"))},
		{"no name", issue(t, f.middle, server())},
		{"self-signed", issue(t, nil, server("mx.example.com"))},
		{"an authority", issue(t, nil, authority("Root"))},
		{"for clients only", issue(t, f.middle, server("mx.example.com"), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})},
		{"an unknown critical extension", issue(t, f.middle, server("mx.example.com"), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}
		})},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := tlsa(3, 1, 1, test.leaf.Certificate)
			check(t, policyOf(r), chainOf(test.leaf), "", Match{r, 0, ""})
			check(t, policyOf(r), chainOf(f.leaf, test.leaf), CertificateNotTrusted, Match{})
		})
	}
}

func TestVerifyTA(t *testing.T) {
	f := newFixture(t)
	oldRoot := issue(t, nil, authority("Old root"), lastYear)
	oldMiddle := issue(t, f.root, authority("Old middle"), lastYear)
	plainMiddle := issue(t, f.root, authority("No authority"), func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 })
	short := issue(t, f.root, authority("Short"), func(c *x509.Certificate) { c.MaxPathLenZero = true })
	belowShort := issue(t, short, authority("Below short"))
	self := issue(t, nil, server("mx.example.com"))
	key := func(i *identity) resolver.TLSA { return tlsa(2, 1, 1, i.Certificate) }

	for _, test := range []struct {
		name    string
		records []resolver.TLSA
		sent    []*x509.Certificate
		failure string
		depth   int
	}{
		{"the intermediate's key", []resolver.TLSA{key(f.middle)}, chainOf(f.leaf, f.middle), "", 1},
		{"the root's key", []resolver.TLSA{key(f.root)}, chainOf(f.leaf, f.middle, f.root), "", 2},
		{"in another order", []resolver.TLSA{key(f.root)}, chainOf(f.leaf, f.root, f.middle), "", 1},
		{"with others between", []resolver.TLSA{key(f.root)},
			chainOf(f.leaf, f.stranger, self, oldRoot, f.middle, f.root), "", 5},
		{"an issuer is sent twice", []resolver.TLSA{key(f.middle)}, chainOf(f.leaf, f.middle, f.middle), "", 1},

		{"the issuer is not sent", []resolver.TLSA{key(f.root)}, chainOf(f.leaf, f.middle), CertificateNotTrusted, 0},
		{"what is between is not sent", []resolver.TLSA{key(f.root)}, chainOf(f.leaf, f.root), CertificateNotTrusted, 0},
		{"an issuer of somebody else", []resolver.TLSA{key(f.stranger)},
			chainOf(f.leaf, f.middle, f.stranger), CertificateNotTrusted, 0},
		{"the same name, another key", []resolver.TLSA{key(f.stranger)},
			chainOf(issue(t, f.root, server("mx.example.com")), f.stranger), CertificateNotTrusted, 0},

		{"an expired server", []resolver.TLSA{key(f.middle)},
			chainOf(issue(t, f.middle, server("mx.example.com"), lastYear), f.middle), CertificateExpired, 0},
		{"a server of the future", []resolver.TLSA{key(f.middle)},
			chainOf(issue(t, f.middle, server("mx.example.com"), nextYear), f.middle), CertificateExpired, 0},
		{"an expired issuer", []resolver.TLSA{key(oldRoot)},
			chainOf(issue(t, oldRoot, server("mx.example.com")), oldRoot), CertificateExpired, 0},
		{"an expired intermediate", []resolver.TLSA{key(f.root)},
			chainOf(issue(t, oldMiddle, server("mx.example.com")), oldMiddle, f.root), CertificateExpired, 0},
		{"an expired root above the issuer", []resolver.TLSA{key(f.middle)},
			chainOf(f.leaf, f.middle, oldRoot), "", 1},

		{"an issuer that is no authority", []resolver.TLSA{key(plainMiddle)},
			chainOf(issue(t, plainMiddle, server("mx.example.com")), plainMiddle), CertificateNotTrusted, 0},
		{"an intermediate that is no authority", []resolver.TLSA{key(f.root)},
			chainOf(issue(t, plainMiddle, server("mx.example.com")), plainMiddle, f.root), CertificateNotTrusted, 0},
		{"a chain longer than the issuer allows", []resolver.TLSA{key(short)},
			chainOf(issue(t, belowShort, server("mx.example.com")), belowShort, short), CertificateNotTrusted, 0},
		{"a chain as short as it allows", []resolver.TLSA{key(short)},
			chainOf(issue(t, short, server("mx.example.com")), short), "", 1},
		{"for clients only", []resolver.TLSA{key(f.middle)},
			chainOf(issue(t, f.middle, server("mx.example.com"), func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			}), f.middle), CertificateNotTrusted, 0},
		{"no usage is any usage", []resolver.TLSA{key(f.middle)},
			chainOf(issue(t, f.middle, server("mx.example.com"), func(c *x509.Certificate) { c.ExtKeyUsage = nil }), f.middle), "", 1},
		{"another name", []resolver.TLSA{key(f.middle)},
			chainOf(issue(t, f.middle, server("mx.example.net")), f.middle), CertificateHostMismatch, 0},

		{"a server that is its own issuer", []resolver.TLSA{key(self)}, chainOf(self), "", 0},
		{"a server that is not, by key", []resolver.TLSA{key(f.leaf)}, chainOf(f.leaf, f.middle), CertificateNotTrusted, 0},
		{"a server that is not, sent twice", []resolver.TLSA{tlsa(2, 0, 1, f.leaf.Certificate)},
			chainOf(f.leaf, f.leaf), CertificateNotTrusted, 0},
		{"a server that is not, in full", []resolver.TLSA{tlsa(2, 0, 0, f.leaf.Certificate)},
			chainOf(f.leaf), CertificateNotTrusted, 0},

		{"2 0 0 brings the issuer", []resolver.TLSA{tlsa(2, 0, 0, f.middle.Certificate)}, chainOf(f.leaf), "", -1},
		{"2 0 0 brings the root", []resolver.TLSA{tlsa(2, 0, 0, f.root.Certificate)}, chainOf(f.leaf, f.middle), "", -1},
		{"2 0 0 brings an expired one", []resolver.TLSA{tlsa(2, 0, 0, oldRoot.Certificate)},
			chainOf(issue(t, oldRoot, server("mx.example.com"))), CertificateExpired, 0},
		{"2 0 0 of a stranger", []resolver.TLSA{tlsa(2, 0, 0, f.stranger.Certificate)},
			chainOf(f.leaf, f.middle), CertificateNotTrusted, 0},
		{"2 1 0 brings the issuer's key", []resolver.TLSA{tlsa(2, 1, 0, f.middle.Certificate)}, chainOf(f.leaf), "", -1},
		{"2 1 0 brings the root's key", []resolver.TLSA{tlsa(2, 1, 0, f.root.Certificate)}, chainOf(f.leaf, f.middle), "", -1},
		{"2 1 0 is sent too", []resolver.TLSA{tlsa(2, 1, 0, f.root.Certificate)}, chainOf(f.leaf, f.middle, f.root), "", 2},
		{"2 1 0 of a stranger of the same name", []resolver.TLSA{tlsa(2, 1, 0, f.stranger.Certificate)},
			chainOf(f.leaf, f.middle), CertificateNotTrusted, 0},
		{"2 1 0 but another name", []resolver.TLSA{tlsa(2, 1, 0, f.middle.Certificate)},
			chainOf(issue(t, f.middle, server("mx.example.net"))), CertificateHostMismatch, 0},
		{"2 1 0 but expired", []resolver.TLSA{tlsa(2, 1, 0, f.middle.Certificate)},
			chainOf(issue(t, f.middle, server("mx.example.com"), lastYear)), CertificateExpired, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			check(t, policyOf(test.records...), test.sent, test.failure, Match{test.records[0], test.depth, "mx.example.com"})
		})
	}
}

// Whatever is sent beside the server's certificate, in whatever order: an issuer counts exactly if it is the
// issuer of the chain, and it and all that is between are at hand.
func TestVerifyEveryChain(t *testing.T) {
	f := newFixture(t)
	others := chainOf(f.middle, f.root, f.stranger, issue(t, f.stranger, authority("Middle")))
	arrangements(others, func(sent []*x509.Certificate) {
		chain := append(chainOf(f.leaf), sent...)
		middle, root := slices.Index(sent, f.middle.Certificate), slices.Index(sent, f.root.Certificate)
		for selector := range uint8(2) {
			for matching := range uint8(3) {
				for _, issuer := range append(chainOf(f.leaf), others...) {
					r := tlsa(2, selector, matching, issuer)
					depth, ok := 0, false
					switch issuer {
					case f.middle.Certificate:
						depth, ok = middle+1, middle >= 0 || matching == 0
					case f.root.Certificate:
						depth, ok = root+1, middle >= 0 && (root >= 0 || matching == 0)
					}
					if depth == 0 {
						depth = -1
					}
					match, err := policyOf(r).Verify(chain, now)
					if (err == nil) != ok || ok && match.Depth != depth {
						t.Fatalf("%s of %v in %d certificates: %+v, %v; want %v at %d",
							parameters(r), issuer.Subject, len(chain), match, err, ok, depth)
					}
				}
			}
		}
	})
}

// arrangements calls f with each choice of the certificates in each order.
func arrangements(from []*x509.Certificate, f func([]*x509.Certificate)) {
	var extend func(chosen, rest []*x509.Certificate)
	extend = func(chosen, rest []*x509.Certificate) {
		f(chosen)
		for i, cert := range rest {
			extend(append(slices.Clone(chosen), cert), slices.Delete(slices.Clone(rest), i, i+1))
		}
	}
	extend(nil, from)
}

// One record that is right is enough, wherever it is, and whatever the others are.
func TestVerifyRotation(t *testing.T) {
	f := newFixture(t)
	chain := chainOf(f.leaf, f.middle)
	others := []resolver.TLSA{
		tlsa(3, 1, 1, f.stranger.Certificate),
		tlsa(2, 1, 1, f.stranger.Certificate),
		tlsa(2, 0, 0, f.stranger.Certificate),
		tlsa(2, 1, 0, f.stranger.Certificate),
		{Usage: 3, Selector: 1, MatchingType: 1},
		{Usage: 2, Selector: 1, MatchingType: 0, Data: []byte("no key")},
		{Usage: 2, Selector: 0, MatchingType: 0, Data: []byte("no certificate")},
	}
	check(t, policyOf(others...), chain, CertificateNotTrusted, Match{})
	for _, right := range []Match{
		{tlsa(3, 1, 1, f.leaf.Certificate), 0, ""},
		{tlsa(2, 1, 1, f.middle.Certificate), 1, "mx.example.com"},
		{tlsa(2, 1, 0, f.root.Certificate), -1, "mx.example.com"},
	} {
		for at := range len(others) + 1 {
			records := append(append(append([]resolver.TLSA(nil), others[:at]...), right.Record), others[at:]...)
			check(t, policyOf(records...), chain, "", right)
		}
	}
}

// An issuer that was given a new certificate for its old key still is what 2 1 1 names.
func TestVerifyCrossSigned(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := issueFor(t, key, nil, authority("Root"))
	other := issue(t, nil, authority("Other root"))
	crossed := issueFor(t, key, other, authority("Root"))
	leaf := issue(t, root, server("mx.example.com"))
	r := tlsa(2, 1, 2, root.Certificate)
	check(t, policyOf(r), chainOf(leaf, crossed), "", Match{r, 1, "mx.example.com"})
	check(t, policyOf(r), chainOf(leaf, crossed, other), "", Match{r, 1, "mx.example.com"})
	r = tlsa(2, 0, 2, root.Certificate) // names one certificate of the two
	check(t, policyOf(r), chainOf(leaf, crossed), CertificateNotTrusted, Match{})
}

func TestVerifyWithoutCertificates(t *testing.T) {
	f := newFixture(t)
	check(t, policyOf(tlsa(3, 1, 1, f.leaf.Certificate)), nil, ValidationFailure, Match{})
	check(t, policyOf(resolver.TLSA{Usage: 3}, resolver.TLSA{Usage: 2}, resolver.TLSA{Usage: 3, Selector: 1}),
		[]*x509.Certificate{{}}, CertificateNotTrusted, Match{})
}

// What stands behind more certificates than anybody needs is not looked for.
func TestVerifyLongChain(t *testing.T) {
	f := newFixture(t)
	chain := chainOf(f.leaf)
	for len(chain) < maxChain-1 {
		chain = append(chain, f.stranger.Certificate)
	}
	r := tlsa(2, 1, 1, f.middle.Certificate)
	check(t, policyOf(r), append(chain, f.middle.Certificate), "", Match{r, maxChain - 1, "mx.example.com"})
	check(t, policyOf(r), append(chain, f.stranger.Certificate, f.middle.Certificate), CertificateNotTrusted, Match{})
}

// Only OK and Unusable ever accept anything; a policy that nobody found does not.
func TestVerifyByStatus(t *testing.T) {
	f := newFixture(t)
	for status := Status(-1); status <= OK+1; status++ {
		p := policyOf(tlsa(3, 1, 1, f.leaf.Certificate))
		p.Status = status
		match, err := p.Verify(chainOf(f.leaf), now)
		switch {
		case status == OK:
			if err != nil || match.Record.Usage != 3 {
				t.Errorf("%v: %+v, %v", status, match, err)
			}
		case status == Unusable:
			if err != nil || match.Record.Data != nil {
				t.Errorf("%v: %+v, %v", status, match, err)
			}
		case err == nil:
			t.Errorf("%v accepts a certificate", status)
		}
	}
	if _, err := new(Policy).Verify(chainOf(f.leaf), now); err == nil {
		t.Error("the zero policy accepts a certificate")
	}
	if _, err := (&Policy{Status: OK}).Verify(chainOf(f.leaf), now); err == nil {
		t.Error("a policy without records accepts a certificate")
	}
}

// handshake does one over TLS and returns what both sides say.
func handshake(t *testing.T, config *tls.Config, cert tls.Certificate) (sni string, err error) {
	t.Helper()
	client, peer := smtptest.Pipe()
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer peer.Close()
		s := tls.Server(peer, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			sni = h.ServerName
			return &cert, nil
		}})
		if s.Handshake() == nil {
			s.Write([]byte("x"))
		}
	}()
	c := tls.Client(client, config)
	if err = c.Handshake(); err == nil {
		c.Read(make([]byte, 1))
	}
	client.Close()
	<-done
	return sni, err
}

func TestApply(t *testing.T) {
	f := newFixture(t)
	cert := tls.Certificate{Certificate: [][]byte{f.leaf.Raw, f.middle.Raw}, PrivateKey: f.leaf.key}
	later := errors.New("the function that was there before")
	for _, test := range []struct {
		name   string
		policy *Policy
		next   error
		want   string // failure type, or "ok" or "public" or "next"
	}{
		{"EE", policyOf(tlsa(3, 1, 1, f.leaf.Certificate)), nil, "ok"},
		{"TA", policyOf(tlsa(2, 1, 1, f.middle.Certificate)), nil, "ok"},
		{"mismatch", policyOf(tlsa(3, 1, 1, f.stranger.Certificate)), later, CertificateNotTrusted},
		{"unusable", &Policy{Status: Unusable, Base: "mx.example.com"}, nil, "ok"},
		{"zero", &Policy{}, nil, ValidationFailure},
		{"none", &Policy{Status: None}, nil, "public"},
		{"not applicable", &Policy{Status: NotApplicable}, nil, "public"},
		{"insecure", &Policy{Status: InsecureChain}, nil, "public"},
		{"another check follows", policyOf(tlsa(3, 1, 1, f.leaf.Certificate)), later, "next"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := &tls.Config{ServerName: "other.example", RootCAs: x509.NewCertPool()}
			if test.next != nil {
				config.VerifyConnection = func(tls.ConnectionState) error { return test.next }
			}
			test.policy.Apply(config, func() time.Time { return now })
			sni, err := handshake(t, config, cert)
			switch test.want {
			case "ok":
				if err != nil || sni != "mx.example.com" {
					t.Fatalf("SNI %q, %v", sni, err)
				}
			case "next":
				if !errors.Is(err, later) {
					t.Fatal(err)
				}
			case "public":
				if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || sni != "other.example" {
					t.Fatalf("SNI %q, %v; want the verification that was there", sni, err)
				}
			default:
				refused, ok := errors.AsType[*VerifyError](err)
				if !ok || refused.FailureType() != test.want {
					t.Fatal(err)
				}
			}
		})
	}
}

// Without a clock it is the present: a certificate of the past is of the past.
func TestApplyClock(t *testing.T) {
	long := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.AddDate(-10, 0, 0), now.AddDate(50, 0, 0) }
	ca := issue(t, nil, authority("Root"), long)
	old := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.AddDate(-10, 0, 0), now.AddDate(-9, 0, 0) }
	for name, leaf := range map[string]*identity{
		"":                 issue(t, ca, server("mx.example.com"), long),
		CertificateExpired: issue(t, ca, server("mx.example.com"), old),
	} {
		config := &tls.Config{}
		policyOf(tlsa(2, 0, 1, ca.Certificate)).Apply(config, nil)
		_, err := handshake(t, config, tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: leaf.key})
		if refused, ok := errors.AsType[*VerifyError](err); (err == nil) != (name == "") || ok && refused.FailureType() != name {
			t.Errorf("want %q: %v", name, err)
		}
	}
}
