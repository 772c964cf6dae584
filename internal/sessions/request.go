package sessions

import (
	"fmt"
	"time"
)

// Request says what a call needs.
//
// Limit, Shared, Lending and Opening belong to the group: those of its latest request count, also for
// the calls that wait already. All else is the call's own.
type Request struct {
	// Group is what the limit belongs to.
	Group string
	// Limit is the most sessions that the group may have at once: lent, idle, being opened and ending.
	// Below 1 means 1. When it falls, idle sessions above it are retired now, lent ones when their last
	// lease ends, and nobody is served until all but those that are ending are within it.
	Limit int
	// Shared are limits that the group's sessions count against besides Limit, together with the sessions
	// of all other groups of this pool that name them. The slice must not change while the pool holds it.
	Shared []Shared
	// MaxWaiting is how many calls of the group may wait: one more is refused with ErrFull; 0: no bound.
	MaxWaiting int
	// Keys serve this call, best first. An idle session of the first key that has one is lent, the most
	// recently used first. Of sessions in use, those of the first key that has one with room are lent in
	// turn, those that have comfort before the others. The slice must not change while Acquire or Postpone runs, or while the call has the permission
	// to open.
	Keys []string
	// IdleTimeout is how long the session may lie idle after this call, if no other ends later; zero or
	// less: not at all. A caller that waits already may still get it.
	IdleTimeout time.Duration
	// MaxUses is how many calls one session may serve, the one that opened it and those that share it
	// included; 0: no bound. A session that has served as many is lent no more.
	MaxUses int
	// Lending is passed by each call of the group when it is served, and Opening by each permission to open
	// a session; nil: at any rate.
	Lending, Opening Gate
	// Passed: the call is one more of a caller that has passed Lending for the same purpose, and does not pass
	// it again.
	Passed bool
	// Expect says how many calls a session that is being opened is going to serve in comfort, the one that
	// opens it included; nil or below 2: that one alone. While the limits have room, calls wait for what is
	// being opened instead of opening more, as long as that is enough for all who wait, by the expectation of
	// each of them and as far as each names the first key of the call that opens. A call waits so only for
	// what is being opened when it comes to do so: if that fails, or comes to less, it has another opened.
	// Expect is called as the methods of a Gate are, and the pool is not told if its answer changes.
	Expect func() int
	// Patience is the longest that the call may wait because of a gate. One that Lending, with those before
	// it in line, would hold up for longer is refused with *Delayed at arrival. One that needs a new
	// session is refused likewise, at arrival or later, once Opening would hold it up for longer and the
	// group has no session that could serve it instead.
	Patience time.Duration
	// Grace is how long the session may go on once Close has begun, while it is lent: then it is killed,
	// whatever the context of Close; 0: as long as that context. Of calls that share a session, the one
	// that came last says so for all.
	Grace time.Duration
}

// Shared is a limit that several groups of a pool share.
type Shared struct {
	// Name tells which limit it is. Groups that say the same name share it.
	Name string
	// Limit is the most sessions that all these groups together may have at once, counted as by
	// [Request.Limit]. The value of the latest request that names it counts; below 1 means 1.
	Limit int
}

// Gate limits a rate. A pool calls its methods with the pool's lock held: they must be cheap, wait for
// nothing, and never call back into the pool. A gate that several groups or pools use must be safe for
// concurrent use.
type Gate interface {
	// Pass counts one event and returns 0, or counts nothing and returns after how long to ask again.
	Pass(now time.Time) (wait time.Duration)
	// Ahead estimates how long the n-th event from now would have to wait; it counts nothing.
	Ahead(now time.Time, n int) time.Duration
}

// Delayed is the error of a call that a gate would hold up for longer than its Patience.
type Delayed struct {
	// RetryAfter is how long the gate would hold the call up.
	RetryAfter time.Duration
	// Opening tells which gate: that of opening sessions (or Postpone), else that of lending them.
	Opening bool
}

func (e *Delayed) Error() string {
	what := "calls"
	if e.Opening {
		what = "new sessions"
	}
	return fmt.Sprintf("sessions: the rate of %s allows this one after %v", what, e.RetryAfter)
}
