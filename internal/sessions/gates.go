package sessions

import "time"

// gates are what holds a group up besides its limits. All fields are guarded by the pool's lock.
type gates struct {
	lending, opening Gate      // of the latest request
	barred           time.Time // nothing is opened until then: a call has postponed its permission
	timer            *time.Timer
	armed            time.Time // when timer fires; zero: it does not

	wait    time.Duration // how long a gate stops the call that was last looked at; 0: none does
	stopped time.Time     // since when a gate stops the first in line; zero: none does
	lost    time.Duration // how long gates stopped the line before that

	// Those who wait have been told if they can expect no session before examined, and until then there is
	// nothing to tell unless the group has become poorer.
	examined time.Time
	poorer   bool
}

// jitter is by how much the estimate of a gate may grow without being looked at as news.
const jitter = time.Millisecond

// gated returns the group's gates, and makes them if need be.
func (g *group[S]) gated() *gates {
	if g.gates == nil {
		g.gates = new(gates)
	}
	return g.gates
}

// stopped tells whether a gate stops the call that was last looked at.
func (g *group[S]) stopped() bool { return g.gates != nil && g.gates.wait > 0 }

// admits lets a call that is about to be served pass the Lending gate, once.
func (g *group[S]) admits(c *claim) bool {
	if g.gates != nil && !c.passed && g.gates.lending != nil {
		if g.gates.wait = g.gates.lending.Pass(time.Now()); g.gates.wait > 0 {
			return false
		}
	}
	c.passed = true
	return true
}

// mayOpen tells whether the Opening gate is likely to let a session pass.
func (g *group[S]) mayOpen() bool {
	if g.gates == nil {
		return true
	}
	g.gates.wait = g.gates.untilOpen(time.Now(), 1)
	return g.gates.wait <= 0
}

// opens passes the Opening gate. Other pools may have been there since mayOpen.
func (g *group[S]) opens() bool {
	if g.gates == nil || g.gates.opening == nil {
		return true
	}
	g.gates.wait = g.gates.opening.Pass(time.Now())
	return g.gates.wait <= 0
}

// untilOpen is how long the Opening gate holds the n-th session from now up.
func (t *gates) untilOpen(now time.Time, n int) (wait time.Duration) {
	if t.opening != nil {
		wait = t.opening.Ahead(now, n)
	}
	if !t.barred.IsZero() {
		wait = max(wait, t.barred.Sub(now))
	}
	return wait
}

// allows tells whether the gates let the n-th of those in line open a session now. If they do not, they are
// asked again when they will. The lock is held.
func (p *Pool[S]) allows(g *group[S], n int) bool {
	t := g.gates
	if t == nil {
		return true
	}
	now := time.Now()
	wait := t.untilOpen(now, n)
	if unpaid := n - g.prepaid(); t.lending != nil && unpaid > 0 {
		wait = max(wait, t.lending.Ahead(now, unpaid))
	}
	switch {
	case wait <= 0:
		return true
	case n == 1:
		t.wait = wait // the line is stopped
	default:
		p.wakeIn(g, wait)
	}
	return false
}

// prepaid is how many calls at the head of the line have passed the Lending gate.
func (g *group[S]) prepaid() (n int) {
	for w := g.waiting.front; w != nil && w.of.passed; w = w.next {
		n++
	}
	return n
}

// tooLong tells whether a gate would hold a call, which comes to wait, up for longer than its patience.
// The lock is held.
func (p *Pool[S]) tooLong(g *group[S], c *claim) *Delayed {
	now := time.Now()
	if t := g.gates; t.lending != nil && !c.passed {
		if wait := t.lending.Ahead(now, g.waiting.len-g.prepaid()+1); wait > c.patience {
			return p.delay(wait, false)
		}
	}
	if wait := g.gates.untilOpen(now, 1); wait > c.patience && wait > 0 && !p.hope(g, c) {
		return p.delay(wait, true)
	}
	return nil
}

func (p *Pool[S]) delay(wait time.Duration, opening bool) *Delayed {
	p.totals.Delayed++
	return &Delayed{RetryAfter: wait, Opening: opening}
}

// hope tells whether the group has a session that may come to serve the call. The lock is held.
func (p *Pool[S]) hope(g *group[S], c *claim) bool {
	if g.coming.slots.len > 0 {
		return true
	}
	for _, key := range c.keys {
		if shelf := p.shelves[home[S]{g, key}]; shelf != nil && shelf.usable > 0 {
			return true
		}
	}
	return false
}

// refuseHopeless refuses those of the line who would wait for the Opening gate for longer than their
// patience, while the group has no session that could serve them. It tells whether there were any. The
// lock is held.
func (p *Pool[S]) refuseHopeless(g *group[S]) (any bool) {
	t := g.gates
	if t == nil {
		return false
	}
	now := time.Now()
	wait := t.untilOpen(now, 1)
	if wait <= 0 {
		t.examined = time.Time{}
		return false
	}
	until := now.Add(wait)
	if !t.poorer && !until.After(t.examined.Add(jitter)) {
		if until.Before(t.examined) {
			t.examined = until
		}
		return false
	}
	t.examined, t.poorer = until, false
	for n := g.waiting.front; n != nil; {
		w := n.of
		n = n.next
		if wait > w.patience && !p.hope(g, &w.claim) {
			g.answer(w, nil, p.delay(wait, true))
			any = true
		}
	}
	return any
}

// pause takes down whether a gate stops the line, and sees to it that the gate is asked again. The lock
// is held.
func (p *Pool[S]) pause(g *group[S]) {
	t := g.gates
	switch {
	case g.waiting.len > 0 && t.wait > 0:
		if t.stopped.IsZero() {
			t.stopped = time.Now()
		}
		p.wakeIn(g, t.wait)
	case !t.stopped.IsZero():
		t.lost = t.lostTime()
		t.stopped = time.Time{}
	}
}

// lostTime is how long gates have stopped the group's line, all in all.
func (t *gates) lostTime() time.Duration {
	if t.stopped.IsZero() {
		return t.lost
	}
	return t.lost + time.Since(t.stopped)
}

// wakeIn lets the group be served after wait, or sooner: what is woken too early sets the timer again. The
// lock is held.
func (p *Pool[S]) wakeIn(g *group[S], wait time.Duration) {
	t := g.gates
	at := time.Now().Add(wait)
	if !t.armed.IsZero() && !t.armed.After(at) {
		return
	}
	t.armed = at
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, func() { p.revisit(g) })
		return
	}
	t.timer.Reset(wait)
}

// revisit serves those who wait in a group, unless it was forgotten.
func (p *Pool[S]) revisit(g *group[S]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.gates.armed = time.Time{}
	if p.groups[g.name] == g {
		p.settle(g)
	}
}

// bar lets the group open nothing for wait. The lock is held.
func (p *Pool[S]) bar(g *group[S], wait time.Duration) {
	if until := time.Now().Add(wait); wait > 0 && until.After(g.gated().barred) {
		g.gates.barred = until
	}
}

// keepBarred keeps a group, of which nothing else is left, for as long as it may open nothing. The lock
// is held.
func (p *Pool[S]) keepBarred(g *group[S]) bool {
	if g.gates.barred.IsZero() {
		return false
	}
	left := time.Until(g.gates.barred)
	if left > 0 {
		p.wakeIn(g, left)
	}
	return left > 0
}
