package dane

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// Each usage, selector and matching type, with data of every length that a digest may be mistaken for.
func TestUsableDigests(t *testing.T) {
	for usage := range 256 {
		for _, selector := range []uint8{0, 1, 2, 3, 255} {
			for _, matching := range []uint8{1, 2, 3, 4, 255} {
				for _, length := range []int{0, 1, 3, 20, 31, 32, 33, 48, 63, 64, 65, 4096} {
					r := resolver.TLSA{Usage: uint8(usage), Selector: selector, MatchingType: matching, Data: make([]byte, length)}
					want := (usage == 2 || usage == 3) && selector <= 1 && (matching == 1 && length == 32 || matching == 2 && length == 64)
					usable, err := Usable([]resolver.TLSA{r})
					if (len(usable) == 1) != want || (err == nil) != want {
						t.Fatalf("%s with %d bytes: %v, %v", parameters(r), length, usable, err)
					}
					if _, ok := errors.AsType[*RecordError](err); !want && !ok {
						t.Fatalf("%s with %d bytes: not a RecordError: %v", parameters(r), length, err)
					}
				}
			}
		}
	}
}

// What is in full must be what its selector says, and no more and no less than that.
func TestUsableFull(t *testing.T) {
	f := newFixture(t)
	cert, key := f.root.Raw, f.root.RawSubjectPublicKeyInfo
	foreign := []byte{0x30, 0x0e, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x71, 0x03, 0x05, 0, 1, 2, 3, 4} // of an unknown algorithm
	for _, test := range []struct {
		name string
		data []byte
		cert bool
		key  bool
	}{
		{name: "a certificate", data: cert, cert: true},
		{name: "a key", data: key, key: true},
		{name: "a key of another algorithm", data: foreign, key: true},
		{name: "nothing"},
		{name: "one byte", data: []byte{0x30}},
		{name: "three bytes", data: []byte{0x30, 0x82, 0xff}},
		{name: "an empty sequence", data: []byte{0x30, 0}},
		{name: "a length beyond the end", data: []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0}},
		{name: "an endless length", data: []byte{0x30, 0x80, 0, 0}},
		{name: "half a certificate", data: cert[:len(cert)/2]},
		{name: "half a key", data: key[:len(key)/2]},
		{name: "a certificate and a byte", data: append(bytes.Clone(cert), 0)},
		{name: "a key and a byte", data: append(bytes.Clone(key), 0)},
		{name: "two certificates", data: append(bytes.Clone(cert), cert...)},
		{name: "a digest", data: make([]byte, 32)},
		{name: "text", data: []byte("-----BEGIN CERTIFICATE-----")},
		{name: "zeros", data: make([]byte, 65535)},
	} {
		for usage := range uint8(5) {
			for selector := range uint8(3) {
				r := resolver.TLSA{Usage: usage, Selector: selector, Data: test.data}
				want := (usage == 2 || usage == 3) && (selector == 0 && test.cert || selector == 1 && test.key)
				usable, err := Usable([]resolver.TLSA{r})
				if (len(usable) == 1) != want || (err == nil) != want {
					t.Errorf("%s as %s: %d usable, %v", test.name, parameters(r), len(usable), err)
				}
			}
		}
	}
}

func TestUsableAgility(t *testing.T) {
	f := newFixture(t)
	ee := func(selector, matching uint8) resolver.TLSA { return tlsa(3, selector, matching, f.leaf.Certificate) }
	ta := func(selector, matching uint8) resolver.TLSA { return tlsa(2, selector, matching, f.root.Certificate) }
	broken := resolver.TLSA{Usage: 3, Selector: 1, MatchingType: 2, Data: make([]byte, 63)}
	future := resolver.TLSA{Usage: 3, Selector: 1, MatchingType: 3, Data: make([]byte, 64)}
	for _, test := range []struct {
		name          string
		records, want []resolver.TLSA
	}{
		{"none", nil, nil},
		{"one", []resolver.TLSA{ee(1, 1)}, []resolver.TLSA{ee(1, 1)}},
		{"two of a strength", []resolver.TLSA{ee(1, 1), tlsa(3, 1, 1, f.stranger.Certificate)},
			[]resolver.TLSA{ee(1, 1), tlsa(3, 1, 1, f.stranger.Certificate)}},
		{"the weaker first", []resolver.TLSA{ee(1, 1), ee(1, 2)}, []resolver.TLSA{ee(1, 2)}},
		{"the weaker last", []resolver.TLSA{ee(1, 2), ee(1, 1)}, []resolver.TLSA{ee(1, 2)}},
		{"one selector is not the other", []resolver.TLSA{ee(0, 1), ee(1, 2)}, []resolver.TLSA{ee(0, 1), ee(1, 2)}},
		{"one usage is not the other", []resolver.TLSA{ta(1, 1), ee(1, 2)}, []resolver.TLSA{ta(1, 1), ee(1, 2)}},
		{"in full stays", []resolver.TLSA{ee(1, 1), ee(1, 0), ee(1, 2), ta(0, 0)}, []resolver.TLSA{ee(1, 0), ee(1, 2), ta(0, 0)}},
		{"in full is no digest", []resolver.TLSA{ee(1, 0), ee(1, 1)}, []resolver.TLSA{ee(1, 0), ee(1, 1)}},
		{"a broken one has no say", []resolver.TLSA{broken, ee(1, 1)}, []resolver.TLSA{ee(1, 1)}},
		{"an unknown one has no say", []resolver.TLSA{future, ee(1, 1)}, []resolver.TLSA{ee(1, 1)}},
		{"a public authority has no say", []resolver.TLSA{tlsa(1, 1, 2, f.leaf.Certificate), ee(1, 1)}, []resolver.TLSA{ee(1, 1)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			given := slices.Clone(test.records)
			usable, _ := Usable(test.records)
			if !slices.EqualFunc(usable, test.want, sameRecord) {
				t.Errorf("%v, want %v", usable, test.want)
			}
			if !slices.EqualFunc(test.records, given, sameRecord) {
				t.Error("the resolver's records were written to")
			}
		})
	}
}

// A stronger digest that does not match is not made good by a weaker one that does (RFC 7671 section 9).
func TestAgilityDecides(t *testing.T) {
	f := newFixture(t)
	usable, _ := Usable([]resolver.TLSA{tlsa(3, 1, 1, f.leaf.Certificate), tlsa(3, 1, 2, f.stranger.Certificate)})
	check(t, policyOf(usable...), chainOf(f.leaf), CertificateNotTrusted, Match{})
	usable, _ = Usable([]resolver.TLSA{tlsa(3, 1, 1, f.stranger.Certificate), tlsa(3, 1, 2, f.leaf.Certificate)})
	check(t, policyOf(usable...), chainOf(f.leaf), "", Match{Record: tlsa(3, 1, 2, f.leaf.Certificate)})
}

// However many records there are, the usable ones among them count, up to a number; and an error stays
// readable.
func TestUsableMany(t *testing.T) {
	f := newFixture(t)
	right := tlsa(3, 1, 1, f.leaf.Certificate)
	var records []resolver.TLSA
	for i := range 2000 {
		records = append(records, resolver.TLSA{Usage: uint8(i), Data: []byte{1}})
	}
	if usable, err := Usable(records); len(usable) > 0 || len(err.Error()) > 1000 {
		t.Errorf("%d usable; %v", len(usable), err)
	}
	if usable, _ := Usable(append(records, right)); len(usable) != 1 || !sameRecord(usable[0], right) {
		t.Errorf("%d usable", len(usable))
	}
	records = records[:0]
	for i := range 2000 {
		records = append(records, resolver.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Data: fmt.Appendf(nil, "%032d", i)})
	}
	if usable, _ := Usable(records); !slices.EqualFunc(usable, records[:maxRecords], sameRecord) {
		t.Errorf("%d usable", len(usable))
	}
}

func sameRecord(a, b resolver.TLSA) bool {
	return a.Usage == b.Usage && a.Selector == b.Selector && a.MatchingType == b.MatchingType && bytes.Equal(a.Data, b.Data)
}
