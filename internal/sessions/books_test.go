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
	for _, g := range m.groups {
		stood := len(g.queue) > 0
		m.answers(g)
		m.takeEnded(g, func(s *modelSession) bool { return stood || mayEnd(s) }) // making room for them
		m.check(g)
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
		stats[i].Opened = 0
	}
	if !slices.Equal(stats, want) {
		m.failf("stats %+v, want %+v", stats, want)
	}
}

// answers moves calls from the line to the leases, and checks the order.
func (m *model) answers(g *modelGroup) {
	var waiting []*modelCall
	for _, c := range g.queue {
		switch {
		case c.answers == 0:
			waiting = append(waiting, c)
			continue
		case c.answers > 1:
			m.failf("call %d was answered %d times", c.number, c.answers)
		case c.err != nil:
			if !errors.Is(c.err, context.Canceled) || c.lease != nil {
				m.failf("call %d: %v, lease %v", c.number, c.err, c.lease)
			}
			continue
		case len(waiting) > int(g.foundDead.Load()):
			// A call that was served with a dead session while the limit fell waits again, in its old
			// place; but who was served while it found that out was served.
			m.failf("call %d was served before call %d", c.number, waiting[0].number)
		}
		g.held = append(g.held, c)
		s, ok := c.lease.Session()
		if ok != c.lease.Reused() {
			m.failf("call %d: session %v, reused %v", c.number, ok, c.lease.Reused())
		}
		if !ok {
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
		s.holders, c.session, s.maxUses = append(s.holders, c), s, c.request.MaxUses
	}
	g.queue = waiting
	g.foundDead.Store(0)
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
		case !s.expires.After(time.Now()):
			m.failf("session %+v is idle beyond its time", s)
		default:
			idle = append(idle, s)
		}
	}
	g.idle = idle
}

// check compares the group with its limit.
func (m *model) check(g *modelGroup) {
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
	case len(g.queue) > 0 && size < g.limit:
		m.failf("in %s %d calls wait while %d of %d places are used", g.name, len(g.queue), size, g.limit)
	case len(g.queue) > ending && len(g.idle) > 0:
		m.failf("in %s %d calls wait while %d sessions are idle and %d are ending", g.name, len(g.queue), len(g.idle), ending)
	}
	if len(g.queue) > 0 {
		first := g.queue[0].request
		if s, passed := best(g, first); s != nil || len(passed) > 0 {
			m.failf("call %d of %s with keys %v waits while session %+v is idle", g.queue[0].number, g.name, first.Keys, s)
		}
	}
	g.size, g.present = size, present
	if len(g.queue) > 0 {
		first := g.queue[0].request
		if s := g.shared(first); s != nil {
			m.failf("call %d of %s with keys %v waits while it could share %+v", g.queue[0].number, g.name, first.Keys, s)
		}
		if s, passed := best(g, first); s != nil || len(passed) > 0 {
			m.failf("call %d of %s with keys %v waits while session %+v is idle", g.queue[0].number, g.name, first.Keys, s)
		}
	}
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
