// Package egress keeps what a policy said about the ways out, and takes turns among them. It knows
// neither what the answers mean nor who gives them.
package egress

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// maxEntries bounds a cache; when it is full it begins anew.
const maxEntries = 1 << 16

// Cache keeps answers for as long as they may be used. An answer is asked for once, however many want
// it at the same time; a failure is not kept. The zero value is ready for use, by many goroutines.
type Cache[K comparable, V any] struct {
	mu      sync.RWMutex
	entries map[K]*entry[V]
	forgets atomic.Uint64 // how often all was forgotten
}

type entry[V any] struct {
	loaded    chan struct{} // closed when the rest is there
	value     V
	err       error
	expires   time.Time // zero: never
	abandoned bool      // whoever asked gave up, which says nothing about the answer
}

// Known returns what is kept under key. False: nothing is, or it is being asked for.
func (c *Cache[K, V]) Known(key K) (value V, ok bool) {
	c.mu.RLock()
	e := c.entries[key]
	c.mu.RUnlock()
	if e == nil || !e.fresh() {
		return value, false
	}
	return e.value, e.err == nil
}

// Held is an answer together with what tells whether it may still be used, which takes no look into the cache. The
// zero Held may not.
type Held[V any] struct {
	Value V

	entry   *entry[V]
	forgets *atomic.Uint64
	seen    uint64
}

// Fresh reports whether the cache would still give the answer.
func (h *Held[V]) Fresh() bool {
	return h.entry != nil && h.entry.fresh() && h.forgets.Load() == h.seen
}

// Hold returns what Known returns, to be held. False: nothing is kept, or it is being asked for.
func (c *Cache[K, V]) Hold(key K) (held Held[V], ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.entries[key]
	if e == nil || !e.fresh() || e.err != nil {
		return held, false
	}
	return Held[V]{e.value, e, &c.forgets, c.forgets.Load()}, true
}

// Get returns what is kept under key, or what load answers: a value, when it expires (the zero time:
// never), an error. The end of ctx ends the wait for somebody else's load.
func (c *Cache[K, V]) Get(ctx context.Context, key K, load func() (V, time.Time, error)) (V, error) {
	for {
		e, ours := c.claim(key)
		if ours {
			c.load(ctx, key, e, load)
			return e.value, e.err
		}
		select {
		case <-e.loaded:
		case <-ctx.Done():
			var none V
			return none, context.Cause(ctx)
		}
		if !e.abandoned {
			return e.value, e.err
		}
	}
}

// Forget drops every answer. Those being asked for are given to who waits, and not kept.
func (c *Cache[K, V]) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = nil
	c.forgets.Add(1)
}

// claim returns the entry of key; ours says that it is new and the caller's to fill in.
func (c *Cache[K, V]) claim(key K) (e *entry[V], ours bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && (!e.answered() || e.fresh()) {
		return e, false
	}
	if c.entries == nil || len(c.entries) >= maxEntries {
		c.entries = map[K]*entry[V]{}
	}
	e = &entry[V]{loaded: make(chan struct{})}
	c.entries[key] = e
	return e, true
}

// load fills an entry in. Whatever load does, nobody is left waiting.
func (c *Cache[K, V]) load(ctx context.Context, key K, e *entry[V], load func() (V, time.Time, error)) {
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

func (c *Cache[K, V]) remove(key K, e *entry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] == e {
		delete(c.entries, key)
	}
}

// answered reports whether the answer is there.
func (e *entry[V]) answered() bool {
	select {
	case <-e.loaded:
		return true
	default:
		return false
	}
}

// fresh reports whether the answer is there and may be used.
func (e *entry[V]) fresh() bool {
	return e.answered() && (e.expires.IsZero() || time.Until(e.expires) > 0)
}
