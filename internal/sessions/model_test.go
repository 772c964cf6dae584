package sessions

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "run the model test with this seed alone")
	modelSeeds = flag.Int("model.seeds", 32, "how many seeds the model test runs")
	modelSteps = flag.Int("model.steps", 3000, "steps of the model test per seed")
)

// TestModel drives a pool with random calls in virtual time. It keeps its own books from what it can
// see from outside, and after each step compares them with what the pool promises.
func TestModel(t *testing.T) {
	var seeds []uint64
	for i := range *modelSeeds {
		seeds = append(seeds, uint64(i+1))
	}
	if *modelSeed != 0 {
		seeds = []uint64{*modelSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("model.seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 1)), shared: make(map[string]*modelShared)}
				for _, name := range []string{"s", "t"} {
					m.shared[name] = &modelShared{name: name, limit: 4}
				}
				for i := range 4 {
					m.groups = append(m.groups, &modelGroup{name: fmt.Sprint("g", i)})
				}
				t.Cleanup(m.cancel)
				for m.step = range *modelSteps {
					m.act()
				}
				m.close()
			})
		})
	}
}

type model struct {
	t        *testing.T
	rng      *rand.Rand
	pool     Pool[*modelSession]
	groups   []*modelGroup
	calls    []*modelCall
	sessions []*modelSession
	step     int
	doing    string
	reused   uint64
	ends     []*modelSession // those that have not ended
	shared   map[string]*modelShared
	changed  bool          // a configuration changed in this step
	moving   bool          // time passed in this step, or calls gave up: what came first is not to be told
	returned *modelSession // given back in this step: release judges what becomes of it
	raced    *modelSession // given back in this step, before or after calls that wait could share it
}

type modelGroup struct {
	name             string
	limit            int
	shared           []*modelShared
	lending, opening *pacer // nil: none
	barred           time.Time
	queue            []*modelCall    // waiting, in order of arrival
	held             []*modelCall    // with a lease
	idle             []*modelSession // in order of being given back
	// After the last step: held, idle and ending; without those that are ending.
	size, present int
	foundDead     atomic.Int32 // sessions that calls found dead in this step
	// What the gates and the calls did until the last step. Calls that wait with their event used up, since
	// their session was dead, are no more than prepaid.
	lent, opened, prepaid int
	gaveUp                int          // calls that gave up in this step
	granted               []*modelCall // permissions given in this step
	before                []*modelCall // the queue before this step
}

// modelShared is a limit that groups share.
type modelShared struct {
	name          string
	limit         int
	size, present int // after the last step
	idle, ending  int
}

type modelCall struct {
	number  int
	group   *modelGroup
	request Request
	ctx     context.Context
	cancel  context.CancelFunc
	served  bool // and has passed the Lending gate
	lease   *Lease[*modelSession]
	err     error
	answers int
	session *modelSession
	drained bool // Drain came while the call held the permission to open
}

type modelSession struct {
	group     *modelGroup
	key       string
	dead      atomic.Bool // also read by calls that a timer of the pool woke
	slowness  time.Duration
	capacity  atomic.Int32
	comfort   atomic.Int32
	grace     time.Duration // of the call that it was lent to last
	unsure    bool          // the last one may have been a call that gave up, and the pool goes by what it said
	why       Reason
	seen      atomic.Int32 // the capacity that the pool read last
	uses      int
	maxUses   int          // of the call that it was lent to last
	holders   []*modelCall // that share it
	drained   bool         // lent no more
	expires   time.Time
	cut       chan struct{}
	retired   atomic.Int32
	killed    atomic.Int32
	ended     atomic.Bool
	afterKill atomic.Bool
}

func (s *modelSession) Capacity() int {
	s.seen.Store(s.capacity.Load())
	return int(s.capacity.Load())
}

// hasRoom tells whether the pool knows of room for one more call.
func (s *modelSession) hasRoom() bool {
	room := int(max(min(s.capacity.Load(), s.seen.Load()), 1))
	return !s.drained && !s.told() && !worn(s.uses, s.maxUses) && len(s.holders) > 0 && len(s.holders) < room
}

// leave takes a call from the session, and tells whether it was the last.
func (s *modelSession) leave(c *modelCall) bool {
	s.holders = slices.DeleteFunc(s.holders, func(h *modelCall) bool { return h == c })
	return len(s.holders) == 0
}

func (s *modelSession) Alive() bool {
	if s.dead.Load() {
		s.group.foundDead.Add(1)
		return false
	}
	return true
}

func (s *modelSession) Comfort() int { return int(s.comfort.Load()) }

// comfortable tells whether the pool prefers the session to a new one, if it looks at it.
func (s *modelSession) comfortable() bool {
	return s.hasRoom() && len(s.holders) < int(s.comfort.Load())
}

func (s *modelSession) Retire(why Reason) {
	select {
	case <-s.cut:
		s.afterKill.Store(true)
	default:
	}
	s.why = why
	s.retired.Add(1)
	// Timers that are due at once run on the goroutines that make them. Under the race detector of Go
	// 1.26 two such at the same time share one state in a bubble, and the detector crashes.
	if s.slowness > 0 {
		select {
		case <-time.After(s.slowness):
		case <-s.cut:
		}
	}
	s.ended.Store(true)
}

func (s *modelSession) Kill() {
	s.killed.Add(1)
	close(s.cut)
	s.ended.Store(true)
}

func (s *modelSession) told() bool { return s.retired.Load()+s.killed.Load() > 0 }

func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("step %d (%s), %v: "+format, append([]any{m.step, m.doing, time.Now().Format("05.000")}, args...)...)
}

// chance is true in percent of the cases.
func (m *model) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *model) act() {
	g := m.groups[m.rng.IntN(len(m.groups))]
	m.begin()
	switch n := m.rng.IntN(100); {
	case n < 40:
		m.doing = "acquire"
		m.acquire(g)
	case n < 43:
		m.doing = "postpone"
		m.postpone(g)
	case n < 80:
		m.doing = "finish"
		m.finish(g)
	case n < 84:
		m.doing = "giveUp"
		m.giveUp(g)
	case n < 88:
		m.doing = "race"
		m.race(g)
	case n < 93:
		m.doing = "kill"
		m.kill(g)
	case n < 95:
		m.doing = "resize"
		m.resize(g)
	case n < 99:
		m.doing = "pass"
		m.pass(time.Duration(m.rng.IntN(4000)) * time.Millisecond)
	case m.chance(50):
		m.doing = "refuse"
		m.refuse(g)
	default:
		m.doing = "drain"
		m.drain(g)
	}
}

// sharable is the sessions in use that the request may share: those of the best key that has any.
func (g *modelGroup) sharable(r Request) (sessions []*modelSession) {
	if g.over() {
		return nil
	}
	for _, key := range r.Keys {
		for _, c := range g.held {
			if s := c.session; s != nil && s.holders[0] == c && s.key == key && s.hasRoom() && !worn(s.uses, r.MaxUses) {
				sessions = append(sessions, s)
			}
		}
		if sessions != nil {
			return sessions
		}
	}
	return nil
}

// best is the session that the request should get, and those before it that are dead or worn.
func best(g *modelGroup, r Request) (expected *modelSession, passed []*modelSession) {
	for _, key := range r.Keys {
		for _, s := range slices.Backward(g.idle) {
			switch {
			case s.key != key:
			case s.dead.Load() || worn(s.uses, r.MaxUses):
				passed = append(passed, s)
			default:
				return s, passed
			}
		}
	}
	return nil, passed
}

// stalest is the least recently used idle session that is not among the passed.
func stalest(g *modelGroup, passed []*modelSession) *modelSession {
	for _, s := range g.idle {
		if !slices.Contains(passed, s) {
			return s
		}
	}
	return nil
}

// finish opens a session, or ends a lease in one of its ways.
func (m *model) finish(g *modelGroup) {
	if len(g.held) == 0 {
		return
	}
	i := m.rng.IntN(len(g.held))
	c := g.held[i]
	if c.session == nil && m.chance(80) {
		m.open(c)
		return
	}
	g.held = slices.Delete(g.held, i, i+1)
	s := c.session
	last := s != nil && s.leave(c)
	switch n := m.rng.IntN(10); {
	case n == 0:
		c.lease.Discard()
		if s != nil && s.killed.Load() == 0 {
			m.failf("session %+v was discarded and not killed", s)
		}
		m.settle(never)
	case n == 1:
		if s != nil {
			s.drained = true
		}
		c.lease.Retire()
		m.settle(never)
		if last && !s.told() || s != nil && !last && s.retired.Load() > 0 {
			m.failf("session %+v after Retire", s)
		}
	default:
		m.release(c, last)
	}
}

// open gives the call a session of a random key. A second one is killed.
func (m *model) open(c *modelCall) {
	s := m.session(c.group, string(rune('a'+m.rng.IntN(4))))
	s.uses, s.maxUses, s.grace, s.drained = 1, c.request.MaxUses, c.request.Grace, c.drained
	s.slowness = time.Duration(m.rng.IntN(2000)) * time.Millisecond
	s.holders = []*modelCall{c}
	c.session = s
	c.lease.Opened(s.key, s)
	if m.chance(5) {
		second := &modelSession{cut: make(chan struct{})}
		c.lease.Opened("a", second)
		if second.killed.Load() == 0 {
			m.failf("a second session for a lease was not killed")
		}
	}
	if got, ok := c.lease.Session(); got != s || !ok || c.lease.Reused() {
		m.failf("the lease does not hold the session that was opened")
	}
	m.settle(never)
}

func (m *model) session(g *modelGroup, key string) *modelSession {
	s := &modelSession{group: g, key: key, cut: make(chan struct{})}
	s.capacity.Store(m.capacity())
	s.comfort.Store(m.comfort())
	m.sessions, m.ends = append(m.sessions, s), append(m.ends, s)
	return s
}

func (m *model) capacity() int32 { return []int32{-1, 0, 1, 1, 2, 3, 8}[m.rng.IntN(7)] }

func (m *model) comfort() int32 { return []int32{0, 1, 1, 2, 9}[m.rng.IntN(5)] }

// resize changes how many calls a session may serve. The pool is not told.
func (m *model) resize(g *modelGroup) {
	if len(g.held) > 0 {
		if s := g.held[m.rng.IntN(len(g.held))].session; s != nil {
			s.capacity.Store(m.capacity())
			s.comfort.Store(m.comfort())
		}
	}
}

// release gives the lease back, twice, and checks what became of the session.
func (m *model) release(c *modelCall, last bool) {
	g, s := c.group, c.session
	var first *modelCall
	if len(g.queue) > 0 {
		first = g.queue[0]
	}
	mustEnd, fits := false, false
	if s != nil {
		mustEnd = g.over() || s.drained || worn(s.uses, s.maxUses)
		fits = first != nil && g.lends(first) && slices.Contains(first.request.Keys, s.key) && !worn(s.uses, first.request.MaxUses)
	}
	untold := s == nil || s.killed.Load() > 0 || s.unsure
	prepaid := g.prepaid
	if last {
		m.park(c)
	}
	c.lease.Release()
	c.lease.Discard()
	m.settle(never)
	switch {
	case untold:
	case !last:
		if s.told() {
			m.failf("session %+v was ended while it was lent", s)
		}
	case fits && !mustEnd:
		if s.dead.Load() == slices.Contains(s.holders, first) || s.dead.Load() != (s.killed.Load() > 0) {
			m.failf("session %+v was given back, and the first in line could use it", s)
		}
	case mustEnd || c.request.IdleTimeout <= 0:
		// The first in line may have passed a gate that is closed, with a session that was found dead.
		handed := !mustEnd && prepaid > 0 && (slices.Contains(s.holders, first) || s.dead.Load() && s.killed.Load() > 0)
		if s.retired.Load() == 0 && !handed {
			m.failf("session %+v was not retired", s)
		}
	case s.told() && first == nil && !m.pressed(g):
		m.failf("session %+v was ended for no reason", s)
	}
}

func worn(uses, maxUses int) bool { return maxUses > 0 && uses >= maxUses }

// park records that the call's session is idle from now on, unless the pool decides otherwise.
func (m *model) park(c *modelCall) {
	s := c.session
	s.expires = time.Now().Add(c.request.IdleTimeout)
	if s.killed.Load() == 0 {
		c.group.idle = append(c.group.idle, s)
		m.returned = s
	}
}

func (m *model) giveUp(g *modelGroup) {
	if len(g.queue) > 0 {
		g.queue[m.rng.IntN(len(g.queue))].cancel()
		g.gaveUp++
		m.moving = true
		m.settle(never)
	}
}

// race gives a lease back at the very moment when those give up who stand in line for it.
func (m *model) race(g *modelGroup) {
	if len(g.queue) == 0 || len(g.held) == 0 {
		return
	}
	c := g.held[0]
	g.held = g.held[1:]
	if c.session != nil && c.session.leave(c) {
		m.park(c)
	}
	m.raced = c.session
	go c.lease.Release()
	for _, waiting := range g.queue[:1+m.rng.IntN(len(g.queue))] {
		go waiting.cancel()
		g.gaveUp++
	}
	m.moving = true
	for _, c := range append(g.held, c) {
		if c.session != nil {
			c.session.unsure = true
		}
	}
	for _, s := range g.idle {
		s.unsure = true
	}
	m.settle(never)
}

// kill lets a peer hang up on a session.
func (m *model) kill(g *modelGroup) {
	if len(g.idle) > 0 {
		g.idle[m.rng.IntN(len(g.idle))].dead.Store(true)
	}
	if len(g.held) > 0 && m.chance(20) {
		if s := g.held[0].session; s != nil {
			s.dead.Store(true)
		}
	}
}

func (m *model) pass(d time.Duration) {
	time.Sleep(d)
	m.moving = true
	m.settle(func(s *modelSession) bool { return !s.expires.After(time.Now()) })
}

func (m *model) drain(g *modelGroup) {
	of := ""
	if m.chance(50) {
		of = string(rune('a' + m.rng.IntN(4)))
	}
	match := func(key string) bool { return of == "" || key == of }
	before := slices.Clone(g.idle)
	m.pool.Drain(func(name, key string) bool { return name == g.name && match(key) })
	for _, c := range g.held {
		switch {
		case c.session == nil:
			c.drained = c.drained || match("")
		case match(c.session.key):
			c.session.drained = true
		}
	}
	m.settle(func(s *modelSession) bool { return s.group == g && match(s.key) })
	for _, s := range before {
		if match(s.key) && s.retired.Load() == 0 {
			m.failf("session %+v outlived Drain", s)
		}
	}
}

// cancel lets every call go, so that a failed test can end.
func (m *model) cancel() {
	for _, c := range m.calls {
		c.cancel()
	}
	time.Sleep(time.Minute)
}

// close ends the pool, softly or hard, and checks that nothing is left.
func (m *model) close() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hard := m.chance(50)
	closed := make(chan error)
	go func() { closed <- m.pool.Close(ctx) }()
	synctest.Wait()
	if hard {
		cancel()
		synctest.Wait()
	} else {
		m.outstay()
	}
	for _, g := range m.groups {
		for _, c := range g.held {
			if c.session == nil && m.chance(50) {
				c.session = m.session(g, "a")
				c.lease.Opened("a", c.session)
			}
			if hard && c.session != nil && c.session.killed.Load() == 0 {
				m.failf("lent session %+v survived a hard close", c.session)
			}
			c.lease.Release()
		}
	}
	if err := <-closed; err != nil && !hard {
		m.failf("Close: %v", err)
	}
	synctest.Wait()
	for _, c := range m.calls {
		if c.answers != 1 {
			m.failf("call %d was answered %d times", c.number, c.answers)
		}
		c.cancel()
	}
	for _, s := range m.sessions {
		if !s.ended.Load() || s.retired.Load() > 1 || s.killed.Load() > 1 || s.afterKill.Load() {
			m.failf("session %+v after Close", s)
		}
	}
	if _, err := m.pool.Acquire(context.Background(), Request{}); !errors.Is(err, ErrClosed) {
		m.failf("Acquire after Close: %v", err)
	}
	empty(m.t, &m.pool)
}
