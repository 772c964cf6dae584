package dane

import (
	"crypto/x509"
	"testing"
)

func TestNameMatches(t *testing.T) {
	for _, test := range []struct {
		presented, reference string
		want                 bool
	}{
		{"mx.example.com", "mx.example.com", true},
		{"MX.Example.COM", "mx.example.com", true},
		{"*.example.com", "mx.example.com", true},
		{"*.EXAMPLE.com", "mx.example.com", true},
		{"*.example.com", "xn--bcher-kva.example.com", true},
		{"*.example.com", "mx_1.example.com", true},
		{"mx_1.example.com", "mx_1.example.com", true},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", true},
		{"*.com", "example.com", true},

		{"mx.example.com", "mx2.example.com", false},
		{"example.com", "mx.example.com", false},
		{"*.example.com", "example.com", false},
		{"*.example.com", "a.mx.example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.mx.example.com", "mx.example.com", false},
		{"mx*.example.com", "mx1.example.com", false},
		{"*mx.example.com", "amx.example.com", false},
		{"m*.example.com", "mx.example.com", false},
		{"mx.*.com", "mx.example.com", false},
		{"*.*.com", "mx.example.com", false},
		{"*", "mx.example.com", false},
		{"*", "localhost", false},
		{"*.", "localhost", false},
		{"*.", "mx.", false},
		{"", "", false},
		{"", "mx.example.com", false},
		{"mx.example.com", "", false},
		{"mx.example.com.", "mx.example.com", false},
		{"mx.example.com\x00.net", "mx.example.com", false},
		{"bücher.example", "xn--bcher-kva.example", false},
		{"mx.\u212aexample.com", "mx.kexample.com", false}, // the Kelvin sign
		{"mx.\u017fexample.com", "mx.sexample.com", false}, // the long s
	} {
		if got := nameMatches(test.presented, test.reference); got != test.want {
			t.Errorf("%q for %q: %v", test.presented, test.reference, got)
		}
	}
}

func TestVerifyNames(t *testing.T) {
	root := issue(t, nil, authority("Root"))
	bound := issue(t, nil, authority("Bound"), func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical = true
		c.PermittedDNSDomains = []string{"example.net"}
	})
	names := []string{"mx.example.com", "example.com", "xn--bcher-kva.example"}
	for _, test := range []struct {
		name   string
		issuer *identity
		change []func(*x509.Certificate)
		want   string // the name matched; "" is a mismatch; "!" is a chain that is not trusted
	}{
		{"the base domain", root, []func(*x509.Certificate){server("mx.example.com")}, "mx.example.com"},
		{"the next hop", root, []func(*x509.Certificate){server("example.com")}, "example.com"},
		{"its expansion", root, []func(*x509.Certificate){server("XN--Bcher-kva.example")}, "xn--bcher-kva.example"},
		{"both", root, []func(*x509.Certificate){server("example.com", "mx.example.com")}, "mx.example.com"},
		{"a wildcard", root, []func(*x509.Certificate){server("*.example.com")}, "mx.example.com"},
		{"one of many", root, []func(*x509.Certificate){server("a.example", "b.example", "*.example.com")}, "mx.example.com"},
		{"none of many", root, []func(*x509.Certificate){
			server("1.example", "2.example", "3.example", "4.example", "5.example", "6.example", "7.example", "8.example", "9.example")}, ""},
		{"another", root, []func(*x509.Certificate){server("mx.example.net")}, ""},
		{"the common name", root, []func(*x509.Certificate){server(), commonName("mx.example.com")}, "mx.example.com"},
		{"a wildcard as the common name", root, []func(*x509.Certificate){server(), commonName("*.example.com")}, "mx.example.com"},
		{"the common name beside DNS names", root, []func(*x509.Certificate){server("mx.example.net"), commonName("mx.example.com")}, ""},
		{"another common name", root, []func(*x509.Certificate){server(), commonName("mx.example.net")}, ""},
		{"no name at all", root, []func(*x509.Certificate){server()}, ""},
		{"an issuer bound to other names", bound, []func(*x509.Certificate){server("mx.example.com")}, "!"},
		{"an issuer bound to other names, and the common name", bound,
			[]func(*x509.Certificate){server(), commonName("mx.example.com")}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := tlsa(2, 0, 1, test.issuer.Certificate)
			p := policyOf(r)
			p.Names = names
			failure := ""
			switch test.want {
			case "":
				failure = CertificateHostMismatch
			case "!":
				failure = CertificateNotTrusted
			}
			check(t, p, chainOf(issue(t, test.issuer, test.change...), test.issuer), failure, Match{r, 1, test.want})
		})
	}
	t.Run("no reference identifier", func(t *testing.T) {
		p := policyOf(tlsa(2, 0, 1, root.Certificate))
		p.Names = nil
		check(t, p, chainOf(issue(t, root, server()), root), CertificateHostMismatch, Match{})
	})
}
