package kumo

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// memos are the caches of kumo.memoize by their names, for all states of an Options. The zero value is ready.
type memos struct {
	mu     sync.Mutex
	byName map[string]*memo

	epoch atomic.Uint64 // what kumo.bump_config_epoch counts
	size  atomic.Int64  // of all entries, about

	// waiting has the flight that a state waits for, so that two which wait for each other can be told.
	waitMu  sync.Mutex
	waiting map[*module]*flight
}

const (
	maxMemos    = 4096 // names of caches
	maxMemoName = 1024
	maxMemoSize = 256 << 20 // of all entries of all caches
)

// memoSettings are the parameters of kumo.memoize.
type memoSettings struct {
	Name                   string        `config:"name" required:"true"`
	TTL                    time.Duration `config:"ttl" required:"true"`
	Capacity               int           `config:"capacity" required:"true" min:"1"`
	InvalidateWithEpoch    bool          `config:"invalidate_with_epoch"`
	PopulateTimeout        time.Duration `config:"populate_timeout" default:"120s"`
	RetryOnPopulateTimeout bool          `config:"retry_on_populate_timeout"`
	AllowStaleReads        bool          `config:"allow_stale_reads"`
	// Detached says upstream where the function runs. Here it runs in the caller's state in any case, and if that
	// state ends early, one of those who wait runs it.
	Detached bool `config:"detached"`
}

// memo is one cache.
type memo struct {
	all      *memos
	settings memoSettings

	mu      sync.Mutex
	entries map[string]*list.Element // of *memoEntry
	order   list.List                // the most recently used first
	size    int64                    // of all entries, about
	flights map[string]*flight
	swept   time.Time
	gone    bool // replaced by one with other settings: keeps nothing any more
}

type memoEntry struct {
	key   string
	value frozen
	size  int64
	until time.Time
	epoch uint64
}

// flight is a call of the function that is under way.
type flight struct {
	by   *module // the state that makes the call
	key  string
	done chan struct{} // closed when it is over

	// Set before done is closed. Without a value and an err nothing is known: the call was cut off.
	landed bool
	kept   bool
	value  frozen
	err    error
}

// over says that nobody waits for it any more, if those who did may not have noticed yet.
func (f *flight) over() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

var (
	errPopulateTimeout = errors.New("the function did not return within populate_timeout")
	errPopulatesItself = errors.New("to find the value, the value is needed: the function calls itself with the same arguments")
)

// named is the cache of that name; one with other settings than it had is a new one.
func (s *memos) named(settings memoSettings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.byName[settings.Name]; ok {
		if c.settings == settings {
			return nil
		}
		c.discard()
	} else if len(s.byName) >= maxMemos {
		return fmt.Errorf("there are %d caches already: a name is for a function, not for its arguments", maxMemos)
	}
	if s.byName == nil {
		s.byName = map[string]*memo{}
	}
	s.byName[settings.Name] = &memo{all: s, settings: settings, entries: map[string]*list.Element{}, flights: map[string]*flight{}}
	return nil
}

func (s *memos) find(name string) *memo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name]
}

func (c *memo) discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for c.order.Len() > 0 {
		c.drop(c.order.Back())
	}
}

// enter looks a key up. It returns a value, or the flight of someone else to wait for, or one that is the caller's
// own to make and to land.
func (c *memo) enter(by *module, key string) (value frozen, found bool, f *flight, own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, flying := c.flights[key]
	if at, ok := c.entries[key]; ok {
		e := at.Value.(*memoEntry)
		fresh := time.Now().Before(e.until) && (!c.settings.InvalidateWithEpoch || e.epoch == c.all.epoch.Load())
		if fresh || flying && c.settings.AllowStaleReads {
			c.order.MoveToFront(at)
			return e.value, true, nil, false
		}
	}
	if flying {
		return nil, false, f, false
	}
	f = &flight{by: by, key: key, done: make(chan struct{})}
	c.flights[key] = f
	return nil, false, f, true
}

// land ends a flight, once; epoch is what it was when the flight began.
func (c *memo) land(f *flight, epoch uint64, size int64) {
	c.settle(f, epoch, size)
	c.all.makeRoom()
}

func (c *memo) settle(f *flight, epoch uint64, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.landed {
		return
	}
	f.landed = true
	delete(c.flights, f.key)
	if f.kept && !c.gone {
		c.keep(&memoEntry{key: f.key, value: f.value, size: size + int64(len(f.key)) + 256,
			until: time.Now().Add(c.settings.TTL), epoch: epoch})
	}
	close(f.done)
}

func (c *memo) keep(e *memoEntry) {
	if old, ok := c.entries[e.key]; ok {
		c.drop(old)
	}
	c.sweep()
	c.entries[e.key] = c.order.PushFront(e)
	c.count(e.size)
	for len(c.entries) > c.settings.Capacity {
		c.drop(c.order.Back())
	}
}

func (c *memo) count(size int64) {
	c.size += size
	c.all.size.Add(size)
}

// makeRoom halves whichever cache is the largest while all of them together are too large.
func (s *memos) makeRoom() {
	for s.size.Load() > maxMemoSize {
		s.mu.Lock()
		var largest *memo
		var most int64
		for _, c := range s.byName {
			if size := c.held(); size > most {
				largest, most = c, size
			}
		}
		s.mu.Unlock()
		if largest == nil {
			return
		}
		largest.shrink(most / 2)
	}
}

func (c *memo) held() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// shrink drops what nobody has used for longest.
func (c *memo) shrink(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.size > size {
		c.drop(c.order.Back())
	}
}

// sweep drops what has expired, now and then.
func (c *memo) sweep() {
	now := time.Now()
	if now.Sub(c.swept) < max(c.settings.TTL, time.Second) || c.settings.AllowStaleReads {
		return
	}
	c.swept = now
	for at := c.order.Front(); at != nil; {
		next := at.Next()
		if !now.Before(at.Value.(*memoEntry).until) {
			c.drop(at)
		}
		at = next
	}
}

func (c *memo) drop(at *list.Element) {
	e := at.Value.(*memoEntry)
	c.order.Remove(at)
	delete(c.entries, e.key)
	c.count(-e.size)
}

// wait waits for the end of a flight of another state.
func (c *memo) wait(ctx context.Context, by *module, f *flight) error {
	if err := c.all.queueUp(by, f); err != nil {
		return err
	}
	defer c.all.stepBack(by)
	timer := time.NewTimer(c.settings.PopulateTimeout)
	defer timer.Stop()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return errPopulateTimeout
	}
}

// queueUp notes that a state is going to wait, unless the flight waits, over whatever others, for that very state.
func (s *memos) queueUp(by *module, f *flight) error {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	for next := f; next != nil && !next.over(); next = s.waiting[next.by] {
		if next.by == by {
			return errPopulatesItself
		}
	}
	if s.waiting == nil {
		s.waiting = map[*module]*flight{}
	}
	s.waiting[by] = f
	return nil
}

func (s *memos) stepBack(by *module) {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	delete(s.waiting, by)
}
