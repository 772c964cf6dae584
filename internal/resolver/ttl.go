package resolver

import (
	"cmp"
	"time"
)

const (
	// A record with a TTL of 0 may serve the lookups of one delivery; one with a TTL of years is looked at
	// once a day.
	minTTL = time.Second
	maxTTL = 24 * time.Hour

	// longestTTL is what a record can say at most (RFC 2181 section 8).
	longestTTL = (1<<31 - 1) * time.Second
)

// recordTTL is what a record says about itself. RFC 2181 section 8: one with the highest bit is 0.
func recordTTL(seconds uint32) time.Duration {
	if seconds > 1<<31-1 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// bound brings the TTL that the servers gave to an answer between floor and ceiling. A secure answer is
// not kept beyond its TTL, into which the server has put the end of the signatures (RFC 4035 section
// 5.3.3), nor are TLSA records: whoever changes his key counts on it (RFC 7671 section 8.1). Both have the
// floor of minTTL alone.
func (c *Client) bound(answer Answer, t Type) time.Duration {
	floor, ceiling := cmp.Or(max(c.MinTTL, 0), minTTL), cmp.Or(max(c.MaxTTL, 0), maxTTL)
	if answer.Secure || t == TypeTLSA {
		floor = min(floor, minTTL)
	}
	if answer.Result != Records {
		ceiling = min(ceiling, maxNegativeTTL)
	}
	return min(max(answer.TTL, floor), ceiling)
}
