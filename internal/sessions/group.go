package sessions

import (
	"slices"
	"sync/atomic"
	"time"
)

// group is what a limit belongs to. All its fields are guarded by the pool's lock.
type group[S Session] struct {
	name    string
	limit   int
	slots   int // what counts against limit: idle, opening, lent and ending
	opening int
	coming  coming[S]
	ending  int // told to retire: the peer still has them
	calls   int // leases on sessions
	opened  uint64
	idle    list[slot[S]]   // least recently used first
	waiting list[waiter[S]] // in order of arrival; not empty only if there is nothing for the first
	lines   *atomic.Int64   // the pool's count of all who wait
	gates   *gates          // nil: the group has never had one
	stakes  []*stake[S]     // in the limits that it shares
}

// present is how many sessions there are or will be, without those that are ending.
func (g *group[S]) present() int { return g.slots - g.ending }

// over tells whether more sessions are present than a limit allows, since it fell.
func (g *group[S]) over() bool {
	if g.present() > g.limit {
		return true
	}
	for _, k := range g.stakes {
		if k.quota.over() {
			return true
		}
	}
	return false
}

// mayGrow tells whether the limits have room for one more session, for this call.
func (g *group[S]) mayGrow(c *claim) bool {
	if g.slots >= g.limit {
		return false
	}
	for _, k := range g.stakes {
		if !k.quota.hasRoom(c.arrival) {
			return false
		}
	}
	return true
}

// count adds to the sessions that count against the limits, and to those of them that are ending.
func (g *group[S]) count(slots, ending int) {
	g.slots += slots
	g.ending += ending
	for _, k := range g.stakes {
		k.quota.slots += slots
		k.quota.ending += ending
	}
}

// shelf holds the sessions of one group and key that can be lent. It exists while the group has any
// session of that key, so that lending a warm session back and forth changes no map.
type shelf[S Session] struct {
	home     home[S]
	sessions int
	usable   int           // those of sessions that may be lent again
	idle     list[slot[S]] // least recently used first
	// Lent sessions that had room when they were last asked, in the order in which they take calls: those
	// that had comfort too, and the others. Those that have no room are in neither, so that a call finds its
	// session at the front however many there are.
	comfy, roomy list[slot[S]]
}

type home[S Session] struct {
	group *group[S]
	key   string
}

// claim is one call of Acquire, from its arrival to its lease.
type claim struct {
	keys        []string
	maxUses     int
	idleTimeout time.Duration
	patience    time.Duration
	grace       time.Duration
	expect      func() int
	hopes       uint64 // if it waits by choice: the last permission that it counts on
	arrival     uint64
	waited      time.Duration // because of gates, until it was served last
	passed      bool          // the Lending gate
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

// following is the call behind w; nil if there is none.
func (w *waiter[S]) following() *waiter[S] {
	if w.place.next == nil {
		return nil
	}
	return w.place.next.of
}

func (w *waiter[S]) fits(s *slot[S]) bool {
	return slices.Contains(w.keys, s.shelf.home.key) && !s.worn(w.maxUses)
}

// enqueue lets a call wait. It stands at the end, but for a call that was served before, with a session
// which turned out dead or with a permission that it postponed: that one gets its old place again.
func (g *group[S]) enqueue(c *claim) *waiter[S] {
	w := &waiter[S]{claim: *c, group: g, answered: make(chan struct{})}
	w.place.of = w
	after := g.waiting.back
	for after != nil && after.of.arrival > c.arrival {
		after = after.prev
	}
	g.waiting.insert(&w.place, after)
	g.lines.Add(1)
	switch {
	case w.place.next != nil:
		g.askAgain() // those behind it stand further back now
	case g.coming.asked == nil:
		g.coming.asked = w
	}
	if g.gates != nil {
		w.waited -= g.gates.lostTime() // answer adds what it is then
	}
	return w
}

// leave takes w out of the line.
func (g *group[S]) leave(w *waiter[S]) {
	switch asked := g.coming.asked; {
	case asked == w:
		g.coming.asked = w.following()
	case asked == nil || w.arrival < asked.arrival:
		g.coming.content--
	}
	g.waiting.remove(&w.place)
	g.lines.Add(-1)
}

// answer ends the wait of w with s, or with the error of a refusal.
func (g *group[S]) answer(w *waiter[S], s *slot[S], refusal error) {
	g.leave(w)
	w.slot, w.err = s, refusal
	if g.gates != nil {
		w.waited += g.gates.lostTime()
	}
	close(w.answered)
}
