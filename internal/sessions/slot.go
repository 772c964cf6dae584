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
	opened  uint64
	idle    list[slot[S]]   // least recently used first
	waiting list[waiter[S]] // in order of arrival; not empty only if there is no room for the first
}

// present is how many sessions there are or will be, without those that are ending.
func (g *group[S]) present() int { return g.slots - g.ending }

// shelf holds the idle sessions of one group and key. It exists while the group has any session of that
// key, lent ones included, so that lending a warm session back and forth changes no map.
type shelf[S Session] struct {
	home     home[S]
	sessions int
	idle     list[slot[S]] // least recently used first
}

type home[S Session] struct {
	group *group[S]
	key   string
}

// slot is one unit of a group's limit: the permission to open a session, then that session.
type slot[S Session] struct {
	group *group[S]

	// Written once, by Opened under the lock.
	session S
	opened  bool
	shelf   *shelf[S]

	// Owned by the lease while there is one, else guarded by the lock.
	uses        int
	maxUses     int
	idleTimeout time.Duration

	// Guarded by the lock.
	vacated bool // no longer counted: the session is ending or has ended
	drained bool // to be retired when given back
	killed  bool // Kill was called or is about to be
	holds   int  // the lease or the pool, and a Kill under way; the slot is live until none is left
	idle    bool
	expires time.Time // when the session is to be retired if no call has used it until then
	armed   time.Time // when timer fires; zero: it does not
	timer   *time.Timer
	byAge   node[slot[S]] // in group.idle
	byKey   node[slot[S]] // in shelf.idle
}

// worn tells whether the session has served maxUses calls.
func (s *slot[S]) worn(maxUses int) bool { return maxUses > 0 && s.uses >= maxUses }

// waiter is a call that waits. Its slot is set before answered is closed; nil means refused.
type waiter[S Session] struct {
	group    *group[S]
	arrival  uint64
	keys     []string
	maxUses  int
	answered chan struct{}
	slot     *slot[S]
	place    node[waiter[S]]
}

func (w *waiter[S]) fits(s *slot[S]) bool {
	return slices.Contains(w.keys, s.shelf.home.key) && !s.worn(w.maxUses)
}

// enqueue lets a call wait. It stands at the end, but for a call that was served with a session which
// turned out dead: that one gets its old place again.
func (g *group[S]) enqueue(r Request, arrival uint64) *waiter[S] {
	w := &waiter[S]{group: g, arrival: arrival, keys: r.Keys, maxUses: r.MaxUses, answered: make(chan struct{})}
	w.place.of = w
	after := g.waiting.back
	for after != nil && after.of.arrival > arrival {
		after = after.prev
	}
	g.waiting.insert(&w.place, after)
	return w
}

// answer ends the wait of w with s, or with a refusal if s is nil.
func (g *group[S]) answer(w *waiter[S], s *slot[S]) {
	g.waiting.remove(&w.place)
	w.slot = s
	close(w.answered)
}

// permit makes a slot: the permission to open a session. The lock is held.
func (p *Pool[S]) permit(g *group[S]) *slot[S] {
	s := &slot[S]{group: g, holds: 1}
	s.byAge.of, s.byKey.of = s, s
	g.slots++
	g.opening++
	p.live[s] = struct{}{}
	return s
}

// fill puts the session that was opened into its slot. The lock is held.
func (p *Pool[S]) fill(s *slot[S], key string, session S) {
	at := home[S]{s.group, key}
	if s.shelf = p.shelves[at]; s.shelf == nil {
		s.shelf = &shelf[S]{home: at}
		p.shelves[at] = s.shelf
	}
	s.shelf.sessions++
	s.session, s.opened, s.uses = session, true, 1
	s.group.opening--
	s.group.opened++
	p.totals.Opened++
}

// vacate takes s from where it can be found. The lock is held.
func (p *Pool[S]) vacate(s *slot[S]) {
	if s.idle {
		p.unpark(s)
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.vacated = true
	if !s.opened {
		s.group.opening--
		return
	}
	if s.shelf.sessions--; s.shelf.sessions == 0 {
		delete(p.shelves, s.shelf.home)
	}
}

// release ends one hold on s. The lock is held.
func (p *Pool[S]) release(s *slot[S]) {
	if s.holds--; s.holds > 0 {
		return
	}
	delete(p.live, s)
	if p.closed && len(p.live) == 0 {
		close(p.empty)
	}
}

// free ends a slot whose session was killed or never opened. The lock is held.
func (p *Pool[S]) free(s *slot[S]) {
	p.vacate(s)
	s.group.slots--
	p.release(s)
}

// park makes a session idle. The lock is held.
func (p *Pool[S]) park(s *slot[S]) {
	s.idle = true
	s.group.idle.insert(&s.byAge, s.group.idle.back)
	s.shelf.idle.insert(&s.byKey, s.shelf.idle.back)
	// A timer that fires too early, since the session was used meanwhile, finds out and is set again.
	// That costs less than to stop and set it for each use.
	if s.armed.IsZero() || s.armed.After(s.expires) {
		p.arm(s, time.Until(s.expires))
	}
}

// unpark takes a session from among the idle ones. The lock is held.
func (p *Pool[S]) unpark(s *slot[S]) {
	s.idle = false
	s.group.idle.remove(&s.byAge)
	s.shelf.idle.remove(&s.byKey)
}

// arm sets the timer of an idle session. The lock is held.
func (p *Pool[S]) arm(s *slot[S], after time.Duration) {
	s.armed = s.expires
	if s.timer == nil {
		s.timer = time.AfterFunc(after, func() { p.expire(s) })
		return
	}
	s.timer.Reset(after)
}

// expire retires s if it has been idle for long enough.
func (p *Pool[S]) expire(s *slot[S]) {
	p.mu.Lock()
	s.armed = time.Time{}
	if !s.idle {
		p.mu.Unlock()
		return
	}
	if left := time.Until(s.expires); left > 0 {
		p.arm(s, left)
		p.mu.Unlock()
		return
	}
	p.leave(s)
	p.settle(s.group)
	p.mu.Unlock()
	p.end(s)
}
