package resolver

import "time"

const (
	defaultMaxStale = 24 * time.Hour // RFC 8767 section 5 suggests one to three days

	// staleTTL is how long a stale answer is given without asking again, and the TTL that it has at most
	// (RFC 8767 sections 4 and 5).
	staleTTL = 30 * time.Second
)

// staleness is for how long after its end an answer may stand in when every server fails. Only insecure
// records do so: DANE must not rest on what can no longer be proved, and an absence, which can make a
// message bounce or go to the domain's own address, or a null MX must be true when it is used.
func (c *Client) staleness(answer Answer, t Type) time.Duration {
	if answer.Result != Records || answer.Secure || t == TypeTLSA {
		return 0
	}
	for _, mx := range answer.MX {
		if mx.Host == "." {
			return 0
		}
	}
	switch {
	case c.MaxStale < 0:
		return 0
	case c.MaxStale == 0:
		return defaultMaxStale
	}
	return c.MaxStale
}

// standIn returns the answer to q that has ended, while it may still be used.
func (c *cache) standIn(q question, now time.Time) (Answer, bool) {
	place := c.entries[q]
	if place == nil {
		return Answer{}, false
	}
	entry := place.Value.(*cacheEntry)
	left := entry.end.Sub(now)
	if left <= 0 || !entry.stale(now) {
		return Answer{}, false
	}
	c.used.MoveToFront(place)
	return entry.standIn(min(left, staleTTL)), true
}

// hold gives the stale answer to q to all who ask in the next [staleTTL], without asking the servers, as
// RFC 8767 section 5 wants after a failure.
func (c *cache) hold(q question, now time.Time) (Answer, bool) {
	answer, ok := c.standIn(q, now)
	if ok {
		c.entries[q].Value.(*cacheEntry).recheck = now.Add(answer.TTL)
	}
	return answer, ok
}

func (e *cacheEntry) stale(now time.Time) bool { return !now.Before(e.expires) }

func (e *cacheEntry) standIn(ttl time.Duration) Answer {
	answer := e.answer
	answer.Stale, answer.TTL = true, ttl
	return answer
}
