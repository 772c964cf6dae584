//go:build interop && linux

package interop

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// The servers show what they are made to show, and each is as good as it is said to be.
func TestMailHosts(t *testing.T) {
	h := lab.hosts
	const name = "mx.signed.test"
	for _, test := range []struct {
		host    *mailHost
		version uint16
		failure string // of STARTTLS or the handshake
		invalid string // what is wrong with the certificate
	}{
		{host: h.trusted, version: tls.VersionTLS13},
		{host: h.chained, version: tls.VersionTLS13},
		{host: h.tls12, version: tls.VersionTLS12},
		{host: h.tls11, failure: "tls: "},
		{host: h.self, version: tls.VersionTLS13, invalid: "expired"},
		{host: h.expired, version: tls.VersionTLS13, invalid: "expired"},
		{host: h.misnamed, version: tls.VersionTLS13, invalid: "not " + name},
		{host: h.orphan, version: tls.VersionTLS13, invalid: "unknown authority"},
		{host: h.plain, failure: "does not offer STARTTLS"},
		{host: h.broken, failure: "454 "},
	} {
		t.Run(test.host.name, func(t *testing.T) {
			state, err := h.show(test.host)
			if test.failure != "" {
				if err == nil || !strings.Contains(err.Error(), test.failure) {
					t.Fatalf("got %v, want %q", err, test.failure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if state.Version != test.version {
				t.Errorf("%s, want %s", tls.VersionName(state.Version), tls.VersionName(test.version))
			}
			if !slices.EqualFunc(state.PeerCertificates, test.host.identity.chain, (*x509.Certificate).Equal) {
				t.Errorf("%d certificates, which are not the %d that it should send", len(state.PeerCertificates), len(test.host.identity.chain))
			}
			err = convinces(state.PeerCertificates, name)
			if (err == nil) != (test.invalid == "") || err != nil && !strings.Contains(err.Error(), test.invalid) {
				t.Errorf("the certificate: %v, want %q", err, test.invalid)
			}
		})
	}
}

// show is the TLS that a server has to show to anybody.
func (m *mailHosts) show(h *mailHost) (*tls.ConnectionState, error) {
	conn, err := net.Dial("tcp", m.at(h))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, h.address)
	if err != nil {
		return nil, err
	}
	if offered, _ := c.Extension("STARTTLS"); !offered {
		return nil, errors.New(h.name + " does not offer STARTTLS")
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		return nil, err
	}
	state, _ := c.TLSConnectionState()
	return &state, c.Quit()
}

// convinces says whether a server has a certificate of lab.trusted for a name.
func (m *mailHosts) convinces(h *mailHost, name string) bool {
	state, err := m.show(h)
	return err == nil && convinces(state.PeerCertificates, name) == nil
}

// convinces checks a chain as a client does that has lab.trusted for authority.
func convinces(chain []*x509.Certificate, name string) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(lab.trusted.certificate)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name})
	return err
}

// at is the address and the port of a server.
func (m *mailHosts) at(h *mailHost) string { return fmt.Sprintf("%s:%d", h.address, m.port) }

// In every scenario DNS says what it should, and the server shows a certificate that so many of the
// records match.
func TestScenarios(t *testing.T) {
	shown := map[*mailHost][]*x509.Certificate{}
	for _, h := range lab.hosts.all() {
		if state, err := lab.hosts.show(h); err == nil {
			shown[h] = state.PeerCertificates
		}
	}
	c := client(t, lab.names.unbound)
	for _, sc := range lab.scenarios {
		t.Run(sc.name, func(t *testing.T) {
			for _, f := range sc.facts {
				checkFact(t, c, f)
			}
			usable, matches := judge(sc.records(t, c), shown[sc.server])
			if usable != sc.usable || matches != sc.matches {
				t.Errorf("%d usable records, %d of which match; want %d and %d", usable, matches, sc.usable, sc.matches)
			}
			sc.check(t)
		})
	}
}

// records are the TLSA records that count for a server (RFC 7672 section 2.2): of the name that its own
// leads to, if all the way there is secure, or else of its own.
func (sc *scenario) records(t *testing.T, c *resolver.Client) []resolver.TLSA {
	if !c.Lookup(t.Context(), sc.domain, resolver.TypeMX).Secure {
		return nil
	}
	var bases []string
	address := c.Lookup(t.Context(), sc.host, resolver.TypeA)
	if address.Result != resolver.Records {
		return nil
	}
	if address.Secure {
		bases = append(bases, address.Name)
	}
	if address.Secure || c.Lookup(t.Context(), sc.host, resolver.TypeCNAME).Secure {
		bases = append(bases, sc.host)
	}
	for _, base := range bases {
		if a := c.Lookup(t.Context(), fmt.Sprintf("_%d._tcp.%s", lab.hosts.port, base), resolver.TypeTLSA); a.Secure && len(a.TLSA) > 0 {
			return a.TLSA
		}
	}
	return nil
}

// judge counts the records that are usable (RFC 7672 section 3.1), and those of them that name a certificate of a chain.
func judge(records []resolver.TLSA, chain []*x509.Certificate) (usable, matches int) {
	for _, r := range records {
		size, known := map[uint8]int{0: len(r.Data), 1: 32, 2: 64}[r.MatchingType]
		if r.Usage != 2 && r.Usage != 3 || r.Selector > 1 || !known || len(r.Data) != size {
			continue
		}
		usable++
		candidates := chain[:min(1, len(chain))]
		if r.Usage == 2 { // an authority has issued something
			candidates = chain[len(candidates):]
		}
		if slices.ContainsFunc(candidates, func(c *x509.Certificate) bool {
			return tlsa(r.Usage, r.Selector, r.MatchingType, c) == fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data)
		}) {
			matches++
		}
	}
	return usable, matches
}

// check says where a scenario contradicts itself.
func (sc *scenario) check(t *testing.T) {
	t.Helper()
	switch sc.outcome {
	case verifiedByDANE:
		if sc.matches == 0 {
			t.Error("no record matches, and it is to be verified")
		}
	case notVerified, asEnableTLS:
		if sc.usable > 0 {
			t.Error("there are records that count, and it is to be sent without them")
		}
	}
}
