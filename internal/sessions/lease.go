package sessions

import (
	"context"
	"errors"
	"time"
)

// Lease is one call's hold on a session, or on the permission to open one. Exactly one of Release,
// Retire, Discard and Postpone ends it; those that come later do nothing, so that one of them may be deferred.
// A lease is for one goroutine at a time. Several leases may be on one session: see [Session.Capacity].
type Lease[S Session] struct {
	pool        *Pool[S]
	slot        *slot[S] // nil once the lease has ended
	idleTimeout time.Duration
	maxUses     int
	waited      time.Duration
	reused      bool
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

// Waited tells how long a gate held the call up, or Postpone did; 0: nothing of the kind.
func (l *Lease[S]) Waited() time.Duration { return l.waited }

// Opened puts the session that the caller opened under key into a lease of the permission to open one.
// As far as the session has room, calls that wait share it from now on. If the lease has ended, or holds
// a session already, or if the pool was closed and cuts what is lent by now, the session is killed at once.
func (l *Lease[S]) Opened(key string, session S) {
	p, s := l.pool, l.slot
	if s == nil || s.opened {
		session.Kill()
		return
	}
	p.mu.Lock()
	p.fill(s, key, session, l.maxUses)
	p.offer(s)
	p.serve(s.group)
	late := p.late(s)
	p.mu.Unlock()
	if late {
		p.kill(s)
	}
}

// More counts up to n further calls that the session serves together with that of the lease, and returns how
// many these are: as many as MaxUses has left. Without a session there are none.
func (l *Lease[S]) More(n int) int {
	p, s := l.pool, l.slot
	if s == nil || !s.opened {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.maxUses > 0 {
		n = min(n, s.maxUses-s.uses)
	}
	n = max(n, 0)
	s.uses += n
	return n
}

// Release gives the session back for reuse. While it is lent to others it goes on to serve them, and the
// call that waits longest, if there is room. Else it goes to that call if it can use the session, or
// becomes idle, or makes room. It is retired with the end of its last lease if it has served MaxUses
// calls, may not be idle, was drained, is above the limit, or if the pool is closed. Without a session,
// Release is Discard.
func (l *Lease[S]) Release() {
	if s := l.take(); s != nil {
		l.pool.mu.Lock()
		s.idleTimeout, s.used = l.idleTimeout, true
		l.pool.giveBack(s)
		l.pool.mu.Unlock()
	}
}

// Retire ends the session in an orderly way instead of giving it back, without waiting for the end: it
// is lent no more, and is retired when the last lease on it ends. Without a session it is Discard.
func (l *Lease[S]) Retire() {
	if s := l.take(); s != nil {
		l.pool.mu.Lock()
		l.pool.drain(s)
		l.pool.giveBack(s)
		l.pool.mu.Unlock()
	}
}

// Discard kills the session, if there is one. It is for a session that is broken and for one that could
// not be opened. What it used of the limit comes free for the call that waits longest. If other calls
// share the session, that is when the last of them has ended its lease; their leases stay valid, and it
// is for the session to let their calls fail.
func (l *Lease[S]) Discard() {
	if s := l.take(); s != nil {
		l.pool.kill(s)
		l.pool.mu.Lock()
		l.pool.giveBack(s)
		l.pool.mu.Unlock()
	}
}

// errNotOpening is what Postpone returns where there is no permission to give back.
var errNotOpening = errors.New("sessions: the lease is no permission to open")

// Postpone gives a permission to open back unused, for example because a limit that other processes
// share had no room. The group opens nothing for wait; the call waits for a session as in Acquire, in its
// old place. It does not pass the Lending gate again; a permission to open that it gets later passes the
// Opening gate as all do.
//
// The error is one of those of Acquire: *Delayed with wait if that is longer than the call's Patience and
// the group has no session that could serve it. A lease that is no permission to open is left as it is, and
// the error says so.
func (l *Lease[S]) Postpone(ctx context.Context, wait time.Duration) (*Lease[S], error) {
	p, s := l.pool, l.slot
	if s == nil || s.opened {
		return nil, errNotOpening
	}
	l.slot = nil
	p.mu.Lock()
	c := *s.claim
	p.bar(s.group, wait)
	p.part(s)
	p.free(s) // not settled: seek does, when the call is in its old place
	return p.seek(ctx, s.group, &c)
}

// take ends the lease and returns its slot; nil if it had ended before.
func (l *Lease[S]) take() *slot[S] {
	s := l.slot
	l.slot = nil
	return s
}
