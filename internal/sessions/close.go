package sessions

import (
	"context"
	"fmt"
	"time"
)

const (
	// maxEnding is how many sessions Close and Drain end at the same time, each of them: enough to
	// hide the round trip of a QUIT, few enough not to burst upon the network.
	maxEnding = 256
	// cutGrace is how long Close waits for leases after it has killed their sessions. A caller that
	// takes longer than this to notice is not waiting on its session.
	cutGrace = 5 * time.Second
)

// Close ends the pool: calls that wait and calls that come get ErrClosed, idle sessions are retired,
// lent ones when their last lease ends, or killed when their Grace is over. It returns nil when no session
// and no lease is left.
//
// If ctx ends first, every session that is left, lent or retiring, is killed, also those that are still
// being opened, as soon as Opened is called. Close then waits at most 5 seconds more and returns an
// error that wraps ctx's cause; it says if something was still left. Close may be called again, and at
// the same time; each call waits, and the first whose ctx ends cuts for all.
func (p *Pool[S]) Close(ctx context.Context) error {
	empty := p.shut()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-empty:
		return nil
	default:
	}
	p.cutAll()
	grace := time.NewTimer(cutGrace)
	defer grace.Stop()
	select {
	case <-empty:
		return fmt.Errorf("sessions: close was cut short: %w", context.Cause(ctx))
	case <-grace.C:
	}
	p.mu.Lock()
	left := len(p.live)
	p.mu.Unlock()
	return fmt.Errorf("sessions: close gave up, %d sessions left %v after they were cut: %w", left, cutGrace, context.Cause(ctx))
}

// shut begins the end, once. What it returns is closed when nothing is left.
func (p *Pool[S]) shut() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed.IsZero() {
		return p.empty
	}
	p.closed = time.Now()
	p.empty = make(chan struct{})
	for _, g := range p.groups {
		for w := g.waiting.first(); w != nil; w = g.waiting.first() {
			g.answer(w, nil, ErrClosed)
		}
	}
	for _, g := range p.groups {
		p.settle(g)
	}
	p.retireIdle(Closing, func(*slot[S]) bool { return true })
	p.limitGrace()
	if len(p.live) == 0 {
		p.emptied()
	}
	return p.empty
}

// emptied says that Close has come to its end. The lock is held.
func (p *Pool[S]) emptied() {
	for _, timer := range p.graces {
		timer.Stop()
	}
	close(p.empty)
}

// limitGrace sets a timer for each Grace that a slot has: at the time, what has it and is still lent is
// killed. No slot gets another Grace once Close has begun. The lock is held.
func (p *Pool[S]) limitGrace() {
	p.graces = make(map[time.Duration]*time.Timer)
	for s := range p.live {
		if grace := s.grace; grace > 0 && !s.vacated && p.graces[grace] == nil {
			p.graces[grace] = time.AfterFunc(grace, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.cutThose(func(s *slot[S]) bool { return s.grace == grace && !s.vacated })
			})
		}
	}
}

// late tells whether a session that has only just been opened is to be killed. The lock is held.
func (p *Pool[S]) late(s *slot[S]) bool {
	return p.cut || !p.closed.IsZero() && s.grace > 0 && time.Since(p.closed) >= s.grace
}

// cutAll begins to kill every session that has not ended.
func (p *Pool[S]) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.cutThose(func(*slot[S]) bool { return true })
}

// cutThose begins to kill those sessions that which accepts. The lock is held.
func (p *Pool[S]) cutThose(which func(*slot[S]) bool) {
	var left []*slot[S]
	for s := range p.live {
		if s.opened && !s.killed && which(s) {
			s.holds++
			left = append(left, s)
		}
	}
	fanOut(left, func(s *slot[S]) {
		p.kill(s)
		p.mu.Lock()
		p.release(s)
		p.mu.Unlock()
	})
}

// retireIdle retires those idle sessions that which accepts. The lock is held.
func (p *Pool[S]) retireIdle(why Reason, which func(*slot[S]) bool) {
	var idle []*slot[S]
	for s := range p.live {
		if s.idle && which(s) {
			p.leave(s)
			idle = append(idle, s)
		}
	}
	fanOut(idle, func(s *slot[S]) { p.end(s, why) })
}

// leave takes s out of its group: its session will be ended by end. The lock is held.
func (p *Pool[S]) leave(s *slot[S]) {
	p.vacate(s)
	s.group.count(0, 1)
	p.totals.Retired++
}

// retire ends a session aside, and so makes room. The lock is held.
func (p *Pool[S]) retire(s *slot[S], why Reason) {
	p.leave(s)
	go p.end(s, why)
}

// end ends a session that left what can be lent, and then gives its room away.
func (p *Pool[S]) end(s *slot[S], why Reason) {
	p.mu.Lock()
	killed := s.killed
	p.mu.Unlock()
	if !killed {
		s.session.Retire(why)
	}
	p.mu.Lock()
	s.group.count(-1, -1)
	p.settle(s.group)
	p.release(s)
	p.mu.Unlock()
}

// kill kills the session of s, unless it has none or another did. The caller has a hold on s.
func (p *Pool[S]) kill(s *slot[S]) {
	p.mu.Lock()
	if !s.opened || s.killed {
		p.mu.Unlock()
		return
	}
	s.killed = true
	p.withhold(s)
	s.spoil()
	if !s.vacated {
		p.totals.Killed++
	}
	p.mu.Unlock()
	s.session.Kill()
}

// fanOut calls do for each slot, on at most maxEnding goroutines, and does not wait for them.
func fanOut[S Session](slots []*slot[S], do func(*slot[S])) {
	work := make(chan *slot[S], len(slots))
	for _, s := range slots {
		work <- s
	}
	close(work)
	for range min(len(slots), maxEnding) {
		go func() {
			for s := range work {
				do(s)
			}
		}()
	}
}
