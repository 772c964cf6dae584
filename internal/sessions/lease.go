package sessions

import "time"

// Lease is one call's hold on a session, or on the permission to open one. Exactly one of Release,
// Retire and Discard ends it; those that come later do nothing, so that one of them may be deferred.
// A lease is for one goroutine at a time.
type Lease[S Session] struct {
	pool   *Pool[S]
	slot   *slot[S] // nil once the lease has ended
	reused bool
}

// Session returns the session that is lent. False: there is none yet, and the caller has the permission
// to open one, or the lease has ended.
func (l *Lease[S]) Session() (S, bool) {
	if l.slot == nil || !l.slot.opened {
		var none S
		return none, false
	}
	return l.slot.session, true
}

// Reused tells whether the session served another call before.
func (l *Lease[S]) Reused() bool { return l.reused }

// Opened puts the session that the caller opened under key into the lease. If the lease has a session
// already, one that turned out dead, say, the new one takes its place and the old one is killed: so a
// call may connect anew without standing in line again.
//
// If the pool was closed hard meanwhile, or the lease has ended, the session is killed at once.
func (l *Lease[S]) Opened(key string, session S) {
	p, s := l.pool, l.slot
	if s == nil {
		session.Kill()
		return
	}
	if s.opened {
		p.kill(s)
	}
	p.mu.Lock()
	if s.opened {
		s = p.replace(s)
		l.slot, l.reused = s, false
	}
	p.fill(s, key, session)
	cut := p.cut
	p.mu.Unlock()
	if cut {
		p.kill(s)
	}
}

// replace gives the room of s, whose session was killed, to a new slot. The lock is held.
func (p *Pool[S]) replace(s *slot[S]) *slot[S] {
	fresh := p.permit(s.group)
	fresh.maxUses, fresh.idleTimeout, fresh.drained = s.maxUses, s.idleTimeout, s.drained
	p.free(s)
	return fresh
}

// Release gives the session back for reuse. It goes to the call that waits longest if that can use it,
// else makes room for it, else becomes idle. It is retired if it has served MaxUses calls, may not be
// idle, was drained, is above the limit, or if the pool is closed. Without a session, Release is Discard.
func (l *Lease[S]) Release() {
	if s := l.take(); s != nil {
		l.pool.mu.Lock()
		s.expires = time.Now().Add(s.idleTimeout)
		l.pool.giveBack(s)
		l.pool.mu.Unlock()
	}
}

// Retire ends the session in an orderly way instead of giving it back, without waiting for the end.
// Without a session it is Discard.
func (l *Lease[S]) Retire() {
	if s := l.take(); s != nil {
		l.pool.mu.Lock()
		s.drained = true
		l.pool.giveBack(s)
		l.pool.mu.Unlock()
	}
}

// Discard kills the session, if there is one, and makes its room free for the call that waits longest.
// It is for a session that is broken and for one that could not be opened.
func (l *Lease[S]) Discard() {
	if s := l.take(); s != nil {
		l.pool.kill(s)
		l.pool.mu.Lock()
		l.pool.free(s)
		l.pool.settle(s.group)
		l.pool.mu.Unlock()
	}
}

// take ends the lease and returns its slot; nil if it had ended before.
func (l *Lease[S]) take() *slot[S] {
	s := l.slot
	l.slot = nil
	return s
}
