package dane

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// maxChain is how many of the certificates that a server sends are looked at. Chains have two to four.
const maxChain = 32

var (
	errNoPolicy      = errors.New("there are no records to match")
	errNoCertificate = errors.New("the server sent no certificate")
	errNoMatch       = errors.New("no TLSA record matches")
)

// Match is why a certificate was accepted. The zero value goes with [Unusable]: nobody was authenticated.
type Match struct {
	// Record is the one that matched.
	Record resolver.TLSA
	// Depth is the place, in the chain that the server sent, of the certificate that the record matched: 0
	// is the server's own. Negative: the record itself brought the issuer's certificate or key.
	Depth int
	// Name is the reference identifier that the certificate carries; empty where names do not count.
	Name string
}

// VerifyError is why a certificate was refused.
type VerifyError struct {
	Base string // the TLSA base domain
	Err  error

	failure string
}

func (e *VerifyError) Error() string { return fmt.Sprintf("DANE of %q: %v", e.Base, e.Err) }

func (e *VerifyError) Unwrap() error { return e.Err }

// FailureType is the result type of RFC 8460 section 4.3.
func (e *VerifyError) FailureType() string { return e.failure }

func (p *Policy) refuse(failure string, err error) (Match, error) {
	return Match{}, &VerifyError{Base: p.Base, Err: err, failure: failure}
}

// Verify tells whether the certificates that a server sent, its own first, meet the policy at the time
// now. Under [Unusable] all do. Under a policy that has no records to match none does: it is for the caller
// not to ask. Errors are a [*VerifyError].
//
// The proof that the server has the key of its certificate is the handshake's.
func (p *Policy) Verify(chain []*x509.Certificate, now time.Time) (Match, error) {
	switch {
	case p.Status == Unusable:
		return Match{}, nil
	case p.Status != OK:
		return p.refuse(ValidationFailure, errNoPolicy)
	case len(chain) == 0:
		return p.refuse(ValidationFailure, errNoCertificate)
	}
	// DANE-EE(3) says all there is to say about the server's certificate: its names, its dates and its
	// usages do not count (RFC 7672 section 3.1.1).
	for _, r := range p.Records {
		if r.Usage == usageEE && matches(r, chain[0]) {
			return Match{Record: r}, nil
		}
	}
	return p.verifyTA(chain[:min(len(chain), maxChain)], now)
}

// verifyTA looks for a chain from the server's certificate to an issuer that a DANE-TA(2) record names,
// valid as any chain must be (RFC 5280 section 6), and for a name (RFC 7672 section 3.1.2).
func (p *Policy) verifyTA(chain []*x509.Certificate, now time.Time) (Match, error) {
	leaf := chain[0]
	anchors := p.anchors(chain)
	if len(anchors) == 0 {
		key := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
		return p.refuse(CertificateNotTrusted, fmt.Errorf("%w: the SHA2-256 of the server's key is %x", errNoMatch, key))
	}
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range anchors {
		roots.AddCert(a.cert)
	}
	for _, cert := range chain[1:] {
		others.AddCert(cert)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: others,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		// An issuer's dates count too: RFC 7671 section 5.1 lets them go for DANE-EE(3) alone.
		invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
		if ok && invalid.Reason == x509.Expired {
			return p.refuse(CertificateExpired, err)
		}
		return p.refuse(CertificateNotTrusted, err)
	}
	for _, path := range paths {
		if name := p.covered(path); name != "" {
			a := anchors[slices.IndexFunc(anchors, func(a anchor) bool { return a.cert.Equal(path[len(path)-1]) })]
			return Match{Record: a.record, Depth: a.depth, Name: name}, nil
		}
	}
	return p.refuse(CertificateHostMismatch, fmt.Errorf("the certificate is for %s, not for any of %q", subjects(leaf), p.Names))
}

// anchor is an issuer that a record names.
type anchor struct {
	cert   *x509.Certificate
	record resolver.TLSA
	depth  int
}

// anchors returns the issuers among the certificates that the server sent and in the records themselves. A
// server that has DANE-TA(2) records must send its issuer (RFC 7671 section 5.2.2), but for those that have
// it in full.
func (p *Policy) anchors(chain []*x509.Certificate) []anchor {
	var anchors []anchor
	for _, r := range p.Records {
		if r.Usage != usageTA {
			continue
		}
		sent := false
		for depth, cert := range chain {
			if !matches(r, cert) {
				continue
			}
			sent = true
			if depth > 0 && !cert.Equal(chain[0]) || selfSigned(cert) {
				anchors = append(anchors, anchor{cert, r, depth})
			}
		}
		if !sent && r.MatchingType == matchFull {
			anchors = append(anchors, carried(r, chain)...)
		}
	}
	return anchors
}

// selfSigned tells whether a certificate is its own issuer. Only then may the server's be its own trust
// anchor: DANE-TA(2) names an issuer, and for a certificate from somebody else there is DANE-EE(3).
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawSubject, cert.RawIssuer) &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// carried returns the issuer that the record itself has in full (RFC 7671 sections 5.2.2 and 5.2.3). A bare
// key has no name and no dates. It stands for whatever issuers the certificates name: whether it signed one
// of them is for their signatures to tell.
func carried(r resolver.TLSA, chain []*x509.Certificate) []anchor {
	if r.Selector == selectCertificate {
		cert, err := x509.ParseCertificate(r.Data)
		if err != nil {
			return nil
		}
		return []anchor{{cert, r, -1}}
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil
	}
	var anchors []anchor
	for _, cert := range chain {
		anchors = append(anchors, anchor{bareKey(key, r.Data, cert.RawIssuer), r, -1})
	}
	return anchors
}

// bareKey is a key as a certificate authority of that name, in the form that the building of chains takes.
// What it has for Raw only tells it from others.
func bareKey(key any, spki, name []byte) *x509.Certificate {
	algorithm := x509.UnknownPublicKeyAlgorithm // signs nothing
	switch key.(type) {
	case *rsa.PublicKey:
		algorithm = x509.RSA
	case *ecdsa.PublicKey:
		algorithm = x509.ECDSA
	case ed25519.PublicKey:
		algorithm = x509.Ed25519
	}
	return &x509.Certificate{
		Raw:                     slices.Concat(spki, name),
		RawSubject:              name,
		RawSubjectPublicKeyInfo: spki,
		PublicKey:               key,
		PublicKeyAlgorithm:      algorithm,
		Version:                 3,
		BasicConstraintsValid:   true,
		IsCA:                    true,
		MaxPathLen:              -1,
		NotAfter:                time.Unix(1<<40, 0),
	}
}
