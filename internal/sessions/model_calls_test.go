package sessions

import (
	"context"
	"errors"
	"slices"
	"testing/synctest"
	"time"
)

var errSuspended = errors.New("suspended")

// begin takes down what a step begins with.
func (m *model) begin() {
	m.changed, m.moving = false, false
	for _, g := range m.groups {
		g.before = slices.Clone(g.queue)
	}
}

// configure changes what belongs to a group, now and then.
func (m *model) configure(g *modelGroup) {
	if g.limit == 0 || m.chance(3) {
		g.limit, m.changed = 1+m.rng.IntN(5), true
	}
	if m.chance(3) {
		g.shared, m.changed = nil, true
		for _, name := range []string{"s", "t"} {
			if m.chance(40) {
				g.shared = append(g.shared, m.shared[name])
			}
		}
	}
	for _, s := range g.shared {
		if m.chance(2) {
			s.limit, m.changed = 1+m.rng.IntN(8), true
		}
	}
	if m.chance(2) {
		g.lending, g.lent, m.changed = m.gate(), 0, true
	}
	if m.chance(2) {
		g.opening, g.opened, m.changed = m.gate(), 0, true
	}
}

func (m *model) gate() *pacer {
	if m.chance(50) {
		return nil
	}
	return every(time.Duration(1+m.rng.IntN(1500))*time.Millisecond, 1+m.rng.IntN(6))
}

func (m *model) request(g *modelGroup) Request {
	keys := []string{"a", "b", "c", "d"}
	m.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	r := Request{
		Group:       g.name,
		Limit:       g.limit,
		Keys:        keys[:m.rng.IntN(4)],
		IdleTimeout: []time.Duration{0, time.Second, 3 * time.Second, 10 * time.Second, 10 * time.Second}[m.rng.IntN(5)],
		MaxUses:     []int{0, 0, 0, 1, 3, 8}[m.rng.IntN(6)],
		Patience:    []time.Duration{0, time.Second, 4 * time.Second, time.Hour}[m.rng.IntN(4)],
		Grace:       []time.Duration{0, time.Minute}[m.rng.IntN(2)],
		Expect:      m.expectation(),
	}
	for _, s := range g.shared {
		r.Shared = append(r.Shared, Shared{s.name, s.limit})
	}
	if g.lending != nil {
		r.Lending = g.lending
	}
	if g.opening != nil {
		r.Opening = g.opening
	}
	return r
}

// lends tells whether the call needs no Lending gate, or finds it open.
func (g *modelGroup) lends(c *modelCall) bool {
	return c.served || g.lending == nil || g.lending.Ahead(time.Now(), 1) == 0
}

// untilOpen is how long the group may open nothing.
func (g *modelGroup) untilOpen() (wait time.Duration) {
	if g.opening != nil {
		wait = g.opening.Ahead(time.Now(), 1)
	}
	return max(wait, time.Until(g.barred), 0)
}

// hope tells whether the group has a session, or will have one, that could serve the call.
func (g *modelGroup) hope(c *modelCall) bool {
	for _, h := range g.held {
		if s := h.session; s == nil && !h.drained || s != nil && !s.drained && !s.told() && slices.Contains(c.request.Keys, s.key) {
			return true
		}
	}
	return slices.ContainsFunc(g.idle, func(s *modelSession) bool { return slices.Contains(c.request.Keys, s.key) })
}

// over tells whether a limit has fallen below what is there.
func (g *modelGroup) over() bool {
	return g.present > g.limit || slices.ContainsFunc(g.shared, func(s *modelShared) bool { return s.present > s.limit })
}

// full is the limits that have no room.
func (g *modelGroup) full() (full []*modelShared) {
	for _, s := range g.shared {
		if s.size >= s.limit {
			full = append(full, s)
		}
	}
	return full
}

// pressed tells whether calls of groups that share a limit with this one wait, or waited.
func (m *model) pressed(g *modelGroup) bool {
	return slices.ContainsFunc(m.groups, func(h *modelGroup) bool {
		return len(h.before)+len(h.queue) > 0 && h.shares(g)
	})
}

func (g *modelGroup) shares(h *modelGroup) bool {
	return slices.ContainsFunc(g.shared, func(s *modelShared) bool { return slices.Contains(h.shared, s) })
}

// acquire lets a call arrive and checks that it got the best there was.
func (m *model) acquire(g *modelGroup) {
	if len(g.queue) > 12 {
		return
	}
	m.configure(g)
	c := &modelCall{number: len(m.calls), group: g, request: m.request(g)}
	m.calls = append(m.calls, c)
	expected, passed := best(g, c.request)
	var shared, comfortable []*modelSession
	var evicted *modelSession
	grows := g.size < g.limit && len(g.full()) == 0
	mustShare := false
	lends, until, hope := g.lends(c), g.untilOpen(), g.hope(c)
	if !lends {
		expected = nil
	}
	if lends && expected == nil {
		shared = g.sharable(c.request)
		if grows {
			comfortable, mustShare = g.comfortable(c.request)
			if until == 0 {
				shared = nil
			}
		} else if shared == nil && g.size >= g.limit && until == 0 {
			evicted = stalest(g, passed)
		}
	}
	opens := lends && expected == nil && grows && until == 0
	content := g.comes(c, 1)
	ousts := lends && until == 0 && g.size < g.limit && slices.ContainsFunc(g.full(), func(s *modelShared) bool { return s.idle > 0 })
	var delay time.Duration
	if g.lending != nil {
		delay = g.lending.Ahead(time.Now(), 1)
	}
	// With others in line, or room that is already being made, it is not for this call alone.
	inLine := len(g.queue) > 0 || m.ending(g) > 0 || m.pressed(g)
	unsure := anyUnsure(g.idle) || slices.ContainsFunc(g.held, func(c *modelCall) bool { return c.session != nil && c.session.unsure })

	c.ctx, c.cancel = context.WithCancel(context.Background())
	g.queue = append(g.queue, c)
	go func() {
		c.lease, c.err = m.pool.Acquire(c.ctx, c.request)
		c.answers++
	}()
	changed := m.changed
	m.settle(func(s *modelSession) bool {
		return changed || inLine && s.group == g || s == evicted || slices.Contains(passed, s) || s.group != g && s.group.shares(g)
	})
	if changed || inLine || unsure {
		return // the idle sessions above the new limit went first, or others did
	}
	if len(passed) > 0 && (until > 0 || len(g.shared) > 0 || g.lending != nil || g.opening != nil || len(shared) > 0) {
		return // the room of dead sessions came first
	}
	waits := slices.Contains(g.queue, c)
	if evicted != nil && len(passed) == 0 && waits && !content && evicted.retired.Load() == 0 {
		m.failf("call %d of %s did not get the room of session %+v", c.number, g.name, evicted)
	}
	served := !waits && c.err == nil
	switch {
	case expected != nil:
		if c.session != expected {
			m.failf("call %d with keys %v of %s got session %+v, the best was %+v", c.number, c.request.Keys, g.name, c.session, expected)
		}
	case served && c.session != nil:
		if !slices.Contains(shared, c.session) && !slices.Contains(comfortable, c.session) {
			m.failf("call %d with keys %v of %s got session %+v, and could share %+v", c.number, c.request.Keys, g.name, c.session, shared)
		}
	case served && opens && content && len(passed) == 0:
		m.failf("call %d with keys %v of %s may open a session, and expects %d of what is being opened", c.number, c.request.Keys, g.name, c.each())
	case served:
		if mustShare || !opens && !ousts && evicted == nil && len(passed) == 0 {
			m.failf("call %d with keys %v of %s may open a session, and could share %+v", c.number, c.request.Keys, g.name, comfortable)
		}
	case mustShare || len(shared)+len(comfortable) > 0 && !(grows && content) || opens && !content:
		m.failf("call %d with keys %v of %s was not served, and could share %+v, %+v, or open: %v", c.number, c.request.Keys, g.name, shared, comfortable, opens)
	default:
		m.patient(c, waits, delay, until, hope)
	}
	for _, s := range passed {
		if lends && !s.told() {
			m.failf("session %+v was passed over and kept", s)
		}
	}
}

// patient checks that a call, which was not served at arrival, waits if and only if it may.
func (m *model) patient(c *modelCall, waits bool, delay, until time.Duration, hope bool) {
	var want Delayed
	switch {
	case delay > c.request.Patience:
		want = Delayed{RetryAfter: delay}
	case until > c.request.Patience && !hope:
		want = Delayed{RetryAfter: until, Opening: true}
	default:
		if !waits {
			m.failf("call %d does not wait: %v", c.number, c.err)
		}
		return
	}
	if waits {
		m.failf("call %d of %s waits, want %v", c.number, c.group.name, &want)
	}
	if d := (*Delayed)(nil); !errors.As(c.err, &d) || *d != want {
		m.failf("call %d of %s: %v, want %v", c.number, c.group.name, c.err, &want)
	}
}

func anyUnsure(sessions []*modelSession) bool {
	return slices.ContainsFunc(sessions, func(s *modelSession) bool { return s.unsure })
}

// comfortable is the sessions in use that may be preferred to a new one, and whether one must be: the pool
// does not look at all, so that is if all are comfortable.
func (g *modelGroup) comfortable(r Request) (sessions []*modelSession, all bool) {
	all = true
	for _, c := range g.held {
		if s := c.session; s != nil && s.holders[0] == c && slices.Contains(r.Keys, s.key) && !s.told() && !s.drained {
			if s.comfortable() && !worn(s.uses, r.MaxUses) {
				sessions = append(sessions, s)
			} else {
				all = false
			}
		}
	}
	return sessions, all && sessions != nil
}

// postpone gives a permission back for a while.
func (m *model) postpone(g *modelGroup) {
	i := slices.IndexFunc(g.held, func(c *modelCall) bool { return c.session == nil })
	if i < 0 {
		return
	}
	c := g.held[i]
	if c.ctx.Err() != nil { // it gave up at the moment when it was served, and does so now for good
		g.gaveUp++
		m.moving = true
	}
	g.held = slices.Delete(g.held, i, i+1)
	wait := time.Duration(m.rng.IntN(3000)) * time.Millisecond
	if until := time.Now().Add(wait); until.After(g.barred) {
		g.barred = until
	}
	c.drained, c.answers = false, 0
	at, _ := slices.BinarySearchFunc(g.queue, c.number, func(w *modelCall, n int) int { return w.number - n })
	g.queue = slices.Insert(g.queue, at, c)
	old := c.lease
	go func() {
		c.lease, c.err = old.Postpone(c.ctx, wait)
		c.answers++
	}()
	m.settle(never)
}

// refuse sends those who wait away.
func (m *model) refuse(g *modelGroup) {
	refused := slices.Clone(g.queue)
	m.pool.Refuse(g.name, errSuspended)
	g.gaveUp += len(refused)
	m.moving = true
	m.settle(never)
	for _, c := range refused {
		if slices.Contains(g.queue, c) || c.err != errSuspended {
			m.failf("call %d was not refused", c.number)
		}
	}
}

// outstay waits until a Close that is soft kills what has a Grace, and checks that it kills no more.
func (m *model) outstay() {
	for _, d := range []time.Duration{time.Minute - time.Nanosecond, time.Nanosecond} {
		before := make(map[*modelSession]bool)
		for _, s := range m.sessions {
			before[s] = s.killed.Load() > 0
		}
		time.Sleep(d)
		synctest.Wait()
		for _, g := range m.groups {
			for _, c := range g.held {
				s := c.session
				if s == nil || s.unsure || before[s] {
					continue
				}
				if killed := s.killed.Load() > 0; killed != (s.grace > 0 && d == time.Nanosecond) {
					m.failf("session %+v with grace %v: killed %v", s, s.grace, killed)
				}
			}
		}
	}
}
