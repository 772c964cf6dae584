// Package sessions decides which connection a call uses: an idle one, one in use that would serve it
// sooner than a new one, a new one, or, when a limit is reached, any one in use that has room, or the next
// one to come free. It knows neither mail nor wires. Whoever holds a [Lease] opens, uses and judges the
// session; the pool lends, counts, ends and lets callers wait in order.
//
// A session that can serve several calls at the same time says so by its Capacity, and is lent to as
// many: each has a lease of its own. Up to its Comfort it is shared before another one is opened; beyond
// that, calls are spread over sessions up to the limit, and share them only then. What ends a session
// waits for the last of those who share it, but for Kill.
//
// Limits and rates belong to a group (the ready name), and groups may share a limit; what may serve a call
// belongs to a key (all that makes two connections interchangeable). A session is lent only to a call that
// names the key under which it was opened.
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

// Pool keeps sessions of one kind. The zero value is ready for use; its methods are safe for concurrent
// use. It must not be copied. Groups without session, lease or waiting call take no memory, nor do limits
// that only such groups share, and a pool in which nothing happens has timers but no goroutine.
type Pool[S Session] struct {
	reused atomic.Uint64
	lines  atomic.Int64 // how many calls wait, of all groups

	mu       sync.Mutex
	groups   map[string]*group[S]
	shelves  map[home[S]]*shelf[S]
	quotas   map[string]*quota[S]
	live     map[*slot[S]]struct{} // every slot from its permission to open until its session has ended
	arrivals uint64                // numbers the calls of Acquire in order
	parks    uint64                // numbers the moments at which sessions became idle
	totals   Totals
	closed   time.Time                     // when Close began; zero: it has not
	graces   map[time.Duration]*time.Timer // made when Close begins: kill what is lent for longer
	cut      bool                          // a Close ran out of patience: sessions are killed
	empty    chan struct{}                 // made when Close begins; closed when live is empty
}

// Acquire returns a lease of a session that serves r, or of the permission to open one. It prefers, in
// this order: an idle session; below the limits a share of one in use that has comfort for it, or the wait
// for one that is being opened and expected to have (Expect), or a new one, if the Opening gate lets it pass;
// a share of one in use that has room; a new one in place of the least recently used idle session that counts
// against the limit which is full. Else it waits.
//
// Calls of a group are served strictly in order of arrival, so that nobody starves behind calls that are
// easier to serve, and so is the room of a limit that groups share, among the calls that can use it. A
// call whose session turned out dead, and for which there is no other, waits in its old place.
//
// The error is ErrClosed, ErrFull, a *Delayed, what Refuse was given, or ctx's cause when ctx ends first.
// Every lease must be given back.
func (p *Pool[S]) Acquire(ctx context.Context, r Request) (*Lease[S], error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := claim{keys: r.Keys, maxUses: r.MaxUses, idleTimeout: r.IdleTimeout, patience: max(r.Patience, 0), grace: r.Grace, passed: r.Passed, expect: r.Expect}
	p.mu.Lock()
	p.arrivals++
	c.arrival = p.arrivals
	g := p.arrive(&r)
	if r.MaxWaiting > 0 && g.waiting.len >= r.MaxWaiting && p.closed.IsZero() {
		p.mu.Unlock()
		return nil, ErrFull
	}
	return p.seek(ctx, g, &c)
}

// arrive returns the group of a call that has just arrived, under the limits and gates that the call
// brings. Those who wait get first what these allow. The lock is held.
func (p *Pool[S]) arrive(r *Request) *group[S] {
	g := p.groups[r.Group]
	if g == nil {
		g = p.remember(r.Group)
	}
	if limit := max(r.Limit, 1); limit != g.limit {
		g.limit = limit
		p.trim(g)
	}
	if r.Lending != nil || r.Opening != nil || g.gates != nil {
		g.gated().lending, g.gates.opening = r.Lending, r.Opening
	}
	if len(r.Shared) > 0 || len(g.stakes) > 0 {
		p.stake(g, r.Shared)
	}
	if g.waiting.len > 0 {
		p.serve(g)
	}
	return g
}

// seek gets a call what serves it. The lock is held, and no more when seek returns.
func (p *Pool[S]) seek(ctx context.Context, g *group[S], c *claim) (*Lease[S], error) {
	for {
		s, w, err := p.assign(g, c)
		p.mu.Unlock()
		if w != nil {
			s, err = p.wait(ctx, w)
			c.passed, c.waited = w.passed, w.waited
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

// assign finds a slot for a call, or a place in line if there is none or if others stand there. The
// lock is held.
func (p *Pool[S]) assign(g *group[S], c *claim) (*slot[S], *waiter[S], error) {
	if !p.closed.IsZero() {
		p.settle(g)
		return nil, nil, ErrClosed
	}
	if g.waiting.len == 0 {
		if s := p.find(g, c); s != nil {
			p.refill(g.stakes) // the room of a dead session may be left
			return s, nil, nil
		}
	}
	if g.gates != nil {
		if d := p.tooLong(g, c); d != nil {
			p.settle(g)
			return nil, nil, d
		}
	}
	w := g.enqueue(c)
	p.settle(g) // the call may have brought the room of a dead session
	return nil, w, nil
}

// share lets others use a session that was found alive.
func (p *Pool[S]) share(s *slot[S]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.asking = false
	p.offer(s)
	if s.turn != nil {
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
		w.group.leave(w)
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
	} else {
		kept := *c // for Postpone
		s.claim = &kept
	}
	return &Lease[S]{pool: p, slot: s, idleTimeout: c.idleTimeout, maxUses: c.maxUses, reused: s.opened, waited: c.waited}
}

// remember makes a group; settle forgets it. The lock is held.
func (p *Pool[S]) remember(name string) *group[S] {
	if p.groups == nil {
		p.groups = make(map[string]*group[S])
		p.shelves = make(map[home[S]]*shelf[S])
		p.live = make(map[*slot[S]]struct{})
	}
	g := &group[S]{name: name, lines: &p.lines}
	p.groups[name] = g
	return g
}

// forget drops a group of which nothing is left. The lock is held.
func (p *Pool[S]) forget(g *group[S]) {
	delete(p.groups, g.name)
	if g.gates != nil && g.gates.timer != nil {
		g.gates.timer.Stop()
	}
	for _, k := range g.stakes {
		p.leaveQuota(k)
	}
}
