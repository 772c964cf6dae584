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
				m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 1))}
				for i := range 3 {
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
	returned *modelSession   // given back in this step: release judges what becomes of it
	raced    *modelSession   // given back in this step, before or after calls that wait could share it
}

type modelGroup struct {
	name  string
	limit int
	queue []*modelCall    // waiting, in order of arrival
	held  []*modelCall    // with a lease
	idle  []*modelSession // in order of being given back
	// After the last step: held, idle and ending; without those that are ending.
	size, present int
	foundDead     atomic.Int32 // sessions that calls found dead in this step
}

type modelCall struct {
	number  int
	group   *modelGroup
	request Request
	cancel  context.CancelFunc
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

func (s *modelSession) Comfort() int { return 1 }

func (s *modelSession) Retire(why Reason) {
	select {
	case <-s.cut:
		s.afterKill.Store(true)
	default:
	}
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
	switch n := m.rng.IntN(100); {
	case n < 40:
		m.doing = "acquire"
		m.acquire(g)
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
	default:
		m.doing = "drain"
		m.drain(g)
	}
}

func (m *model) request(g *modelGroup) Request {
	keys := []string{"a", "b", "c", "d"}
	m.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	limit := g.limit
	if limit == 0 || m.chance(3) {
		limit = 1 + m.rng.IntN(5)
	}
	return Request{
		Group:       g.name,
		Limit:       limit,
		Keys:        keys[:m.rng.IntN(4)],
		IdleTimeout: []time.Duration{0, time.Second, 3 * time.Second, 10 * time.Second, 10 * time.Second}[m.rng.IntN(5)],
		MaxUses:     []int{0, 0, 0, 1, 3, 8}[m.rng.IntN(6)],
	}
}

// acquire lets a call arrive and checks that it got the best there was.
func (m *model) acquire(g *modelGroup) {
	if len(g.queue) > 12 {
		return
	}
	c := &modelCall{number: len(m.calls), group: g, request: m.request(g)}
	m.calls = append(m.calls, c)
	lowered := g.limit > c.request.Limit
	g.limit = c.request.Limit
	expected, passed := best(g, c.request)
	var shared []*modelSession
	var evicted *modelSession
	if expected == nil && g.size >= g.limit {
		if shared = g.shared(c.request); shared == nil {
			evicted = stalest(g, passed)
		}
	}
	// With others in line, or room that is already being made, it is not for this call alone.
	inLine := len(g.queue) > 0 || m.ending(g) > 0

	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	g.queue = append(g.queue, c)
	go func() {
		c.lease, c.err = m.pool.Acquire(ctx, c.request)
		c.answers++
	}()
	m.settle(func(s *modelSession) bool {
		return lowered || inLine && s.group == g || s == evicted || slices.Contains(passed, s)
	})
	if lowered || inLine {
		return // the idle sessions above the new limit went first, or others did
	}
	if len(passed) > 0 && len(shared) > 0 {
		return // the room of dead sessions came first
	}
	if evicted != nil && len(passed) == 0 && evicted.retired.Load() == 0 {
		m.failf("call %d of %s did not get the room of session %+v", c.number, g.name, evicted)
	}
	if shared != nil {
		if !slices.Contains(shared, c.session) {
			m.failf("call %d with keys %v of %s got session %+v, and could share %+v", c.number, c.request.Keys, g.name, c.session, shared)
		}
	} else if c.session != expected {
		m.failf("call %d with keys %v of %s got session %+v, the best was %+v", c.number, c.request.Keys, g.name, c.session, expected)
	}
	for _, s := range passed {
		if !s.told() {
			m.failf("session %+v was passed over and kept", s)
		}
	}
}

// shared is the sessions in use that the request may share: those of the best key that has any.
func (g *modelGroup) shared(r Request) (sessions []*modelSession) {
	if g.present > g.limit {
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
	s.uses, s.maxUses, s.drained = 1, c.request.MaxUses, c.drained
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
	m.sessions, m.ends = append(m.sessions, s), append(m.ends, s)
	return s
}

func (m *model) capacity() int32 { return []int32{-1, 0, 1, 1, 2, 3, 8}[m.rng.IntN(7)] }

// resize changes how many calls a session may serve. The pool is not told.
func (m *model) resize(g *modelGroup) {
	if len(g.held) > 0 {
		if s := g.held[m.rng.IntN(len(g.held))].session; s != nil {
			s.capacity.Store(m.capacity())
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
		mustEnd = g.present > g.limit || s.drained || worn(s.uses, s.maxUses)
		fits = first != nil && slices.Contains(first.request.Keys, s.key) && !worn(s.uses, first.request.MaxUses)
	}
	killed := s != nil && s.killed.Load() > 0
	if last {
		m.park(c)
	}
	c.lease.Release()
	c.lease.Discard()
	m.settle(never)
	switch {
	case s == nil || killed:
	case !last:
		if s.told() {
			m.failf("session %+v was ended while it was lent", s)
		}
	case fits && !mustEnd:
		if s.dead.Load() == slices.Contains(s.holders, first) || s.dead.Load() != (s.killed.Load() > 0) {
			m.failf("session %+v was given back, and the first in line could use it", s)
		}
	case mustEnd || c.request.IdleTimeout <= 0:
		if s.retired.Load() == 0 {
			m.failf("session %+v was not retired", s)
		}
	case s.told() && first == nil:
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
	m.settle(func(s *modelSession) bool { return !s.expires.After(time.Now()) })
}

func (m *model) drain(g *modelGroup) {
	before := slices.Clone(g.idle)
	m.pool.Drain(func(name, _ string) bool { return name == g.name })
	for _, c := range g.held {
		c.drained = true
		if c.session != nil {
			c.session.drained = true
		}
	}
	m.settle(func(s *modelSession) bool { return s.group == g })
	for _, s := range before {
		if s.retired.Load() == 0 {
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
