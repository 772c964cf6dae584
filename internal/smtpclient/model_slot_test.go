package smtpclient

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// modelSlot holds the session that callers share. When it is no longer usable the next caller opens
// another one.
type modelSlot struct {
	run     *modelRun
	mu      sync.Mutex
	current *modelSession
	opening chan struct{} // closed when the opening that is under way is over; nil if none is
}

type modelSession struct {
	*Session
	peer    *modelPeer
	slot    *modelSlot
	users   int // guarded by the slot, as retired
	retired bool
}

// get returns a session to give back with put. It returns nil where none could be opened.
func (s *modelSlot) get() *modelSession {
	for range 50 {
		session, wait := s.try()
		if session != nil {
			return session
		}
		if wait != nil {
			<-wait
			continue
		}
		opened := s.run.open(s)
		s.mu.Lock()
		s.current = opened
		close(s.opening)
		s.opening = nil
		s.mu.Unlock()
	}
	return nil
}

// try returns a session, or what to wait for. With neither it is the caller who opens one.
func (s *modelSlot) try() (*modelSession, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.current.Usable() {
		s.current.users++
		return s.current, nil
	}
	if s.current != nil {
		s.current.retire()
		s.current = nil
	}
	if s.opening != nil {
		return nil, s.opening
	}
	s.opening = make(chan struct{})
	return nil, nil
}

// retire closes a session once nobody uses it.
func (m *modelSession) retire() {
	m.retired = true
	if m.users == 0 {
		m.Close()
	}
}

func (m *modelSession) put() {
	m.slot.mu.Lock()
	defer m.slot.mu.Unlock()
	m.users--
	if m.retired && m.users == 0 {
		m.Close()
	}
}

// cut closes the session at an inconvenient time.
func (s *modelSlot) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.Close()
	}
}

// quit ends the session when all callers are done.
func (s *modelSlot) quit() {
	if s.current != nil {
		s.current.Quit(0)
	}
}

// open opens a session with a new peer; nil where the peer did not want it.
func (r *modelRun) open(slot *modelSlot) *modelSession {
	client, server := smtptest.Pipe()
	r.mu.Lock()
	number := r.opened
	r.opened++
	mood := &randomMood{rng: rand.New(rand.NewPCG(r.seed, uint64(number)<<8|1)), odds: r.odds}
	p := newModelPeer(number, r.offers, mood, r.book, server.(*smtptest.PipeConn))
	r.book.countSession()
	r.conns[p] = client
	r.mu.Unlock()
	r.peers.Go(func() {
		p.serve()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, p)
	})
	s, err := Open(context.Background(), client, &r.cfg)
	if err != nil {
		if r.kind != wild {
			r.book.failf(p, 0, "opening: %v", err)
		}
		return nil
	}
	return &modelSession{Session: s, peer: p, slot: slot}
}

// watch ends a run that hangs: in virtual time that is soon.
func (r *modelRun) watch(after time.Duration) (stop func() bool) {
	return time.AfterFunc(after, func() {
		r.book.t.Errorf("%s: callers still wait after %v", r.book.name, after)
		r.mu.Lock()
		defer r.mu.Unlock()
		for p, conn := range r.conns {
			r.book.failf(p, -1, "some message in a connection that is still open")
			conn.Close()
		}
	}).Stop
}
