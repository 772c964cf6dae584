package resolver

import (
	"container/list"
	"time"
)

const (
	defaultCacheSize = 10000

	// weightUnit is how many bytes of records one place in the cache stands for.
	weightUnit = 512
)

// cache keeps answers until their TTL ends, or longer as stale ones, and the most recently used ones if
// there are too many. Its zero value is ready; the client's lock guards it.
type cache struct {
	entries map[question]*list.Element
	used    list.List // of *cacheEntry, most recently used first
	weight  int       // of all entries
}

type cacheEntry struct {
	question question
	answer   Answer
	weight   int
	expires  time.Time
	end      time.Time // of its use as a stale answer, or expires
	recheck  time.Time // until when the stale answer is given without asking
}

// get returns the answer with what is left of its TTL; a stale one if the servers failed just now.
func (c *cache) get(q question, now time.Time) (Answer, bool) {
	place := c.entries[q]
	if place == nil {
		return Answer{}, false
	}
	entry := place.Value.(*cacheEntry)
	left := entry.expires.Sub(now)
	switch {
	case left > 0:
		c.used.MoveToFront(place)
		answer := entry.answer
		answer.TTL = left
		return answer, true
	case now.Before(entry.recheck):
		c.used.MoveToFront(place)
		return entry.standIn(entry.recheck.Sub(now)), true
	case !now.Before(entry.end):
		c.remove(place)
	}
	return Answer{}, false
}

// put keeps answer for its TTL and, as a stale one, for staleness more, in a cache of size places (see
// [Client.CacheSize]). What has no TTL says nothing, and leaves what is kept; what needs more places than
// there are only replaces it.
func (c *cache) put(q question, answer Answer, now time.Time, staleness time.Duration, size int) {
	if answer.TTL <= 0 {
		return
	}
	if old := c.entries[q]; old != nil {
		c.remove(old)
	}
	if size == 0 {
		size = defaultCacheSize
	}
	weight := answer.weight()
	if weight > size {
		return
	}
	for c.weight+weight > size {
		c.remove(c.used.Back())
	}
	if c.entries == nil {
		c.entries = make(map[question]*list.Element)
	}
	expires := now.Add(answer.TTL)
	c.weight += weight
	c.entries[q] = c.used.PushFront(&cacheEntry{
		question: q, answer: answer, weight: weight, expires: expires, end: expires.Add(staleness)})
}

func (c *cache) remove(place *list.Element) {
	entry := c.used.Remove(place).(*cacheEntry)
	c.weight -= entry.weight
	delete(c.entries, entry.question)
}

func (c *cache) clear() {
	c.entries, c.weight = nil, 0
	c.used.Init()
}

// weight is how many places an answer takes: its size is the server's choice, and the cache's bound must
// hold for the largest ones too.
func (a *Answer) weight() int {
	const header = 24 // of a slice or string with its pointer, or of an address
	size := header * (len(a.MX) + len(a.Addrs) + len(a.TXT) + len(a.PTR) + 2*len(a.TLSA))
	for _, mx := range a.MX {
		size += len(mx.Host)
	}
	for _, text := range a.TXT {
		size += len(text)
	}
	for _, name := range a.PTR {
		size += len(name)
	}
	for _, record := range a.TLSA {
		size += len(record.Data)
	}
	return 1 + size/weightUnit
}
