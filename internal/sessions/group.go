package sessions

import (
	"slices"
	"time"
)

// group is what a limit belongs to. All its fields are guarded by the pool's lock.
type group[S Session] struct {
	name    string
	limit   int
	slots   int // what counts against limit: idle, opening, lent and ending
	opening int
	ending  int // told to retire: the peer still has them
	calls   int // leases on sessions
	opened  uint64
	idle    list[slot[S]]   // least recently used first
	waiting list[waiter[S]] // in order of arrival; not empty only if there is no room for the first
}

// present is how many sessions there are or will be, without those that are ending.
func (g *group[S]) present() int { return g.slots - g.ending }

// shelf holds the sessions of one group and key that can be lent. It exists while the group has any
// session of that key, so that lending a warm session back and forth changes no map.
type shelf[S Session] struct {
	home     home[S]
	sessions int
	idle     list[slot[S]] // least recently used first
	// Lent sessions that had room when they were last asked, in the order in which they take calls. Those
	// that have none are not in it, so that a call finds its session at the front however many there are.
	roomy list[slot[S]]
}

type home[S Session] struct {
	group *group[S]
	key   string
}

// claim is one call of Acquire, from its arrival to its lease.
type claim struct {
	Request
	arrival uint64
	waited  time.Duration // because of gates, until it was served last
}

// waiter is a call that waits. Its slot or the error are set before answered is closed.
type waiter[S Session] struct {
	claim
	group    *group[S]
	answered chan struct{}
	slot     *slot[S]
	err      error
	place    node[waiter[S]]
}

func (w *waiter[S]) fits(s *slot[S]) bool {
	return slices.Contains(w.Keys, s.shelf.home.key) && !s.worn(w.MaxUses)
}

// enqueue lets a call wait. It stands at the end, but for a call that was served with a session which
// turned out dead: that one gets its old place again.
func (g *group[S]) enqueue(c *claim) *waiter[S] {
	w := &waiter[S]{claim: *c, group: g, answered: make(chan struct{})}
	w.place.of = w
	after := g.waiting.back
	for after != nil && after.of.arrival > c.arrival {
		after = after.prev
	}
	g.waiting.insert(&w.place, after)
	return w
}

// answer ends the wait of w with s, or with the error of a refusal.
func (g *group[S]) answer(w *waiter[S], s *slot[S], refusal error) {
	g.waiting.remove(&w.place)
	w.slot, w.err = s, refusal
	close(w.answered)
}
