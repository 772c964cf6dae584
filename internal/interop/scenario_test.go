//go:build interop && linux

package interop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// outcome is what becomes of a message.
type outcome string

const (
	verifiedByDANE outcome = "delivered over TLS with a certificate that DANE vouches for"
	notVerified    outcome = "delivered over TLS, whatever the certificate"
	deferred       outcome = "deferred, and nothing of the message said, with TLS or without"
	asEnableTLS    outcome = "what enable_tls says, as if there were no DANE"
)

// scenario is a domain whose mail goes to one server by way of DNSSEC and DANE.
type scenario struct {
	name    string
	domain  string    // of the recipient
	host    string    // that its mail goes to, as MX calls it
	server  *mailHost // that is there
	facts   []fact    // of the DNS, from the domain to the TLSA records that count
	usable  int       // of these records
	matches int       // of the usable ones: how many name a certificate that the server sends
	outcome outcome

	// What there has to be for that: records of the three zones, what is wrong with those of signed.test,
	// and a zone below it that nobody knows.
	signed, plain, insecure string
	flaws                   map[string]flaw
	lame                    string
}

// fact is what the resolver is to answer to a question, in the words of describe. More than one is said
// where versions of the resolver differ.
type fact struct {
	name string
	typ  resolver.Type
	want []string
}

func known(name string, typ resolver.Type, want ...string) fact { return fact{name, typ, want} }

// describe puts an answer into words: "Records secure at NAME: CONTENT, CONTENT", where the name is said if
// it is not the one that was asked for.
func describe(asked string, typ resolver.Type, a resolver.Answer) string {
	var content []string
	switch typ {
	case resolver.TypeMX:
		for _, mx := range a.MX {
			content = append(content, fmt.Sprint(mx.Preference, " ", mx.Host))
		}
	case resolver.TypeA, resolver.TypeAAAA:
		for _, addr := range a.Addrs {
			content = append(content, addr.String())
		}
	case resolver.TypeTLSA:
		for _, r := range a.TLSA {
			content = append(content, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data))
		}
	case resolver.TypeTXT:
		content = append(content, a.TXT...)
	case resolver.TypeCNAME:
		if a.CNAME != "" {
			content = append(content, a.CNAME)
		}
	}
	slices.Sort(content)
	text := a.Result.String()
	text += secure(a.Secure)
	if a.Name != strings.TrimSuffix(strings.ToLower(asked), ".") {
		text += " at " + a.Name
	}
	if content != nil {
		text += ": " + strings.Join(content, ", ")
	}
	return text
}

// stage writes scenarios.
type stage struct {
	port int
	all  []*scenario
}

// owner is where the TLSA records of a host are (RFC 6698 section 3).
func (s *stage) owner(host string) string { return fmt.Sprintf("_%d._tcp.%s", s.port, host) }

// records are TLSA records of a host, in a zone.
func (s *stage) records(host string, tlsa ...string) string {
	var b strings.Builder
	for _, r := range tlsa {
		fmt.Fprintf(&b, "%s TLSA %s\n", s.owner(host), r)
	}
	return b.String()
}

// add adds a scenario in signed.test, where nothing is wrong: LABEL has the MX mx-LABEL, which has the
// address of a server, and these TLSA records, so many of which are usable, and match.
func (s *stage) add(label, name string, server *mailHost, usable, matches int, want outcome, tlsa ...string) *scenario {
	mx := "mx-" + label
	sc := &scenario{
		name: name, server: server, usable: usable, matches: matches, outcome: want,
		domain: label + ".signed.test",
		host:   mx + ".signed.test",
		signed: label + " MX 10 " + mx + "\n" + mx + " A " + server.address + "\n" + s.records(mx, tlsa...),
	}
	sc.facts = []fact{
		known(sc.domain, resolver.TypeMX, "Records secure: 10 "+sc.host),
		known(sc.host, resolver.TypeA, "Records secure: "+server.address),
		s.tlsa(sc.host, true, tlsa...),
	}
	s.all = append(s.all, sc)
	return sc
}

// tlsa is the fact that a host has these TLSA records, or has none.
func (s *stage) tlsa(host string, isSecure bool, tlsa ...string) fact {
	want := "NXDomain" + secure(isSecure)
	if tlsa != nil {
		want = "Records" + secure(isSecure) + ": " + strings.Join(sorted(tlsa), ", ")
	}
	return known(s.owner(host), resolver.TypeTLSA, want)
}

// secure is what describe says of an answer that was validated, or was not.
func secure(is bool) string {
	if is {
		return " secure"
	}
	return ""
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }
