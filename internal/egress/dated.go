package egress

import (
	"sync"
	"time"
)

// Dated keeps values until a date. When there are more than Max it begins anew. With Max set it is ready for
// use, by many goroutines.
type Dated[K comparable, V any] struct {
	Max int

	mu     sync.RWMutex
	values map[K]dated[V]
}

type dated[V any] struct {
	value   V
	expires time.Time // zero: never
}

// Get returns the value of a key, if it may still be used.
func (d *Dated[K, V]) Get(key K) (value V, ok bool) {
	d.mu.RLock()
	kept, ok := d.values[key]
	d.mu.RUnlock()
	if !ok || !kept.expires.IsZero() && !time.Now().Before(kept.expires) {
		return value, false
	}
	return kept.value, true
}

// Put keeps a value until a date, the zero time for ever, and returns the one that was kept before, whether or
// not it might still be used.
func (d *Dated[K, V]) Put(key K, value V, expires time.Time) (old V) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old = d.values[key].value
	if d.values == nil || len(d.values) >= d.Max {
		d.values = map[K]dated[V]{}
	}
	d.values[key] = dated[V]{value, expires}
	return old
}

// Len is how many values are kept, those included whose date has passed.
func (d *Dated[K, V]) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.values)
}

// Equals holds one of all values that are equal, by a digest of theirs. When there are more than Max it begins
// anew. With Max set it is ready for use, by many goroutines.
type Equals[V any] struct {
	Max int

	mu   sync.Mutex
	kept map[string]V
}

// Share returns the value of the digest that came first.
func (e *Equals[V]) Share(digest string, v V) V {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known, ok := e.kept[digest]; ok {
		return known
	}
	if e.kept == nil || len(e.kept) >= e.Max {
		e.kept = map[string]V{}
	}
	e.kept[digest] = v
	return v
}
