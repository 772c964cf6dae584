package sessions

import (
	"context"
	"errors"
	"slices"
	"testing/synctest"
	"time"
)

func never(*modelSession) bool { return false }

// settle waits until the pool rests, takes the answers down and checks every promise. An idle session
// may have ended only if mayEnd says so, or if it was given back in this very step.
func (m *model) settle(mayEnd func(*modelSession) bool) {
	m.t.Helper()
	synctest.Wait()
	opened, present := uint64(len(m.sessions)), 0
	stood := make(map[*modelGroup]bool) // with calls for whom room is made
	for _, g := range m.groups {
		stood[g] = len(g.queue) > 0 || m.pressed(g)
	}
	for _, g := range m.groups {
		m.answers(g)
		m.takeEnded(g, func(s *modelSession) bool { return stood[g] || m.changed || mayEnd(s) })
	}
	m.measure()
	for _, g := range m.groups {
		m.check(g)
	}
	m.inTurn()
	for _, g := range m.groups {
		g.before = slices.Clone(g.queue)
		present += len(g.idle)
		for _, c := range g.held {
			if c.first() && c.session != nil && c.session.killed.Load() == 0 {
				present++
			}
		}
	}
	m.returned, m.raced = nil, nil
	stats, totals := m.pool.Stats(), m.pool.Totals()
	if totals.Opened != opened || totals.Reused != m.reused || totals.Opened != totals.Retired+totals.Killed+uint64(present) || totals.Dead > totals.Killed {
		m.failf("totals %+v; %d opened, %d reused, %d present", totals, opened, m.reused, present)
	}
	var want []GroupStats
	for _, g := range m.groups {
		if s := (GroupStats{Group: g.name, Limit: g.limit, Idle: len(g.idle), Ending: m.ending(g), Waiting: len(g.queue)}); len(g.held)+len(g.idle)+len(g.queue) > 0 {
			for _, c := range g.held {
				switch {
				case c.session == nil:
					s.Opening++
				case c.first():
					s.Lent++
					fallthrough
				default:
					s.Calls++
				}
			}
			want = append(want, s)
		}
	}
	for i := range stats {
		if stats[i].Held && stats[i].Waiting == 0 {
			m.failf("a gate stops nobody: %+v", stats[i])
		}
		stats[i].Opened, stats[i].Held = 0, false
	}
	if !slices.Equal(stats, want) {
		m.failf("stats %+v, want %+v", stats, want)
	}
}

// answers moves calls from the line to the leases, and checks the order.
func (m *model) answers(g *modelGroup) {
	var waiting []*modelCall
	dead, served := int(g.foundDead.Swap(0)), 0
	g.granted = nil
	for _, c := range g.queue {
		switch {
		case c.answers == 0:
			waiting = append(waiting, c)
			continue
		case c.answers > 1:
			m.failf("call %d was answered %d times", c.number, c.answers)
		case c.err != nil:
			m.refused(g, c)
			continue
		case len(waiting) > dead:
			// A call that was served with a dead session while the limit fell waits again, in its old
			// place; but who was served while it found that out was served.
			m.failf("call %d was served before call %d", c.number, waiting[0].number)
		}
		g.held = append(g.held, c)
		if !c.served {
			c.served = true
			served++
		}
		s, ok := c.lease.Session()
		if ok != c.lease.Reused() {
			m.failf("call %d: session %v, reused %v", c.number, ok, c.lease.Reused())
		}
		if !ok {
			g.granted = append(g.granted, c)
			continue
		}
		m.reused++
		s.uses++
		switch {
		case len(s.holders) >= int(max(s.capacity.Load(), 1)):
			m.failf("session %+v was lent beyond its capacity", s)
		case s.told() || s.drained || s.dead.Load() && len(s.holders) == 0 && s != m.raced:
			m.failf("session %+v was lent after its end", s)
		case s.group != g || !slices.Contains(c.request.Keys, s.key):
			m.failf("session %+v was lent to a call of %s with keys %v", s, g.name, c.request.Keys)
		case c.request.MaxUses > 0 && s.uses > c.request.MaxUses:
			m.failf("session %+v was lent more than %d times", s, c.request.MaxUses)
		}
		s.holders, c.session, s.maxUses, s.grace = append(s.holders, c), s, c.request.MaxUses, c.request.Grace
		s.unsure = s.unsure && m.moving || dead > 0 // who came last then is not to be told
	}
	g.queue = waiting
	m.gates(g, served, dead)
}

// refused checks the error of a call.
func (m *model) refused(g *modelGroup, c *modelCall) {
	var d *Delayed
	switch {
	case c.lease != nil:
		m.failf("call %d: %v, lease %v", c.number, c.err, c.lease)
	case errors.As(c.err, &d):
		if d.RetryAfter <= c.request.Patience {
			m.failf("call %d with patience for %v: %v", c.number, c.request.Patience, c.err)
		}
	case c.err == errSuspended || errors.Is(c.err, context.Canceled):
	default:
		m.failf("call %d: %v", c.number, c.err)
	}
}

// gates compares what passed the gates in this step with what the calls got.
func (m *model) gates(g *modelGroup, served, dead int) {
	if g.opening != nil {
		passed := g.opening.count() - g.opened
		g.opened += passed
		if passed < len(g.granted) || passed > len(g.granted)+g.gaveUp {
			m.failf("in %s %d events for %d permissions to open, %d gave up", g.name, passed, len(g.granted), g.gaveUp)
		}
	}
	spare := dead
	if g.lending != nil {
		passed := g.lending.count() - g.lent
		g.lent += passed
		spare = passed - served
		if spare > dead+g.gaveUp || spare < -g.prepaid {
			m.failf("in %s %d events for %d calls that were served, %d gave up, %d sessions found dead, %d have passed before", g.name, passed, served, g.gaveUp, dead, g.prepaid)
		}
	}
	g.gaveUp = 0
	if g.prepaid += spare; len(g.queue) == 0 {
		g.prepaid = 0
	}
}

// takeEnded takes those sessions from the idle ones that are lent or have ended.
func (m *model) takeEnded(g *modelGroup, mayEnd func(*modelSession) bool) {
	var idle []*modelSession
	for _, s := range g.idle {
		switch {
		case len(s.holders) > 0:
		case s.told():
			if s != m.returned && !mayEnd(s) {
				m.failf("idle session %+v was ended for no reason", s)
			}
			if s.retired.Load() > 0 && s.why == Idle && s.expires.After(time.Now()) {
				m.failf("session %+v was ended as idle before its time", s)
			}
		case !s.expires.After(time.Now()):
			m.failf("session %+v is idle beyond its time", s)
		default:
			idle = append(idle, s)
		}
	}
	g.idle = idle
}

// measure counts what counts against the limits, and compares it with them.
func (m *model) measure() {
	before := make(map[*modelShared]int)
	for _, s := range m.shared {
		before[s] = s.size
		s.size, s.present, s.idle, s.ending = 0, 0, 0, 0
	}
	for _, g := range m.groups {
		ending := m.ending(g)
		present := len(g.idle)
		for _, c := range g.held {
			if c.first() {
				present++
			}
		}
		size := present + ending
		switch {
		case size > g.limit && size > g.size:
			m.failf("%s grew from %d to %d above the limit of %d", g.name, g.size, size, g.limit)
		case present > g.limit && len(g.idle) > 0:
			m.failf("%s keeps %d idle sessions of %d above the limit of %d", g.name, len(g.idle), size, g.limit)
		}
		g.size, g.present = size, present
		for _, s := range g.shared {
			s.size, s.present, s.idle, s.ending = s.size+size, s.present+present, s.idle+len(g.idle), s.ending+ending
		}
	}
	for _, s := range m.shared {
		switch {
		case s.size > s.limit && s.size > before[s] && !m.changed:
			m.failf("those who share %s grew from %d to %d above the limit of %d", s.name, before[s], s.size, s.limit)
		case s.present > s.limit && s.idle > 0:
			m.failf("those who share %s keep %d idle sessions of %d above the limit of %d", s.name, s.idle, s.size, s.limit)
		}
	}
}

// check looks whether somebody waits in the group for what there is.
func (m *model) check(g *modelGroup) {
	if len(g.queue) == 0 {
		return
	}
	until := g.untilOpen()
	for _, c := range g.queue {
		if until > c.request.Patience && !g.hope(c) {
			m.failf("call %d of %s with patience for %v waits, nothing is opened for %v, and no session can serve it", c.number, g.name, c.request.Patience, until)
		}
	}
	first := g.queue[0]
	if !g.lends(first) {
		return
	}
	if s, passed := best(g, first.request); s != nil || len(passed) > 0 {
		m.failf("call %d of %s with keys %v waits while session %+v is idle", first.number, g.name, first.request.Keys, s)
	}
	contented := g.contented() // perhaps since there was room, that another group has taken meanwhile
	if s := g.sharable(first.request); s != nil && !anyUnsure(s) && !contented {
		m.failf("call %d of %s with keys %v waits while it could share %+v: %s", first.number, g.name, first.request.Keys, s, g.expectations())
	}
	if until > 0 {
		return
	}
	full, ending := g.full(), m.ending(g)
	if contented {
		return
	}
	wanted := len(g.queue)
	if g.lending != nil || g.opening != nil || slices.ContainsFunc(g.queue, func(c *modelCall) bool { return c.each() > 1 }) {
		wanted = 1
	}
	switch {
	case g.size < g.limit && len(full) == 0:
		m.failf("in %s %d calls wait while %d of %d places are used: %s", g.name, len(g.queue), g.size, g.limit, g.expectations())
	case g.size >= g.limit && wanted > ending && len(g.idle) > 0:
		m.failf("in %s %d calls wait while %d sessions are idle and %d are ending", g.name, len(g.queue), len(g.idle), ending)
	case g.size < g.limit && len(full) == 1 && min(wanted, g.limit-g.size) > full[0].ending && full[0].idle > 0:
		m.failf("in %s %d calls wait for %s alone, where %d sessions are idle and %d are ending", g.name, len(g.queue), full[0].name, full[0].idle, full[0].ending)
	}
}

// inTurn checks that the room of a shared limit went to the call that came first of those who could use it.
func (m *model) inTurn() {
	if m.moving || m.changed {
		return
	}
	for _, g := range m.groups {
		if len(g.queue) == 0 || !slices.Contains(g.before, g.queue[0]) || g.size >= g.limit || !g.lends(g.queue[0]) || g.untilOpen() > 0 || g.contented() {
			continue
		}
		for _, h := range m.groups {
			for _, c := range h.granted {
				if c.number > g.queue[0].number && h.shares(g) && g.fitsWithout(h) {
					m.failf("call %d of %s got room that call %d of %s could have used", c.number, h.name, g.queue[0].number, g.name)
				}
			}
		}
	}
}

// fitsWithout tells whether the group could grow if h had one session less.
func (g *modelGroup) fitsWithout(h *modelGroup) bool {
	return !slices.ContainsFunc(g.full(), func(s *modelShared) bool { return s.size > s.limit || !slices.Contains(h.shared, s) })
}

// first tells whether the call is alone with its session or permission, or the first of those who share.
func (c *modelCall) first() bool { return c.session == nil || c.session.holders[0] == c }

// ending is how many sessions of the group are being retired and have not ended.
func (m *model) ending(g *modelGroup) (n int) {
	m.ends = slices.DeleteFunc(m.ends, func(s *modelSession) bool { return s.ended.Load() })
	for _, s := range m.ends {
		if s.group == g && s.retired.Load() > 0 {
			n++
		}
	}
	return n
}
