package sessions

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// peer is a session that does what a test tells it.
type peer struct {
	name            string
	capacity        atomic.Int32
	comfort         atomic.Int32
	dead            atomic.Bool
	retired, killed atomic.Int32
	why             atomic.Value // the Reason with which it was retired
	alive, retire   func()       // called by Alive and Retire, if set
}

func (s *peer) Capacity() int { return int(s.capacity.Load()) }

func (s *peer) Comfort() int { return int(s.comfort.Load()) }

func (s *peer) Alive() bool {
	if s.alive != nil {
		s.alive()
	}
	return !s.dead.Load()
}

func (s *peer) Retire(why Reason) {
	s.retired.Add(1)
	s.why.Store(why)
	if s.retire != nil {
		s.retire()
	}
}

func (s *peer) Kill() { s.killed.Add(1) }

// state is how the session ended: "open", "retired", "killed" or "retired, killed".
func (s *peer) state() string {
	switch r, k := s.retired.Load(), s.killed.Load(); {
	case r > 1 || k > 1:
		return "ended twice"
	case r+k == 2:
		return "retired, killed"
	case r == 1:
		return "retired"
	case k == 1:
		return "killed"
	}
	return "open"
}

// rig is a pool and the ways in which the tests use it.
type rig struct {
	*testing.T
	Pool[*peer]
}

// story runs a test in virtual time. Whatever it leaves open is closed, and must end.
func story(t *testing.T, f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t}
		f(r)
		if err := r.Close(context.Background()); err != nil {
			t.Errorf("Close at the end: %v", err)
		}
		synctest.Wait()
		empty(t, &r.Pool)
	})
}

func ask(limit int, keys ...string) Request {
	return Request{Group: "g", Limit: limit, Keys: keys, IdleTimeout: time.Minute}
}

// acquire returns a lease that is to be had without waiting.
func (r *rig) acquire(request Request) *Lease[*peer] {
	r.Helper()
	c := r.call(request)
	if !c.answered() {
		r.Fatalf("a call with keys %q waits", request.Keys)
	}
	if c.err != nil {
		r.Fatalf("Acquire: %v", c.err)
	}
	return c.lease
}

// open returns a lease of a new session of the request's first key.
func (r *rig) open(request Request) (*Lease[*peer], *peer) {
	r.Helper()
	l := r.acquire(request)
	if s, ok := l.Session(); ok || l.Reused() {
		r.Fatalf("session %v was lent, want a new one", s)
	}
	s := &peer{name: request.Keys[0]}
	l.Opened(s.name, s)
	return l, s
}

// idle leaves an idle session of each key, the last one the most recently used.
func (r *rig) idle(request Request, keys ...string) []*peer {
	r.Helper()
	var leases []*Lease[*peer]
	var peers []*peer
	for _, key := range keys {
		request.Keys = []string{key}
		l, s := r.open(request)
		leases, peers = append(leases, l), append(peers, s)
	}
	for _, l := range leases {
		l.Release()
	}
	return peers
}

// claim is what the pool would make of the next call.
func (r *rig) claim(q Request) *claim {
	return &claim{keys: q.Keys, maxUses: q.MaxUses, idleTimeout: q.IdleTimeout, patience: q.Patience, grace: q.Grace, arrival: r.arrivals + 1}
}

// call is an Acquire that may wait.
type call struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	lease  *Lease[*peer]
	err    error
}

func (r *rig) call(request Request) *call {
	return r.async(func(ctx context.Context) (*Lease[*peer], error) { return r.Acquire(ctx, request) })
}

func (r *rig) async(f func(context.Context) (*Lease[*peer], error)) *call {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &call{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.lease, c.err = f(ctx)
	}()
	synctest.Wait()
	return c
}

// answered tells whether Acquire has returned.
func (c *call) answered() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// has checks that the call was answered with this session, or with the permission to open if it is nil.
func (r *rig) has(c *call, want *peer) {
	r.Helper()
	if !c.answered() {
		r.Fatal("the call still waits")
	}
	if c.err != nil {
		r.Fatalf("Acquire: %v", c.err)
	}
	if got, ok := c.lease.Session(); got != want || ok != (want != nil) || ok != c.lease.Reused() {
		r.Fatalf("the call got session %v, reused %v, want %v", got, c.lease.Reused(), want)
	}
}

func (r *rig) waits(c *call) {
	r.Helper()
	if c.answered() {
		r.Fatalf("the call was answered (lease %v, error %v), want it to wait", c.lease, c.err)
	}
}

// states checks how sessions ended.
func (r *rig) states(peers []*peer, want ...string) {
	r.Helper()
	synctest.Wait()
	var got []string
	for _, s := range peers {
		got = append(got, s.state())
	}
	if !slices.Equal(got, want) {
		r.Fatalf("sessions are %q, want %q", got, want)
	}
}

// empty checks that the pool remembers nothing.
func empty[S Session](t *testing.T, p *Pool[S]) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.groups)+len(p.shelves)+len(p.live)+len(p.quotas) > 0 {
		t.Errorf("left in the pool: %d groups, %d shelves, %d slots, %d shared limits", len(p.groups), len(p.shelves), len(p.live), len(p.quotas))
	}
}
