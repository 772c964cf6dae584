// Package ready remembers ready names from one delivery to the next: what was counted under each, how often
// in a row no host could be reached, and which hosts have just hung up. It knows neither wires nor configs.
package ready

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// unusedFor is how long a name is remembered in which nothing happens.
	unusedFor = 10 * time.Minute
	// fewNames are not worth looking through.
	fewNames = 64
)

// Book holds what is known of ready names. The zero value is empty and ready for use, by many goroutines.
// Names in which nothing has happened for 10 minutes are forgotten, when others come.
type Book struct {
	mu    sync.RWMutex
	names map[string]*Name
	next  int       // so many names are looked through
	swept time.Time // when they last were
}

// Name returns what is known under a name. It may be kept as long as [Name.Gone] is false.
func (b *Book) Name(name string) *Name {
	b.mu.RLock()
	n := b.names[name]
	b.mu.RUnlock()
	if n != nil {
		return n
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.names[name]; n != nil {
		return n
	}
	b.sweep(time.Now())
	if b.names == nil {
		b.names = map[string]*Name{}
	}
	n = &Name{name: name}
	b.names[name] = n
	return n
}

// sweep forgets names that are not used. The lock is held.
func (b *Book) sweep(now time.Time) {
	if len(b.names) < max(b.next, fewNames) && now.Sub(b.swept) < unusedFor {
		return
	}
	b.swept = now
	for key, n := range b.names {
		if n.unused(now) {
			n.gone.Store(true)
			delete(b.names, key)
		}
	}
	b.next = 2 * len(b.names)
}

// All returns the names that are known, sorted.
func (b *Book) All() []*Name {
	b.mu.RLock()
	all := make([]*Name, 0, len(b.names))
	for _, n := range b.names {
		all = append(all, n)
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Name) int { return cmp.Compare(a.name, b.name) })
	return all
}

// Counts are what has happened under a name since it became known.
type Counts struct {
	Delivered, Transient, Permanent, Unsent uint64 // recipients
	Opened, Reused, Broken, Failed          uint64 // sessions; Failed: no host let one be opened
	Throttled                               uint64 // calls that a rate or a limit sent away
}

// Name is what is known of one ready name. Its methods are safe for concurrent use.
type Name struct {
	name string
	gone atomic.Bool

	Delivered, Transient, Permanent, Unsent atomic.Uint64
	Opened, Reused, Broken, Failed          atomic.Uint64
	Throttled                               atomic.Uint64
	// Gathered is how many calls wait at this moment for others to go with.
	Gathered atomic.Int64

	mu       sync.Mutex
	failures int     // in a row
	open     []Chain // sessions that broke and have no successor yet, oldest first
	// For the sweep alone: what was counted when it last looked, and since when it has been so.
	seen  uint64
	since time.Time
}

// String returns the name.
func (n *Name) String() string { return n.name }

// Gone tells that the book has forgotten the name: what is counted here is seen by nobody.
func (n *Name) Gone() bool { return n.gone.Load() }

// Counts returns the counts of the moment.
func (n *Name) Counts() Counts {
	return Counts{
		Delivered: n.Delivered.Load(), Transient: n.Transient.Load(), Permanent: n.Permanent.Load(), Unsent: n.Unsent.Load(),
		Opened: n.Opened.Load(), Reused: n.Reused.Load(), Broken: n.Broken.Load(), Failed: n.Failed.Load(),
		Throttled: n.Throttled.Load(),
	}
}

// unused tells whether nothing has happened for long enough. It is for the sweep, under the book's lock.
func (n *Name) unused(now time.Time) bool {
	c := n.Counts()
	sum := c.Delivered + c.Transient + c.Permanent + c.Unsent + c.Opened + c.Reused + c.Broken + c.Failed + c.Throttled
	if n.since.IsZero() || sum != n.seen || n.Gathered.Load() > 0 {
		n.seen, n.since = sum, now
		return false
	}
	return now.Sub(n.since) >= unusedFor
}

// Reached notes that a session was opened.
func (n *Name) Reached() {
	n.Opened.Add(1)
	n.mu.Lock()
	n.failures = 0
	n.mu.Unlock()
}

// Unreached notes that no host let a session be opened, and returns how often in a row that was so.
func (n *Name) Unreached() int {
	n.Failed.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failures++
	return n.failures
}

// maxChains bounds the sessions that wait for a successor.
const maxChains = 64

// Chain is a session that goes on over one connection after another: when one breaks, the next is made to
// the next host of the plan.
type Chain struct {
	// ID is the session's.
	ID string
	// First is the key of the host to go to before all others; empty: none.
	First string
	// Tried are the keys of the hosts that have been tried since the chain began.
	Tried []string

	expires time.Time
}

// Broke keeps a chain for the next connection that is opened under the name within a time; 0: it has no
// successor.
func (n *Name) Broke(c Chain, within time.Duration) {
	n.Broken.Add(1)
	if within <= 0 {
		return
	}
	c.expires = time.Now().Add(within)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) >= maxChains {
		n.open = slices.Delete(n.open, 0, 1)
	}
	n.open = append(n.open, c)
}

// Successor takes the chain that broke last; false if there is none that has not expired.
func (n *Name) Successor() (Chain, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) == 0 {
		return Chain{}, false
	}
	last := len(n.open) - 1
	c := n.open[last]
	n.open = n.open[:last]
	if !time.Now().Before(c.expires) {
		n.open = nil // the others are older still, or as good as
		return Chain{}, false
	}
	return c, true
}
