package sessions

import "time"

// rested sets when s is to be retired, once its last lease has ended, and tells whether that is now. The
// lock is held.
func (s *slot[S]) rested() bool {
	now := time.Now()
	if s.used { // else it was only handed to calls that had given up, and its time goes on
		s.used = false
		s.expires = now.Add(s.idleTimeout)
	}
	return !s.expires.After(now)
}

// park makes a session idle. The lock is held.
func (p *Pool[S]) park(s *slot[S]) {
	p.withhold(s)
	s.idle = true
	s.group.idle.insert(&s.byAge, s.group.idle.back)
	s.shelf.idle.insert(&s.byKey, s.shelf.idle.back)
	p.parks++
	s.parked = p.parks
	p.list(s)
	// A timer that fires too early, since the session was used meanwhile, finds out and is set again.
	// That costs less than to stop and set it for each use.
	if s.armed.IsZero() || s.armed.After(s.expires) {
		p.arm(s, time.Until(s.expires))
	}
}

// unpark takes a session from among the idle ones. The lock is held.
func (p *Pool[S]) unpark(s *slot[S]) {
	s.idle = false
	s.group.idle.remove(&s.byAge)
	s.shelf.idle.remove(&s.byKey)
	p.unlist(s)
}

// arm sets the timer of an idle session. The lock is held.
func (p *Pool[S]) arm(s *slot[S], after time.Duration) {
	s.armed = s.expires
	if s.timer == nil {
		s.timer = time.AfterFunc(after, func() { p.expire(s) })
		return
	}
	s.timer.Reset(after)
}

// expire retires s if it has been idle for long enough.
func (p *Pool[S]) expire(s *slot[S]) {
	p.mu.Lock()
	s.armed = time.Time{}
	if !s.idle {
		p.mu.Unlock()
		return
	}
	if left := time.Until(s.expires); left > 0 {
		p.arm(s, left)
		p.mu.Unlock()
		return
	}
	p.leave(s)
	p.settle(s.group)
	p.mu.Unlock()
	p.end(s, Idle)
}
