package dane_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/mtadelivery/delivery/internal/dane"
	"github.com/mtadelivery/delivery/internal/resolver"
)

// certificate is one that no authority has signed.
func certificate() *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func ExampleFind() {
	// In place of a resolver: a signed zone that has a TLSA record for mx.example.com.
	lookup := func(_ context.Context, name string, t resolver.Type) resolver.Answer {
		fmt.Println("asked for", t, name)
		return resolver.Answer{Result: resolver.Records, Secure: true, TLSA: []resolver.TLSA{
			{Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 32)},
		}}
	}
	policy := dane.Find(context.Background(), lookup, dane.Host{
		Name:      "mx.example.com",
		Port:      25,
		Secure:    true, // the MX records were
		Addresses: []resolver.Answer{{Result: resolver.Records, Secure: true, Name: "mx.example.com"}},
		NextHop:   "example.com",
	})
	fmt.Println(policy.Status, policy.Names)
	// Output:
	// asked for TLSA _25._tcp.mx.example.com
	// ok [mx.example.com example.com]
}

// A server that fails is not a server without records: its mail waits.
func ExampleFind_failure() {
	lookup := func(_ context.Context, name string, t resolver.Type) resolver.Answer {
		return resolver.Answer{Result: resolver.TempFail, Err: errors.New("SERVFAIL")}
	}
	policy := dane.Find(context.Background(), lookup, dane.Host{
		Name: "mx.example.com", Port: 25, Secure: true,
		Addresses: []resolver.Answer{{Result: resolver.Records, Secure: true, Name: "mx.example.com"}},
	})
	fmt.Println(policy.Status, policy.Status.Silent(), policy.FailureType())
	fmt.Println(policy.Err)
	// Output:
	// tempfail false dnssec-invalid
	// DANE of "mx.example.com": TempFail: SERVFAIL
}

func ExampleUsable() {
	usable, err := dane.Usable([]resolver.TLSA{
		{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1, 2, 3}},
		{Usage: 4, Selector: 1, MatchingType: 1, Data: make([]byte, 32)},
	})
	fmt.Println(len(usable))
	fmt.Println(err)
	// Output:
	// 0
	// TLSA 3 1 1: the digest has 3 bytes instead of 32
	// TLSA 4 1 1: unknown usage
}

func ExamplePolicy_Verify() {
	cert := certificate()
	digest := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	policy := &dane.Policy{
		Status:  dane.OK,
		Records: []resolver.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: digest[:]}},
		Base:    "mx.example.com",
		Names:   []string{"mx.example.com"},
	}
	match, err := policy.Verify([]*x509.Certificate{cert}, time.Now())
	fmt.Println(match.Record.Usage, match.Depth, err)

	_, err = policy.Verify([]*x509.Certificate{certificate()}, time.Now())
	refused, _ := errors.AsType[*dane.VerifyError](err)
	fmt.Println(refused.FailureType())
	// Output:
	// 3 0 <nil>
	// certificate-not-trusted
}

func ExamplePolicy_Apply() {
	policy := &dane.Policy{Status: dane.Unusable, Base: "mx.example.com"}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	policy.Apply(config, nil)
	fmt.Println(config.ServerName, config.VerifyConnection(tls.ConnectionState{}))
	// Output: mx.example.com <nil>
}
