package sessions

// Session is what a Pool keeps. The pool calls Capacity and Comfort with its lock held, and none of the
// other methods. It calls Retire at most once, Kill at most once, and never begins Retire after Kill.
type Session interface {
	// Capacity is how many calls the session may serve at the same time now; below 1 counts as 1. It may
	// change at any time. The pool asks when it considers lending the session, with its lock held: so
	// Capacity must be cheap, wait for nothing, and never call back into the pool. The pool is not told of
	// a change: room that has grown counts from the next time that a lease on the session ends or that it
	// is lent, and calls over a capacity that has shrunk stay.
	Capacity() int
	// Comfort is how many calls the session may serve at once before a new session would serve the next
	// one sooner: a call goes to a session in use that has comfort for it rather than have another opened.
	// Below 1 counts as 1, above Capacity as Capacity. What is said of Capacity holds for it too.
	Comfort() int
	// Alive is asked just before a session that was not in use is lent again, by the call that is to get
	// it; no other call shares it until it has answered. It is not asked of a session in use. It must not
	// wait for the peer. False: the session is killed, and the call looks for the next.
	Alive() bool
	// Retire ends the session in an orderly way (QUIT, Lua close), when no call uses it. It may be slow,
	// but must end by itself: until then the session counts against its limits, because the peer still has
	// it.
	Retire(why Reason)
	// Kill cuts the session at once. It may come at any time, also while the session is lent, asked or
	// retiring, and must make what blocks on the session return. Discard waits for it.
	Kill()
}

// Reason says why a session is retired.
type Reason string

// The reasons.
const (
	Idle    Reason = "idle"    // it lay idle for its IdleTimeout, or may not lie idle at all
	Worn    Reason = "worn"    // it has served MaxUses calls
	Drained Reason = "drained" // Drain or Lease.Retire
	Crowded Reason = "crowded" // it was above a limit, or made room for another
	Closing Reason = "closing" // Pool.Close
)
