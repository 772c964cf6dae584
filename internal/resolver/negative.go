package resolver

import (
	"errors"
	"time"

	"github.com/miekg/dns"
)

const (
	maxNegativeTTL = time.Hour // RFC 2308 section 5 recommends one to three hours

	// unprovenTTL is for a negative answer without SOA, which does not say how long it holds. RFC 2308
	// section 5 would not have it kept at all, lest it live for ever among caches that ask each other. Ours
	// answers no other cache, and the lookups of many messages to one domain should not each go out.
	unprovenTTL = time.Minute

	// RFC 9520 section 3.2: a failure is kept for a second at least and for five minutes at most. How it
	// is kept longer while it persists is left to the servers, who ask the zone: what is spared here is
	// the way to them, for the many messages that wait for one answer.
	defaultFailureTTL = 5 * time.Second
	minFailureTTL     = time.Second
	maxFailureTTL     = 5 * time.Minute
)

// deny reads how long an absence may be kept (RFC 2308 section 5), and refuses what proves none.
func (r *reply) deny(m *dns.Msg, owner string) error {
	referral := false
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *dns.SOA:
			if rr.Hdr.Class == dns.ClassINET && dns.IsSubDomain(rr.Hdr.Name, owner) {
				r.answer.TTL = min(r.answer.TTL, recordTTL(rr.Hdr.Ttl), recordTTL(rr.Minttl))
				return nil
			}
		case *dns.NS:
			referral = true
		}
	}
	r.answer.TTL = min(r.answer.TTL, unprovenTTL)
	switch {
	case r.answer.Result == NXDomain:
		return nil
	case len(m.Answer) > 0:
		return errors.New("the records answer another question")
	case !m.Authoritative && (referral || !m.RecursionAvailable):
		return errors.New("a referral: the server does not resolve")
	}
	return nil
}

// failureTTL is how long a failure is kept; 0: not at all.
func (c *Client) failureTTL() time.Duration {
	switch {
	case c.FailureTTL < 0:
		return 0
	case c.FailureTTL == 0:
		return defaultFailureTTL
	}
	return min(max(c.FailureTTL, minFailureTTL), maxFailureTTL)
}
