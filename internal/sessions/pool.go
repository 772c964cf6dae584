// Package sessions decides which connection a call uses: an idle one, a new one, or, when a limit is
// reached, one that others are using and that has room, or the next one to come free. It knows neither
// mail nor wires. Whoever holds a [Lease] opens, uses and judges the session; the pool lends, counts, ends
// and lets callers wait in order.
//
// A session that can serve several calls at the same time says so by its Capacity, and is lent to as
// many: each has a lease of its own. Calls are spread over sessions first, up to the limit, and share
// them only then. What ends a session waits for the last of those who share it, but for Kill.
//
// Limits belong to a group (the ready name); what may serve a call belongs to a key (all that makes
// two connections interchangeable). A session is lent only to a call that names the key under which it
// was opened.
package sessions

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// ErrClosed is what Acquire returns once Close has begun.
var ErrClosed = errors.New("sessions: the pool is closed")

// ErrFull is what Acquire returns where as many calls wait already as may.
var ErrFull = errors.New("sessions: too many calls wait")

// Pool keeps sessions of one kind. The zero value is ready for use; its methods are safe for concurrent
// use. It must not be copied. Groups without session, lease or waiting call take no memory, and a pool
// in which nothing happens has timers but no goroutine.
type Pool[S Session] struct {
	reused atomic.Uint64

	mu       sync.Mutex
	groups   map[string]*group[S]
	shelves  map[home[S]]*shelf[S]
	live     map[*slot[S]]struct{} // every slot from its permission to open until its session has ended
	arrivals uint64                // numbers the calls of Acquire in order
	totals   Totals
	closed   bool          // Close has begun
	cut      bool          // a Close ran out of patience: sessions are killed
	empty    chan struct{} // made when Close begins; closed when live is empty
}

// Acquire returns a lease of a session that serves r, or of the permission to open one. It prefers an
// idle session, then a new one below the limit, then a share of one in use that has room, then a new one
// in place of the group's least recently used idle session of another key; else it waits. Calls of a
// group are served strictly in order of arrival, so that nobody starves behind calls that are easier to
// serve. A call whose session turned out dead, and for which there is no other, waits in its old place.
//
// The error is ErrClosed, ErrFull, or ctx's cause when ctx ends first. Every lease must be given back.
func (p *Pool[S]) Acquire(ctx context.Context, r Request) (*Lease[S], error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := claim{Request: r}
	p.mu.Lock()
	p.arrivals++
	c.arrival = p.arrivals
	g := p.arrive(&c)
	p.serve(g) // the call may have raised the limit
	if r.MaxWaiting > 0 && g.waiting.len >= r.MaxWaiting && !p.closed {
		p.mu.Unlock()
		return nil, ErrFull
	}
	return p.seek(ctx, g, &c)
}

// seek gets a call what serves it. The lock is held, and no more when seek returns.
func (p *Pool[S]) seek(ctx context.Context, g *group[S], c *claim) (*Lease[S], error) {
	for {
		s, w, err := p.assign(g, c)
		p.mu.Unlock()
		if w != nil {
			s, err = p.wait(ctx, w)
		}
		if err != nil {
			return nil, err
		}
		if !s.asking {
			return p.lease(s, c), nil
		}
		// A session that comes straight from another call is asked too: a peer may hang up right after
		// the reply that ended that call.
		if s.session.Alive() {
			p.share(s)
			return p.lease(s, c), nil
		}
		p.kill(s)
		p.mu.Lock()
		p.totals.Dead++
		p.part(s)
		p.free(s) // not settled: the room is this call's, unless assign finds one that came before it
	}
}

// arrive returns the group of a call that has just arrived, under the limit that the call brings. The
// lock is held.
func (p *Pool[S]) arrive(c *claim) *group[S] {
	g := p.groups[c.Group]
	if g == nil {
		g = p.remember(c.Group)
	}
	if limit := max(c.Limit, 1); limit != g.limit {
		g.limit = limit
		p.trim(g)
	}
	return g
}

// assign finds a slot for a call, or a place in line if there is none or if others stand there. The
// lock is held.
func (p *Pool[S]) assign(g *group[S], c *claim) (*slot[S], *waiter[S], error) {
	if p.closed {
		p.settle(g)
		return nil, nil, ErrClosed
	}
	if g.waiting.len == 0 {
		if s := p.find(g, c); s != nil {
			return s, nil, nil
		}
	}
	w := g.enqueue(c)
	p.serve(g) // the call may have brought the room of a dead session
	return nil, w, nil
}

// find lends a session or gives permission to open one; nil if there is neither. The lock is held.
func (p *Pool[S]) find(g *group[S], c *claim) *slot[S] {
	if s := p.wake(g, c); s != nil {
		return s
	}
	if g.slots < g.limit {
		return p.permit(g, c)
	}
	if g.present() <= g.limit {
		return p.join(g, c)
	}
	return nil
}

// wake lends an idle session. The lock is held.
func (p *Pool[S]) wake(g *group[S], c *claim) *slot[S] {
	if g.idle.len == 0 {
		return nil
	}
	for _, key := range c.Keys {
		shelf := p.shelves[home[S]{g, key}]
		if shelf == nil {
			continue
		}
		for s := shelf.idle.last(); s != nil; s = shelf.idle.last() {
			if !s.worn(c.MaxUses) {
				p.unpark(s)
				p.again(s, c)
				return s
			}
			p.retire(s, Worn)
		}
	}
	return nil
}

// again lends a session that is in no other use. The lock is held.
func (p *Pool[S]) again(s *slot[S], c *claim) {
	p.lend(s, c)
	s.asking = true
}

// join lends a share of a session in use. The lock is held.
func (p *Pool[S]) join(g *group[S], c *claim) *slot[S] {
	for _, key := range c.Keys {
		shelf := p.shelves[home[S]{g, key}]
		if shelf == nil {
			continue
		}
		for n := shelf.roomy.front; n != nil; {
			s := n.of
			n = n.next
			if s.worn(c.MaxUses) {
				continue // not for this call; it has room for one with a wider bound
			}
			p.withhold(s)
			if s.hasRoom() {
				p.lend(s, c)
				p.offer(s)
				return s
			}
		}
	}
	return nil
}

// share lets others use a session that was found alive.
func (p *Pool[S]) share(s *slot[S]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.asking = false
	p.offer(s)
	if s.roomy {
		p.serve(s.group)
	}
}

// wait blocks until the call is served, refused or given up.
func (p *Pool[S]) wait(ctx context.Context, w *waiter[S]) (*slot[S], error) {
	select {
	case <-w.answered:
		return w.slot, w.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.answered:
		// Served at the moment of giving up: what was handed over goes to the next in line.
		if s := w.slot; s != nil {
			p.decline(s)
		}
	default:
		// It held no room, but stood before calls that may be able to use what is idle.
		w.group.waiting.remove(&w.place)
		p.settle(w.group)
	}
	return nil, context.Cause(ctx)
}

// decline gives a slot back that no call has used. The lock is held.
func (p *Pool[S]) decline(s *slot[S]) {
	if s.asking { // else others may be reading it
		s.asking = false
	}
	s.uses--
	p.giveBack(s)
}

// lease makes the lease of a call that s was lent to, or that has the permission to open.
func (p *Pool[S]) lease(s *slot[S], c *claim) *Lease[S] {
	if s.opened {
		p.reused.Add(1)
	}
	return &Lease[S]{pool: p, slot: s, idleTimeout: c.IdleTimeout, maxUses: c.MaxUses, reused: s.opened, waited: c.waited}
}

// giveBack ends one call on a slot and decides what becomes of it. The lock is held.
func (p *Pool[S]) giveBack(s *slot[S]) {
	g := s.group
	p.part(s)
	switch w := g.waiting.first(); {
	case s.leases > 0:
		p.offer(s)
	case !s.opened || s.killed:
		p.free(s)
	case p.closed:
		p.retire(s, Closing)
	case s.drained:
		p.retire(s, Drained)
	case s.worn(s.maxUses):
		p.retire(s, Worn)
	case g.present() > g.limit:
		p.retire(s, Crowded)
	case w != nil && w.fits(s): // it would share s by now if that were offered
		p.again(s, &w.claim)
		g.answer(w, s, nil)
	case s.rested():
		p.retire(s, Idle)
	default:
		p.park(s)
	}
	p.settle(g)
}

// settle serves those who wait for the room that has come free, and forgets the group if nothing is
// left of it. The lock is held.
func (p *Pool[S]) settle(g *group[S]) {
	p.serve(g)
	if g.slots == 0 && g.waiting.len == 0 {
		delete(p.groups, g.name)
	}
}

// serve gives those who wait what there is, in order. For those who remain it makes room: for each, an
// idle session ends, unless one is ending already. The first of them can use no idle one, and a later
// one does not go before it. The lock is held.
func (p *Pool[S]) serve(g *group[S]) {
	for w := g.waiting.first(); w != nil; w = g.waiting.first() {
		s := p.find(g, &w.claim)
		if s == nil {
			break
		}
		g.answer(w, s, nil)
	}
	for s := g.idle.first(); s != nil && g.ending < g.waiting.len; s = g.idle.first() {
		p.retire(s, Crowded)
	}
}

// trim retires idle sessions above the limit, the least recently used first. The lock is held.
func (p *Pool[S]) trim(g *group[S]) {
	for s := g.idle.first(); s != nil && g.present() > g.limit; s = g.idle.first() {
		p.retire(s, Crowded)
	}
}

// remember makes a group; settle forgets it. The lock is held.
func (p *Pool[S]) remember(name string) *group[S] {
	if p.groups == nil {
		p.groups = make(map[string]*group[S])
		p.shelves = make(map[home[S]]*shelf[S])
		p.live = make(map[*slot[S]]struct{})
	}
	g := &group[S]{name: name}
	p.groups[name] = g
	return g
}
