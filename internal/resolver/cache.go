package resolver

import (
	"container/list"
	"time"
)

const (
	defaultCacheSize = 10000

	// A record with a TTL of 0 may serve the lookups of one delivery; one with a TTL of years is
	// looked at once a day.
	minTTL         = time.Second
	maxTTL         = 24 * time.Hour
	maxNegativeTTL = time.Hour // RFC 2308 section 5 recommends one to three hours
)

// cache keeps answers until their TTL ends, and the most recently used ones if there are too many. Its
// zero value is ready; the client's lock guards it. Only verdicts are kept: a failure is asked again.
type cache struct {
	entries map[question]*list.Element
	used    list.List // of *cacheEntry, most recently used first
}

type cacheEntry struct {
	question question
	answer   Answer
	expires  time.Time
}

// get returns the answer with what is left of its TTL.
func (c *cache) get(q question, now time.Time) (Answer, bool) {
	place := c.entries[q]
	if place == nil {
		return Answer{}, false
	}
	entry := place.Value.(*cacheEntry)
	left := entry.expires.Sub(now)
	if left <= 0 {
		c.remove(place)
		return Answer{}, false
	}
	c.used.MoveToFront(place)
	answer := entry.answer
	answer.TTL = left
	return answer, true
}

// put keeps answer, if it is a verdict, in a cache of size entries (see [Client.CacheSize]).
func (c *cache) put(q question, answer Answer, now time.Time, size int) {
	switch answer.Result {
	case Records, NoData, NXDomain:
	default:
		return
	}
	if size < 0 {
		return
	}
	if size == 0 {
		size = defaultCacheSize
	}
	if c.entries == nil {
		c.entries = make(map[question]*list.Element)
	}
	if old := c.entries[q]; old != nil {
		c.remove(old)
	}
	for c.used.Len() >= size {
		c.remove(c.used.Back())
	}
	c.entries[q] = c.used.PushFront(&cacheEntry{q, answer, now.Add(answer.TTL)})
}

func (c *cache) remove(place *list.Element) {
	c.used.Remove(place)
	delete(c.entries, place.Value.(*cacheEntry).question)
}

func (c *cache) clear() {
	c.entries = nil
	c.used.Init()
}
