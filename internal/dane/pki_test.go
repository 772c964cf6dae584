package dane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// now is when the tests' certificates are looked at, unless a test says otherwise.
var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// identity is a certificate and its key.
type identity struct {
	*x509.Certificate
	key crypto.Signer
}

// issue makes a certificate with a new key, signed by the issuer or, if that is nil, by itself. The
// changes are made to a certificate that is valid for a year around now.
func issue(t testing.TB, issuer *identity, change ...func(*x509.Certificate)) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, key, issuer, change...)
}

func issueFor(t testing.TB, key crypto.Signer, issuer *identity, change ...func(*x509.Certificate)) *identity {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             now.AddDate(0, -6, 0),
		NotAfter:              now.AddDate(0, 6, 0),
		BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	by := &identity{template, key}
	if issuer != nil {
		by = issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{cert, key}
}

func authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA = true
		c.KeyUsage = x509.KeyUsageCertSign
	}
}

func server(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{Organization: []string{"Example"}}
		c.DNSNames = names
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
}

func commonName(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
}

func lastYear(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0)
}

func nextYear(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = now.AddDate(1, 0, 0), now.AddDate(2, 0, 0)
}

// tlsa is the record of those numbers that describes the certificate.
func tlsa(usage, selector, matching uint8, cert *x509.Certificate) resolver.TLSA {
	data := cert.Raw
	if selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return resolver.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
}

func chainOf(identities ...*identity) []*x509.Certificate {
	var chain []*x509.Certificate
	for _, i := range identities {
		chain = append(chain, i.Certificate)
	}
	return chain
}

// fixture is the chain that most tests use: a server below an intermediate below a root.
type fixture struct{ root, middle, leaf, stranger *identity }

func newFixture(t testing.TB) fixture {
	root := issue(t, nil, authority("Root"))
	middle := issue(t, root, authority("Middle"))
	return fixture{
		root:     root,
		middle:   middle,
		leaf:     issue(t, middle, server("mx.example.com")),
		stranger: issue(t, nil, authority("Root")),
	}
}

// fixedKey is a key that is the same in every process, for fuzzing.
func fixedKey(seed byte) ed25519.PrivateKey {
	s := make([]byte, ed25519.SeedSize)
	s[0] = seed
	return ed25519.NewKeyFromSeed(s)
}

func policyOf(records ...resolver.TLSA) *Policy {
	return &Policy{Status: OK, Records: records, Base: "mx.example.com", Names: []string{"mx.example.com", "example.com"}}
}
