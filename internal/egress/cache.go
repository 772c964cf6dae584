// Package egress keeps what a policy said about the ways out, and takes turns among them. It knows
// neither what the answers mean nor who gives them.
package egress

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxEntries bounds a cache; when it is full it begins anew.
const maxEntries = 1 << 16

// Cache keeps answers for as long as they may be used. An answer is asked for once, however many want
// it at the same time; a failure is not kept. The zero value is ready for use, by many goroutines.
type Cache struct {
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	loaded    chan struct{} // closed when the rest is there
	value     any
	err       error
	expires   time.Time // zero: never
	abandoned bool      // whoever asked gave up, which says nothing about the answer
}

// Get returns what is kept under key, or what load answers: a value, when it expires (the zero time:
// never), an error. The end of ctx ends the wait for somebody else's load.
func (c *Cache) Get(ctx context.Context, key string, load func() (any, time.Time, error)) (any, error) {
	for {
		e, ours := c.claim(key)
		if ours {
			c.load(ctx, key, e, load)
			return e.value, e.err
		}
		select {
		case <-e.loaded:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !e.abandoned {
			return e.value, e.err
		}
	}
}

// Forget drops every answer. Those being asked for are given to who waits, and not kept.
func (c *Cache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = nil
}

// claim returns the entry of key; ours says that it is new and the caller's to fill in.
func (c *Cache) claim(key string) (e *entry, ours bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && !e.stale() {
		return e, false
	}
	if c.entries == nil || len(c.entries) >= maxEntries {
		c.entries = map[string]*entry{}
	}
	e = &entry{loaded: make(chan struct{})}
	c.entries[key] = e
	return e, true
}

// load fills an entry in. Whatever load does, nobody is left waiting.
func (c *Cache) load(ctx context.Context, key string, e *entry, load func() (any, time.Time, error)) {
	e.err = errors.New("egress: the load did not return")
	defer func() {
		if e.err != nil {
			e.abandoned = ctx.Err() != nil
			c.remove(key, e)
		}
		close(e.loaded)
	}()
	e.value, e.expires, e.err = load()
}

func (c *Cache) remove(key string, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] == e {
		delete(c.entries, key)
	}
}

func (e *entry) stale() bool {
	select {
	case <-e.loaded:
		return !e.expires.IsZero() && !time.Now().Before(e.expires)
	default:
		return false
	}
}
