//go:build interop && linux

package interop

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// zone is a zone of the DNS, as a test writes it.
type zone struct {
	origin string // "signed.test."
	// records are in the notation of RFC 1035 section 5.1, relative to the origin; without a TTL they may
	// be kept for five minutes. SOA and NS of the zone itself need not be written.
	records string
	// key signs the zone; nil: nothing does.
	key *zoneKey
	// flaws are the RRsets that do not have the signature that they should: "name TYPE", with the name
	// as in records.
	flaws map[string]flaw
}

// flaw is what is wrong with a signature.
type flaw int

const (
	forged   flaw = iota + 1 // it belongs to other data
	outdated                 // it is no longer valid
	stripped                 // it is not there
)

// zoneKey is the only key of a zone, for keys and data alike.
type zoneKey struct {
	public  *dns.DNSKEY
	private crypto.Signer
}

func newZoneKey(origin string) (*zoneKey, error) {
	k := &zoneKey{public: &dns.DNSKEY{Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
		Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: zoneTTL}}}
	private, err := k.public.Generate(256)
	if err != nil {
		return nil, err
	}
	k.private = private.(crypto.Signer)
	return k, nil
}

// digest is the DS record of the key: a trust anchor, or what the zone above says of it.
func (k *zoneKey) digest() string { return k.public.ToDS(dns.SHA256).String() }

const zoneTTL = 300

// text is the whole zone with its keys, proofs of absence and signatures.
func (z *zone) text() (string, error) {
	sets, err := z.parse()
	if err != nil {
		return "", fmt.Errorf("zone %s: %w", z.origin, err)
	}
	if z.key != nil {
		sets.add(z.key.public)
		sets.deny(z.origin)
		if err := z.sign(sets); err != nil {
			return "", fmt.Errorf("zone %s: %w", z.origin, err)
		}
	}
	var b strings.Builder
	for _, owner := range sets.owners() {
		for _, typ := range slices.Sorted(maps.Keys(sets[owner])) {
			for _, rr := range sets[owner][typ] {
				fmt.Fprintln(&b, rr)
			}
		}
	}
	return b.String(), nil
}

// rrsets are records by owner and type. Signatures are kept beside each other as a type of their own.
type rrsets map[string]map[uint16][]dns.RR

func (s rrsets) add(rr dns.RR) {
	h := rr.Header()
	h.Name = dns.CanonicalName(h.Name)
	if s[h.Name] == nil {
		s[h.Name] = map[uint16][]dns.RR{}
	}
	s[h.Name][h.Rrtype] = append(s[h.Name][h.Rrtype], rr)
}

func (z *zone) parse() (rrsets, error) {
	const apex = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
	sets := rrsets{}
	parser := dns.NewZoneParser(strings.NewReader(apex+z.records), z.origin, "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		if !dns.IsSubDomain(z.origin, rr.Header().Name) {
			return nil, fmt.Errorf("%s belongs elsewhere", rr)
		}
		sets.add(rr)
	}
	return sets, parser.Err()
}

// owners are in the order of RFC 4034 section 6.1: by the labels, from the last one.
func (s rrsets) owners() []string {
	return slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
		slices.Reverse(x)
		slices.Reverse(y)
		return slices.Compare(x, y)
	})
}

// cut is the name of the zone below this one that an owner belongs to, if any; the name itself has a share
// in both.
func (s rrsets) cut(origin, owner string) string {
	for name := owner; name != origin; {
		i, _ := dns.NextLabel(name, 0)
		above := name[i:]
		if s[name][dns.TypeNS] != nil && s.cut(origin, above) == "" {
			return name
		}
		name = above
	}
	return ""
}

// deny makes the NSEC records (RFC 4034 section 4), a ring around all names of the zone.
func (s rrsets) deny(origin string) {
	owners := slices.DeleteFunc(s.owners(), func(owner string) bool {
		cut := s.cut(origin, owner)
		return cut != "" && cut != owner
	})
	for i, owner := range owners {
		types := []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		for typ := range s[owner] {
			if s.cut(origin, owner) == "" || typ == dns.TypeNS || typ == dns.TypeDS {
				types = append(types, typ)
			}
		}
		slices.Sort(types)
		s.add(&dns.NSEC{NextDomain: owners[(i+1)%len(owners)], TypeBitMap: types,
			Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}})
	}
}

// sign adds a signature for every RRset, but for those that belong to a zone below (RFC 4035 section
// 2.2), as the flaws allow.
func (z *zone) sign(s rrsets) error {
	flaws := map[string]flaw{}
	for set, f := range z.flaws {
		name, typ, _ := strings.Cut(set, " ")
		owner := dns.CanonicalName(name + "." + z.origin)
		if name == "@" {
			owner = z.origin
		}
		if s[owner][dns.StringToType[typ]] == nil {
			return fmt.Errorf("a flaw in %s, which is not there", set)
		}
		flaws[owner+" "+typ] = f
	}
	for _, owner := range s.owners() {
		cut := s.cut(z.origin, owner)
		for _, typ := range slices.Sorted(maps.Keys(s[owner])) {
			set := s[owner][typ]
			if cut != "" && (cut != owner || typ != dns.TypeDS && typ != dns.TypeNSEC) {
				continue
			}
			flaw := flaws[owner+" "+dns.TypeToString[typ]]
			if flaw == stripped {
				continue
			}
			signature, err := z.signature(set, flaw)
			if err != nil {
				return err
			}
			s.add(signature)
		}
	}
	return nil
}

// signature signs one RRset.
func (z *zone) signature(set []dns.RR, flaw flaw) (*dns.RRSIG, error) {
	end := time.Now().Add(24 * time.Hour)
	if flaw == outdated {
		end = end.AddDate(-1, 0, 0)
	}
	rr := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: set[0].Header().Ttl}, Algorithm: z.key.public.Algorithm,
		KeyTag: z.key.public.KeyTag(), SignerName: z.origin,
		Inception: uint32(end.AddDate(0, 0, -2).Unix()), Expiration: uint32(end.Unix())}
	if err := rr.Sign(z.key.private, set); err != nil {
		return nil, err
	}
	if flaw == forged {
		raw, err := base64.StdEncoding.DecodeString(rr.Signature)
		if err != nil {
			return nil, err
		}
		raw[0] ^= 1
		rr.Signature = base64.StdEncoding.EncodeToString(raw)
	}
	return rr, nil
}
