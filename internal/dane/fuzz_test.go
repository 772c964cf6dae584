package dane

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// fixedFixture is a chain whose certificates are the same in every process: what the fuzzer has learned
// about them stays true.
func fixedFixture(t testing.TB) fixture {
	root := issueFor(t, fixedKey(1), nil, authority("Root"))
	middle := issueFor(t, fixedKey(2), root, authority("Middle"))
	return fixture{
		root:     root,
		middle:   middle,
		leaf:     issueFor(t, fixedKey(3), middle, server("mx.example.com")),
		stranger: issueFor(t, fixedKey(4), nil, authority("Root")),
	}
}

func seeds(f *testing.F, certs fixture) {
	for usage := range uint8(4) {
		for selector := range uint8(2) {
			for matching := range uint8(3) {
				for _, cert := range chainOf(certs.root, certs.middle, certs.leaf, certs.stranger) {
					f.Add(usage, selector, matching, tlsa(usage, selector, matching, cert).Data)
				}
			}
		}
	}
	f.Add(uint8(3), uint8(1), uint8(1), []byte{})
	f.Add(uint8(2), uint8(1), uint8(0), []byte{0x30, 0x82, 0xff})
	f.Add(uint8(255), uint8(255), uint8(255), []byte{0})
}

// A record is usable exactly if an oracle that knows nothing of tables says so, alone and among others, and
// whatever is usable is one of the records given.
func FuzzUsable(f *testing.F) {
	certs := fixedFixture(f)
	seeds(f, certs)
	right := tlsa(3, 0, 2, certs.leaf.Certificate)
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := resolver.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
		known := usage/2 == 1 && selector < 2
		switch {
		case matching == 1:
			known = known && len(data) == 32
		case matching == 2:
			known = known && len(data) == 64
		case matching == 0 && selector == 0:
			certs, err := x509.ParseCertificates(data)
			known = known && err == nil && len(certs) == 1
		case matching == 0:
			known = known && wellFormedKey(t, data, unfit(r) == "")
		default:
			known = false
		}
		usable, err := Usable([]resolver.TLSA{r})
		if (len(usable) == 1) != known || (err == nil) != known {
			t.Fatalf("%s: %d usable, want %v: %v", parameters(r), len(usable), known, err)
		}
		for _, records := range [][]resolver.TLSA{{r, right}, {right, r}} {
			usable, err := Usable(records)
			if err != nil || !slices.ContainsFunc(usable, func(u resolver.TLSA) bool { return sameRecord(u, right) }) {
				t.Fatalf("%s puts a good record aside: %v", parameters(r), err)
			}
			// Among others it counts as alone, but for digests that are weaker than another.
			weaker := usage == right.Usage && selector == right.Selector && matching == 1
			if (len(usable) == 2) != (known && !weaker) {
				t.Fatalf("%s: %d usable of two", parameters(r), len(usable))
			}
		}
	})
}

// wellFormedKey holds a verdict on a public key against two others: that of a stricter parser, which knows
// the algorithms, and that of the outer length alone.
func wellFormedKey(t *testing.T, data []byte, verdict bool) bool {
	if _, err := x509.ParsePKIXPublicKey(data); err == nil && !verdict {
		t.Fatalf("%x is a public key", data)
	}
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(data, &outer)
	if verdict && (err != nil || len(rest) > 0 || outer.Tag != asn1.TagSequence || !outer.IsCompound) {
		t.Fatalf("%x is no public key", data)
	}
	return verdict
}

// Whatever a record says, a chain is accepted exactly if the record describes the server's certificate, or
// the issuer of a link of the chain that was sent or that the record brings.
func FuzzVerify(f *testing.F) {
	certs := fixedFixture(f)
	seeds(f, certs)
	chain := chainOf(certs.leaf, certs.middle)
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := resolver.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
		p := policyOf(r)
		match, err := p.Verify(chain, now)
		must, may := false, false
		switch usage {
		case 3:
			must = describes(r, certs.leaf)
			may = must
		case 2:
			must = describes(r, certs.middle) || matching == 0 && describes(r, certs.root)
			may = must || matching == 0 && (carries(r, certs.root) || carries(r, certs.middle))
		}
		if err == nil && !may {
			t.Fatalf("%s %x is accepted: %+v", parameters(r), data, match)
		}
		if err != nil && must {
			t.Fatalf("%s %x is refused: %v", parameters(r), data, err)
		}
		if (err == nil) != sameRecord(match.Record, r) && usage != 0 {
			t.Fatalf("%v with the match %+v", err, match)
		}
		if err == nil && usage == 2 && match.Name != "mx.example.com" {
			t.Fatalf("accepted without a name: %+v", match)
		}
		// The names decide, whatever else matches.
		p.Names = []string{"mx.example.net"}
		if _, err := p.Verify(chain, now); usage == 2 && err == nil {
			t.Fatalf("%s %x is accepted for another name", parameters(r), data)
		}
		// And the proof is of the chain: with somebody else's, nothing of this is left.
		if _, err := policyOf(r).Verify(chainOf(certs.stranger), now); err == nil && !describes(r, certs.stranger) {
			t.Fatalf("%s %x accepts a stranger", parameters(r), data)
		}
	})
}

// describes compares by going through what RFC 6698 section 2.1 can mean, one after the other.
func describes(r resolver.TLSA, i *identity) bool {
	cert256, cert512 := sha256.Sum256(i.Raw), sha512.Sum512(i.Raw)
	key256, key512 := sha256.Sum256(i.RawSubjectPublicKeyInfo), sha512.Sum512(i.RawSubjectPublicKeyInfo)
	all := [2][3][]byte{
		{i.Raw, cert256[:], cert512[:]},
		{i.RawSubjectPublicKeyInfo, key256[:], key512[:]},
	}
	return r.Selector < 2 && r.MatchingType < 3 && bytes.Equal(all[r.Selector][r.MatchingType], r.Data)
}

// carries tells whether a record has the issuer's key in full, in whatever it is wrapped: an authority's
// own signature does not count, its key does.
func carries(r resolver.TLSA, i *identity) bool {
	return bytes.Contains(r.Data, i.key.Public().(ed25519.PublicKey))
}
