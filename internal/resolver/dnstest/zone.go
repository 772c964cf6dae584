package dnstest

import (
	"strings"

	"github.com/miekg/dns"
)

// zone has the records by owner, in lower case.
type zone map[string][]dns.RR

func parseZone(text string) (zone, error) {
	z := make(zone)
	parser := dns.NewZoneParser(strings.NewReader(text), ".", "")
	parser.SetDefaultTTL(300)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := dns.CanonicalName(rr.Header().Name)
		z[name] = append(z[name], rr)
	}
	return z, parser.Err()
}

// find returns the records of name, and whether it exists: by itself, by a name below it, or by a
// wildcard (RFC 4592).
func (z zone) find(name string) (records []dns.RR, exists bool) {
	key := dns.CanonicalName(name)
	if z.exists(key) {
		return z[key], true
	}
	for {
		i, end := dns.NextLabel(key, 0)
		if end {
			return nil, false
		}
		key = key[i:]
		for _, rr := range z["*."+key] {
			rr = dns.Copy(rr)
			rr.Header().Name = name
			records = append(records, rr)
		}
		if records != nil || z.exists(key) {
			return records, records != nil
		}
	}
}

func (z zone) exists(key string) bool {
	if z[key] != nil {
		return true
	}
	for name := range z {
		if strings.HasSuffix(name, "."+key) {
			return true
		}
	}
	return false
}

// soa is the SOA record of the closest zone around name.
func (z zone) soa(name string) dns.RR {
	for key := dns.CanonicalName(name); ; {
		for _, rr := range z[key] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return rr
			}
		}
		i, end := dns.NextLabel(key, 0)
		if end {
			return nil
		}
		key = key[i:]
	}
}

// resolve answers q, and follows at most links CNAMEs. Where it stops for that, last is said to exist.
func (z zone) resolve(q dns.Question, links int) (answer []dns.RR, last string, exists bool) {
	last = q.Name
	for {
		records, exists := z.find(last)
		var cname *dns.CNAME
		found := false
		for _, rr := range records {
			if rr.Header().Rrtype == q.Qtype {
				answer, found = append(answer, rr), true
			} else if c, ok := rr.(*dns.CNAME); ok {
				cname = c
			}
		}
		if found || cname == nil {
			return answer, last, exists
		}
		answer, last = append(answer, cname), cname.Target
		if links--; links <= 0 {
			return answer, last, true
		}
	}
}
