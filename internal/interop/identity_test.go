//go:build interop && linux

package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// identity is what a server shows of itself in a TLS handshake.
type identity struct {
	key   *ecdsa.PrivateKey
	chain []*x509.Certificate // as it is sent: the server's own first
}

// identify issues a certificate for a server's names; change may spoil the template. Behind it the server
// sends the others.
func (a *authority) identify(names []string, change func(*x509.Certificate), others ...*x509.Certificate) (*identity, error) {
	template := validFor(names[0])
	template.DNSNames = names
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if change != nil {
		change(template)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer, signer := template, key // its own
	if a != nil {
		issuer, signer = a.certificate, a.key
	}
	leaf, err := newCertificate(template, issuer, key, signer)
	if err != nil {
		return nil, err
	}
	return &identity{key, append([]*x509.Certificate{leaf}, others...)}, nil
}

// delegate makes an authority that has its certificate from this one.
func (a *authority) delegate(name string) (*authority, error) {
	template := validFor(name + " test authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := newCertificate(template, a.certificate, key, a.key)
	return &authority{certificate: certificate, key: key}, err
}

func newCertificate(template, issuer *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// past makes a certificate one that was valid the day before yesterday.
func past(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-72*time.Hour), time.Now().Add(-48*time.Hour)
}

// pem is the key, and behind it the certificates.
func (id *identity) pem() (string, error) {
	var b bytes.Buffer
	key, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		return "", err
	}
	err = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, c := range id.chain {
		if err == nil {
			err = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
	}
	return b.String(), err
}

// tlsa is the content of a TLSA record for a certificate (RFC 6698 section 2.1): usage 2 is an authority
// (DANE-TA) and 3 the server itself (DANE-EE), selector 0 the certificate and 1 its key, matching 0 all of
// it, 1 its SHA-256 and 2 its SHA-512. Usages 0 and 1 are of no use for SMTP (RFC 7672 section 3.1.3).
func tlsa(usage, selector, matching uint8, c *x509.Certificate) string {
	data, err := dns.CertificateToDANE(selector, matching, c)
	if err != nil {
		panic(err) // only the tests' own literals come here
	}
	return fmt.Sprintf("%d %d %d %s", usage, selector, matching, data)
}
