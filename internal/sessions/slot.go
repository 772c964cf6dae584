package sessions

import "time"

// slot is one unit of a group's limit: the permission to open a session, then that session.
type slot[S Session] struct {
	group *group[S]

	// Written once, by Opened under the lock, and read by those who hold a lease.
	session S
	opened  bool
	shelf   *shelf[S]

	// Set when a session that is in no other use is lent, and cleared by the call that got it when it has
	// asked whether the session is alive. Until then the session is not offered to others.
	asking bool

	// Of the call that has the permission to open, which alone uses it; nil once it has opened.
	claim *claim

	// Guarded by the lock, and of interest until the session is opened: which permission this is, and the
	// key under which the session is likely to be opened, the first of that call.
	number uint64
	likely string

	// Guarded by the lock.
	leases      int           // calls that hold the slot, those included that were answered and do not know yet
	uses        int           // calls that the session served or serves
	maxUses     int           // how many it may serve, as the latest of them said
	idleTimeout time.Duration // of the lease that ended last
	grace       time.Duration // of the lease that began last
	used        bool          // a lease ended since expires was set
	vacated     bool          // no longer counted: the session is ending or has ended
	drained     bool          // lent no more, and to be retired when the last lease ends
	killed      bool          // Kill was called or is about to be
	spoilt      bool          // vacated, drained or killed: no call that waits may hope for it
	holds       int           // the leases or the pool, and a Kill under way; the slot is live until none is left
	idle        bool
	turn        *list[slot[S]] // where calls that share it find it: shelf.comfy or shelf.roomy; nil: nowhere
	expires     time.Time      // when the session is to be retired if no call has used it until then
	armed       time.Time      // when timer fires; zero: it does not
	timer       *time.Timer
	byAge       node[slot[S]]   // in group.idle
	byKey       node[slot[S]]   // in coming.slots, shelf.idle, shelf.comfy or shelf.roomy
	byQuota     []node[slot[S]] // in quota.idle of each of group.stakes
	parked      uint64          // when it became idle, by Pool.parks
}

// worn tells whether the session has served maxUses calls.
func (s *slot[S]) worn(maxUses int) bool { return maxUses > 0 && s.uses >= maxUses }

// hasRoom asks a lent session whether it may serve one more call now. Since it has one, a capacity below
// one is the same as one. The lock is held.
func (s *slot[S]) hasRoom() bool { return s.leases < s.session.Capacity() }

// hasComfort asks a lent session whether it would serve one more call now sooner than a new session, if it
// has room. The lock is held.
func (s *slot[S]) hasComfort() bool { return s.leases < s.session.Comfort() }

// permit makes a slot: the permission to open a session. The lock is held.
func (p *Pool[S]) permit(g *group[S], c *claim) *slot[S] {
	s := &slot[S]{group: g, leases: 1, holds: 1, grace: c.grace}
	s.byAge.of, s.byKey.of = s, s
	g.count(1, 0)
	g.opening++
	g.coming.begin(s, c)
	p.live[s] = struct{}{}
	return s
}

// fill puts the session that was opened into its slot. The lock is held.
func (p *Pool[S]) fill(s *slot[S], key string, session S, maxUses int) {
	at := home[S]{s.group, key}
	if s.shelf = p.shelves[at]; s.shelf == nil {
		s.shelf = &shelf[S]{home: at}
		p.shelves[at] = s.shelf
	}
	s.shelf.sessions++
	s.claim = nil
	s.session, s.opened, s.uses, s.maxUses = session, true, 1, maxUses
	if !s.spoilt {
		s.shelf.usable++
		s.group.noLongerComing(s)
	}
	s.group.opening--
	s.group.opened++
	s.group.calls++
	p.totals.Opened++
}

// lend adds a call to a session. The lock is held.
func (p *Pool[S]) lend(s *slot[S], c *claim) {
	s.leases++
	s.uses++
	s.maxUses, s.grace = c.maxUses, c.grace
	s.group.calls++
}

// part takes a call from a slot. The lock is held.
func (p *Pool[S]) part(s *slot[S]) {
	s.leases--
	if s.opened {
		s.group.calls--
	}
}

// offer lets calls share a lent session if it has room, each in turn with the others that have: those that
// have comfort before those that have none. The lock is held.
func (p *Pool[S]) offer(s *slot[S]) {
	if s.turn == &s.shelf.comfy || s.killed || s.drained || s.worn(s.maxUses) || !s.hasRoom() {
		return
	}
	switch {
	case s.hasComfort():
		p.queueUp(s, &s.shelf.comfy)
	case s.turn == nil:
		p.queueUp(s, &s.shelf.roomy)
	}
}

// queueUp puts a session at the end of a turn. The lock is held.
func (p *Pool[S]) queueUp(s *slot[S], turn *list[slot[S]]) {
	p.withhold(s)
	s.turn = turn
	turn.insert(&s.byKey, turn.back)
}

// withhold takes a session from among those that calls share. The lock is held.
func (p *Pool[S]) withhold(s *slot[S]) {
	if s.turn != nil {
		s.turn.remove(&s.byKey)
		s.turn = nil
	}
}

// drain lends a session no more. The lock is held.
func (p *Pool[S]) drain(s *slot[S]) {
	s.drained = true
	p.withhold(s)
	s.spoil()
}

// spoil takes what calls that wait could hope for. The lock is held.
func (s *slot[S]) spoil() {
	switch {
	case s.spoilt:
		return
	case s.opened:
		s.shelf.usable--
		s.group.lose(s.shelf.usable)
	default:
		s.group.noLongerComing(s)
	}
	s.spoilt = true
}

// lose takes down that calls may have lost the last session to hope for, if none is left of its kind.
func (g *group[S]) lose(left int) {
	if left == 0 && g.gates != nil {
		g.gates.poorer = true
	}
}

// vacate takes s from where it can be found. The lock is held.
func (p *Pool[S]) vacate(s *slot[S]) {
	if s.idle {
		p.unpark(s)
	}
	p.withhold(s)
	if s.timer != nil {
		s.timer.Stop()
	}
	s.vacated = true
	s.spoil()
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
	if !p.closed.IsZero() && len(p.live) == 0 {
		p.emptied()
	}
}

// free ends a slot whose session was killed or never opened. The lock is held.
func (p *Pool[S]) free(s *slot[S]) {
	p.vacate(s)
	s.group.count(-1, 0)
	p.release(s)
}
