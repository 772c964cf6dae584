// Package sessions decides which connection a call uses: an idle one, a new one, or, when a limit is
// reached, the next one to come free. It knows neither mail nor wires. Whoever holds a [Lease] opens,
// uses and judges the session; the pool lends, counts, ends and lets callers wait in order.
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
	"time"
)

// ErrClosed is what Acquire returns once Close has begun.
var ErrClosed = errors.New("sessions: the pool is closed")

// ErrFull is what Acquire returns where as many calls wait already as may.
var ErrFull = errors.New("sessions: too many calls wait")

// Session is what a Pool keeps. The pool calls none of these methods with its lock held. It calls
// Retire at most once, Kill at most once, and never begins Retire after Kill.
type Session interface {
	// Alive is asked just before a kept session is lent again, by the call that is to get it. It must not
	// wait for the peer. False: the session is killed, and the call looks for the next.
	Alive() bool
	// Retire ends the session in an orderly way (QUIT, Lua close). It may be slow, but must end by
	// itself: until then the session counts against the limit, because the peer still has it.
	Retire()
	// Kill cuts the session at once. It may come at any time, also while the session is lent, asked or
	// retiring, and must make what blocks on the session return. Discard waits for it.
	Kill()
}

// Request says what a call needs.
type Request struct {
	// Group is what the limit belongs to.
	Group string
	// Limit is the most sessions that the group may have at once: lent, idle, being opened and ending. The value
	// of the group's latest request counts; below 1 means 1. When it falls, idle sessions above it are
	// retired now, lent ones when they are given back, and nobody is served until the group is within it.
	Limit int
	// MaxWaiting is how many calls of the group may wait: one more is refused with ErrFull; 0: no bound.
	MaxWaiting int
	// Keys serve this call, best first. An idle session of the first key that has one is lent, the most
	// recently used first. The slice must not change while Acquire runs.
	Keys []string
	// IdleTimeout is how long the session may lie idle after this call; zero or less: not at all. A
	// caller that waits already may still get it.
	IdleTimeout time.Duration
	// MaxUses is how many calls one session may serve, the one that opened it included; 0: no bound.
	MaxUses int
}

// Pool keeps sessions of one kind. The zero value is ready for use; its methods are safe for concurrent
// use. It must not be copied. Groups without session, lease or waiting call take no memory, and a pool
// in which nothing happens has timers but no goroutine.
type Pool[S Session] struct {
	reused atomic.Uint64

	mu      sync.Mutex
	groups  map[string]*group[S]
	shelves map[home[S]]*shelf[S]
	live    map[*slot[S]]struct{} // every slot from its permission to open until its session has ended
	calls   uint64                // numbers the calls of Acquire in order of arrival
	totals  Totals
	closed  bool          // Close has begun
	cut     bool          // a Close ran out of patience: sessions are killed
	empty   chan struct{} // made when Close begins; closed when live is empty
}

// Acquire returns a lease of a session that serves r, or of the permission to open one. It prefers an
// idle session, then a new one below the limit, then a new one in place of the group's least recently
// used idle session of another key; else it waits. Calls of a group are served strictly in order of
// arrival, so that nobody starves behind calls that are easier to serve.
//
// The error is ErrClosed, ErrFull, or ctx's cause when ctx ends first. Every lease must be given back.
func (p *Pool[S]) Acquire(ctx context.Context, r Request) (*Lease[S], error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	p.calls++
	arrival := p.calls
	g := p.arrive(r)
	p.serve(g) // the call may have raised the limit
	if r.MaxWaiting > 0 && g.waiting.len >= r.MaxWaiting && !p.closed {
		p.mu.Unlock()
		return nil, ErrFull
	}
	for {
		s, w, err := p.assign(g, r, arrival)
		p.mu.Unlock()
		if w != nil {
			s, err = p.wait(ctx, w)
		}
		if err != nil {
			return nil, err
		}
		if !s.opened {
			return p.lease(s, r, false), nil
		}
		// A session that comes straight from another call is asked too: a peer may hang up right after
		// the reply that ended that call.
		if s.session.Alive() {
			return p.lease(s, r, true), nil
		}
		p.kill(s)
		p.mu.Lock()
		p.totals.Dead++
		p.free(s) // not settled: the room is this call's, unless assign finds one that came before it
	}
}

// arrive returns the group of a call that has just arrived, under the limit that the call brings. The
// lock is held.
func (p *Pool[S]) arrive(r Request) *group[S] {
	g := p.groups[r.Group]
	if g == nil {
		g = p.remember(r.Group)
	}
	if limit := max(r.Limit, 1); limit != g.limit {
		g.limit = limit
		p.trim(g)
	}
	return g
}

// assign finds a slot for a call, or a place in line if there is none or if others stand there. The
// lock is held.
func (p *Pool[S]) assign(g *group[S], r Request, arrival uint64) (*slot[S], *waiter[S], error) {
	if p.closed {
		p.settle(g)
		return nil, nil, ErrClosed
	}
	if g.waiting.len == 0 {
		if s := p.find(g, r.Keys, r.MaxUses); s != nil {
			return s, nil, nil
		}
	}
	w := g.enqueue(r, arrival)
	p.serve(g) // the call may have brought the room of a dead session
	return nil, w, nil
}

// find lends an idle session or gives permission to open one; nil if there is neither. The lock is held.
func (p *Pool[S]) find(g *group[S], keys []string, maxUses int) *slot[S] {
	for _, key := range keys {
		shelf := p.shelves[home[S]{g, key}]
		if shelf == nil {
			continue
		}
		for s := shelf.idle.last(); s != nil; s = shelf.idle.last() {
			if !s.worn(maxUses) {
				p.unpark(s)
				return s
			}
			p.retire(s)
		}
	}
	if g.slots < g.limit {
		return p.permit(g)
	}
	return nil
}

// wait blocks until the call is served, refused or given up.
func (p *Pool[S]) wait(ctx context.Context, w *waiter[S]) (*slot[S], error) {
	select {
	case <-w.answered:
		if w.slot == nil {
			return nil, ErrClosed
		}
		return w.slot, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.answered:
		// Served at the moment of giving up: what was handed over goes to the next in line. The call did
		// not use it, so that its time to be idle goes on.
		if w.slot != nil {
			p.giveBack(w.slot)
		}
	default:
		// It held no room, but stood before calls that may be able to use what is idle.
		w.group.waiting.remove(&w.place)
		p.settle(w.group)
	}
	return nil, context.Cause(ctx)
}

// lease hands s to the caller. From here on the caller alone may touch the slot's lease fields, until it
// gives the slot back under the lock.
func (p *Pool[S]) lease(s *slot[S], r Request, reused bool) *Lease[S] {
	s.idleTimeout, s.maxUses = r.IdleTimeout, r.MaxUses
	if reused {
		s.uses++
		p.reused.Add(1)
	}
	return &Lease[S]{pool: p, slot: s, reused: reused}
}

// giveBack decides what becomes of a slot whose call has ended. The lock is held.
func (p *Pool[S]) giveBack(s *slot[S]) {
	g := s.group
	switch w := g.waiting.first(); {
	case !s.opened || s.killed:
		p.free(s)
	case p.closed || s.drained || s.worn(s.maxUses) || g.present() > g.limit:
		p.retire(s)
	case w != nil && w.fits(s):
		g.answer(w, s)
	case w != nil || !s.expires.After(time.Now()):
		// Whoever waits first cannot use this session: it makes room, even if a later call could.
		p.retire(s)
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

// serve gives those who wait what there is, in order. For those who remain it makes room: an idle
// session that none of them can use ends for each. The lock is held.
func (p *Pool[S]) serve(g *group[S]) {
	for w := g.waiting.first(); w != nil; w = g.waiting.first() {
		s := p.find(g, w.keys, w.maxUses)
		if s == nil {
			break
		}
		g.answer(w, s)
	}
	for s := g.idle.first(); s != nil && g.ending < g.waiting.len; s = g.idle.first() {
		p.retire(s)
	}
}

// trim retires idle sessions above the limit, the least recently used first. The lock is held.
func (p *Pool[S]) trim(g *group[S]) {
	for s := g.idle.first(); s != nil && g.present() > g.limit; s = g.idle.first() {
		p.retire(s)
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
