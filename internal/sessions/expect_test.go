package sessions

import (
	"context"
	"math"
	"testing"
	"time"
)

// expecting is a request of a call that expects of a session, while it is opened, that it will serve n calls.
func expecting(n, limit int, keys ...string) Request {
	q := ask(limit, keys...)
	q.Expect = func() int { return n }
	return q
}

// wideOpened lets the permission become a session for as many calls.
func wideOpened(l *Lease[*peer], key string, comfort, capacity int32) *peer {
	s := &peer{name: key}
	s.comfort.Store(comfort)
	s.capacity.Store(capacity)
	l.Opened(key, s)
	return s
}

// The session that calls wait for serves them, though others, that have room and no comfort, are before it
// in the turn.
func TestExpectedBehindOthersInTurn(t *testing.T) {
	story(t, func(r *rig) {
		q := expecting(3, 9, "a")
		var leases []*Lease[*peer]
		for range 3 {
			l, s := r.wide(ask(9, "a"), 9)
			s.comfort.Store(1)
			leases = append(leases, l)
		}
		opening := r.acquire(q)
		second, third := r.call(q), r.call(q)
		r.waits(second)
		s := wideOpened(opening, "a", 3, 9)
		r.has(second, s)
		r.has(third, s)
		end(append(leases, opening, second.lease, third.lease)...)
	})
}

// A lease that ends on a session behind those in turn which have no comfort serves a call that waits by choice.
func TestComfortComesBack(t *testing.T) {
	story(t, func(r *rig) {
		l1, _ := r.wide(ask(9, "a"), 9)
		l2, _ := r.wide(ask(9, "a"), 9)
		l3 := r.acquire(ask(9, "a"))
		last := wideOpened(l3, "a", 2, 9)
		shared := r.shares(ask(9, "a"), last)
		opening := r.acquire(expecting(40, 9, "a"))
		c := r.call(expecting(40, 9, "a"))
		r.waits(c)
		l3.Release()
		r.has(c, last)
		end(l1, l2, shared, opening, c.lease)
	})
}

// When no more can be opened, sessions that have comfort are shared before those that have none.
func TestComfortAtTheLimit(t *testing.T) {
	story(t, func(r *rig) {
		l1, s1 := r.wide(ask(2, "a"), 9)
		l2, s2 := r.wide(ask(2, "a"), 9)
		s2.comfort.Store(3)
		first := r.acquire(ask(3, "c")) // takes the last place
		leases := []*Lease[*peer]{l1, l2, first}
		l := r.shares(ask(3, "a"), s1) // as nobody has told the pool of the comfort of s2
		for _, want := range []*peer{s2, s2, s1, s2} {
			leases = append(leases, r.shares(ask(3, "a"), want))
		}
		end(append(leases, l)...)
	})
}

// However the opening ends that calls wait for, they are served then: by the session, if it serves them, or
// else all of them open one, and do not try one after the other.
func TestExpectedEnds(t *testing.T) {
	const shared = "shared"
	tests := []struct {
		name string
		end  func(*rig, *Lease[*peer])
		want string
	}{
		{"opened", func(r *rig, l *Lease[*peer]) { wideOpened(l, "a", 40, 40) }, shared},
		{"opened under their second key", func(r *rig, l *Lease[*peer]) { wideOpened(l, "b", 40, 40) }, shared},
		{"opened under another key", func(r *rig, l *Lease[*peer]) { wideOpened(l, "z", 40, 40) }, ""},
		{"opened with little comfort", func(r *rig, l *Lease[*peer]) { wideOpened(l, "a", 1, 40) }, ""},
		{"opened with little capacity", func(r *rig, l *Lease[*peer]) { wideOpened(l, "a", 40, 1) }, ""},
		{"opened and retired", func(r *rig, l *Lease[*peer]) { wideOpened(l, "a", 1, 1); l.Retire() }, ""},
		{"failed", func(r *rig, l *Lease[*peer]) { l.Discard() }, ""},
		{"released", func(r *rig, l *Lease[*peer]) { l.Release() }, ""},
		{"retired", func(r *rig, l *Lease[*peer]) { l.Retire() }, ""},
		{"drained", func(r *rig, l *Lease[*peer]) { r.Drain(nil) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				q := expecting(40, 9, "a", "b")
				opening := r.acquire(q)
				calls := []*call{r.call(q), r.call(q), r.call(q), r.call(q)}
				for _, c := range calls {
					r.waits(c)
				}
				tt.end(r, opening)
				s, _ := opening.Session()
				if tt.want != shared {
					s = nil
				}
				for _, c := range calls {
					r.has(c, s)
				}
				for _, c := range calls {
					c.lease.Discard()
				}
				opening.Discard()
			})
		})
	}
}

// Calls that wait by choice go when they are refused, or the pool is closed, or they give up; those that
// remain wait on.
func TestExpectedGone(t *testing.T) {
	story(t, func(r *rig) {
		q := expecting(4, 9, "a")
		opening := r.acquire(q)
		calls := []*call{r.call(q), r.call(q), r.call(q)}
		calls[1].cancel(context.Canceled)
		if !calls[1].answered() || calls[0].answered() || calls[2].answered() {
			t.Error("one gives up, and no more than one")
		}
		another := r.call(q) // in its stead
		r.waits(another)
		another.cancel(context.Canceled)
		r.Refuse("g", errSuspended)
		if !calls[0].answered() || calls[0].err != errSuspended || !calls[2].answered() || calls[2].err != errSuspended {
			t.Errorf("refused: %v, %v", calls[0].err, calls[2].err)
		}
		last := r.call(q)
		r.waits(last)
		closed := make(chan error)
		go func() { closed <- r.Close(context.Background()) }()
		if !last.answered() || last.err != ErrClosed {
			t.Errorf("closed: %v", last.err)
		}
		opening.Discard()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A permission that is postponed is no hope; its call has its old place, and they go in order when it is time.
func TestExpectedPostponed(t *testing.T) {
	story(t, func(r *rig) {
		q := expecting(40, 9, "a")
		q.Patience = time.Minute
		opening := r.acquire(q)
		second := r.call(q)
		r.waits(second)
		first := r.async(func(ctx context.Context) (*Lease[*peer], error) { return opening.Postpone(ctx, time.Second) })
		r.waits(first)
		r.waits(second)
		time.Sleep(time.Second)
		r.has(first, nil)
		r.has(second, nil)
		end(first.lease, second.lease)
	})
}

// Each call judges by its own Expect and MaxUses, and one that is not content does not stand behind others
// that are.
func TestExpectedByEach(t *testing.T) {
	request := func(n, maxUses int, keys ...string) Request {
		q := expecting(n, 9, keys...)
		q.MaxUses = maxUses
		return q
	}
	plain := ask(9, "a")
	tests := []struct {
		name          string
		opening, next Request
		waits         bool
	}{
		{"enough", request(3, 0, "a"), request(3, 0, "a"), true},
		{"any number", request(3, 0, "a"), request(math.MaxInt, 0, "a"), true},
		{"too few", request(40, 0, "a"), request(2, 0, "a"), false},
		{"for one alone", request(40, 0, "a"), request(1, 0, "a"), false},
		{"nonsense", request(40, 0, "a"), request(math.MinInt, 0, "a"), false},
		{"no expectation", request(40, 0, "a"), plain, false},
		{"used up before", request(40, 0, "a"), request(40, 2, "a"), false},
		{"used up with it", request(40, 0, "a"), request(40, 3, "a"), true},
		{"another key", request(40, 0, "a"), request(40, 0, "b"), false},
		{"no key", request(40, 0, "a"), request(40, 0), false},
		{"no better key", request(40, 0, "a"), request(40, 0, "b", "a"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				opening := r.acquire(tt.opening)
				first := r.call(request(40, 0, "a"))
				r.waits(first)
				next := r.call(tt.next)
				if tt.waits {
					r.waits(first)
					r.waits(next)
					opening.Discard()
				}
				// If not, the first opens one. That may be enough for the other.
				r.has(first, nil)
				first.lease.Discard()
				opening.Discard()
				r.has(next, nil)
				next.lease.Discard()
			})
		})
	}
}

// A session that serves the call alone that opens it, or is opened under an unknown key, is nobody's hope.
func TestExpectedOfNobody(t *testing.T) {
	once := expecting(40, 9, "a")
	once.MaxUses = 1
	for _, q := range []Request{once, expecting(40, 9)} {
		story(t, func(r *rig) {
			opening := r.acquire(q)
			end(opening, r.acquire(expecting(40, 9, "a")))
		})
	}
}

// Nobody waits for a session that is being opened under a key that it does not name.
func TestExpectedUnderAnotherKey(t *testing.T) {
	story(t, func(r *rig) {
		opening := r.acquire(expecting(40, 9, "a"))
		b := r.acquire(expecting(40, 9, "b"))
		end(opening, b)
	})
}

// Nor does it stand behind calls that wait by choice.
func TestExpectedByOthersInLine(t *testing.T) {
	story(t, func(r *rig) {
		idle := r.idle(ask(9), "b")
		opening := r.acquire(expecting(40, 9, "a"))
		a := r.call(expecting(40, 9, "a"))
		r.waits(a)
		b := r.call(expecting(40, 9, "b"))
		r.has(a, nil)
		r.has(b, idle[0])
		end(opening, a.lease, b.lease)
	})
}

// A call that comes back to its old place pushes those behind it back, and they are asked again.
func TestExpectedPushedBack(t *testing.T) {
	story(t, func(r *rig) {
		dead := r.idle(ask(9), "b")[0]
		found := make(chan struct{})
		dead.alive = func() { <-found }
		dead.dead.Store(true)
		back := r.call(expecting(2, 9, "b", "a"))
		opening := r.acquire(expecting(2, 9, "a"))
		behind := r.call(expecting(2, 9, "a"))
		r.waits(back)
		r.waits(behind)
		close(found)
		r.has(back, nil)
		r.waits(behind)
		end(opening)
		r.has(behind, nil)
		end(back.lease, behind.lease)
	})
}

// Nobody's idle session ends for calls that what is being opened is enough for, at the limit of the group
// or at one that is shared; and for those that it is not enough for, no more than they need.
func TestExpectedMakesNoRoom(t *testing.T) {
	tests := []struct {
		name           string
		expect, calls  int
		limit, sharing int
		want           []string
	}{
		{"enough", 3, 2, 4, 0, []string{"open", "open", "open"}},
		{"one is missing", 3, 3, 4, 0, []string{"retired", "open", "open"}},
		{"one session is missing", 3, 5, 4, 0, []string{"retired", "open", "open"}},
		{"two sessions are missing", 3, 6, 4, 0, []string{"retired", "retired", "open"}},
		{"no expectation", 1, 3, 4, 0, []string{"retired", "retired", "retired"}},
		{"enough, and a shared limit", 3, 2, 9, 4, []string{"open", "open", "open"}},
		{"one is missing, and a shared limit", 3, 3, 9, 4, []string{"retired", "open", "open"}},
		{"two sessions are missing, and a shared limit", 3, 6, 9, 4, []string{"retired", "retired", "open"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				q := expecting(tt.expect, tt.limit, "a")
				other := ask(tt.limit)
				if tt.sharing > 0 {
					q.Shared = []Shared{{"s", tt.sharing}}
					other.Group, other.Shared = "h", q.Shared
				}
				idle := r.idle(other, "x", "y", "z")
				opening := r.acquire(q)
				gone := make(chan struct{})
				for _, s := range idle {
					s.retire = func() { <-gone }
				}
				var calls []*call
				for range tt.calls {
					calls = append(calls, r.call(q))
				}
				r.states(idle, tt.want...)
				for _, c := range calls {
					r.waits(c)
				}
				s := wideOpened(opening, "a", 40, 40)
				for _, c := range calls {
					r.has(c, s)
					end(c.lease)
				}
				close(gone)
				end(opening)
			})
		})
	}
}

// A call that waits by choice does not stand in line for a limit that its group shares.
func TestExpectedOutOfLine(t *testing.T) {
	story(t, func(r *rig) {
		sharing := func(q Request, group string) Request {
			q.Group, q.Shared = group, []Shared{{"s", 2}}
			return q
		}
		opening := r.acquire(sharing(expecting(2, 9, "a"), "g"))
		full, _ := r.open(sharing(ask(9, "b"), "h"))
		waiting := r.call(sharing(expecting(2, 9, "a"), "g"))
		later := r.call(sharing(ask(9, "c"), "k"))
		r.waits(waiting)
		r.waits(later)
		full.Retire()
		r.has(later, nil)
		r.waits(waiting)
		end(opening)
		r.has(waiting, nil)
		end(later.lease, waiting.lease)
	})
}

// A limit that falls below what is there makes a call that waits by choice wait until it is kept.
func TestExpectedAboveTheLimit(t *testing.T) {
	story(t, func(r *rig) {
		q := expecting(40, 9, "a")
		opening := r.acquire(q)
		full, _ := r.open(ask(9, "b"))
		waiting := r.call(q)
		r.waits(waiting)
		q.Limit = 1
		low := r.call(q)
		s := wideOpened(opening, "a", 40, 40)
		r.waits(waiting)
		full.Release()
		r.has(waiting, s)
		r.has(low, s)
		end(opening, waiting.lease, low.lease)
	})
}

// What is being opened comes although the Opening gate is closed: so a call waits for it, and is not held up
// by the gate, until it is told that it does not come.
func TestExpectedBehindGates(t *testing.T) {
	story(t, func(r *rig) {
		gate := every(10*time.Second, 1)
		q := paced(9, nil, gate, "a")
		q.Expect, q.Patience = func() int { return 40 }, time.Minute
		opening := r.acquire(q)
		c := r.call(q)
		r.waits(c)
		if s := r.Stats()[0]; s.Held {
			t.Errorf("%+v", s)
		}
		end(opening)
		r.waits(c)
		if s := r.Stats()[0]; !s.Held {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Second)
		r.has(c, nil)
		end(c.lease)
	})
}
