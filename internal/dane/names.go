package dane

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"

	"github.com/mtadelivery/delivery/internal/address"
)

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// covered returns the first reference identifier that the certificate at the beginning of the path
// carries; empty if it carries none. The common name counts only if there is no DNS name (RFC 7672 section
// 3.2.3), and if no issuer on the path is bound to names: the path was checked for the DNS names alone.
func (p *Policy) covered(path []*x509.Certificate) string {
	presented := path[0].DNSNames
	if len(presented) == 0 && !constrained(path) {
		presented = []string{path[0].Subject.CommonName}
	}
	for _, reference := range p.Names {
		for _, name := range presented {
			if nameMatches(name, reference) {
				return reference
			}
		}
	}
	return ""
}

func constrained(path []*x509.Certificate) bool {
	for _, cert := range path {
		for _, extension := range cert.Extensions {
			if extension.Id.Equal(oidNameConstraints) {
				return true
			}
		}
	}
	return false
}

// nameMatches compares a name of a certificate with one that is wanted. A wildcard is the whole first label,
// and stands for one label (RFC 7672 section 3.2.3).
func nameMatches(presented, reference string) bool {
	if domain, wild := strings.CutPrefix(presented, "*."); wild {
		label, rest, _ := strings.Cut(reference, ".")
		return label != "" && address.SameName(domain, rest)
	}
	return address.SameName(presented, reference)
}

// subjects are the names of a certificate, for an error.
func subjects(cert *x509.Certificate) string {
	const most = 8
	switch n := len(cert.DNSNames); {
	case n == 0:
		return fmt.Sprintf("CN %.253q", cert.Subject.CommonName)
	case n > most:
		return fmt.Sprintf("%.253q and %d others", cert.DNSNames[:most], n-most)
	}
	return fmt.Sprintf("%.253q", cert.DNSNames)
}
