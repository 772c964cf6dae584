package sessions

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// wide returns a lease of a new session of the request's first key that serves several calls at a time.
func (r *rig) wide(request Request, capacity int32) (*Lease[*peer], *peer) {
	r.Helper()
	l := r.acquire(request)
	if s, ok := l.Session(); ok {
		r.Fatalf("session %v was lent, want a new one", s)
	}
	s := &peer{name: request.Keys[0]}
	s.capacity.Store(capacity)
	l.Opened(s.name, s)
	return l, s
}

// shares returns a lease that is to be had at once, on this session.
func (r *rig) shares(request Request, want *peer) *Lease[*peer] {
	r.Helper()
	c := r.call(request)
	r.has(c, want)
	return c.lease
}

func end(leases ...*Lease[*peer]) {
	for _, l := range leases {
		l.Release()
	}
}

func TestWhereACallGoes(t *testing.T) {
	// Each case begins with a session of key "a" that is lent and has room, and an idle one of each of
	// the keys named.
	tests := []struct {
		name    string
		limit   int
		idle    []string
		keys    []string
		want    string // "shared", "new", "waits" or the key of the idle session
		retired int    // how many of the idle ones make room
	}{
		{"an idle one, though another has room", 2, []string{"a"}, []string{"a"}, "idle", 0},
		{"an idle one of a worse key", 2, []string{"b"}, []string{"a", "b"}, "idle", 0},
		{"a new one, though another has room", 2, nil, []string{"a"}, "new", 0},
		{"a share at the limit", 1, nil, []string{"a"}, "shared", 0},
		{"a share before the room of an idle one", 2, []string{"b"}, []string{"a"}, "shared", 0},
		{"a share of a worse key", 1, nil, []string{"b", "a"}, "shared", 0},
		{"the room of an idle one, if there is nothing to share", 2, []string{"b"}, []string{"c"}, "new", 1},
		{"no share of another key", 1, nil, []string{"b"}, "waits", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				l, lent := r.wide(ask(tt.limit, "a"), 2)
				idle := r.idle(ask(tt.limit), tt.idle...)
				c := r.call(ask(tt.limit, tt.keys...))
				switch tt.want {
				case "shared":
					r.has(c, lent)
				case "new":
					r.has(c, nil)
				case "idle":
					r.has(c, idle[0])
				case "waits":
					r.waits(c)
					c.cancel(nil)
				}
				var retired int
				for _, s := range idle {
					retired += int(s.retired.Load())
				}
				if retired != tt.retired {
					t.Errorf("%d idle sessions made room, want %d", retired, tt.retired)
				}
				if c.lease != nil {
					c.lease.Release()
				}
				l.Release()
			})
		})
	}
}

func TestSharesAreSpreadEvenly(t *testing.T) {
	story(t, func(r *rig) {
		const sessions, capacity = 4, 5
		request := ask(sessions, "a")
		var leases []*Lease[*peer]
		counts := make(map[*peer]int)
		for range sessions {
			l, s := r.wide(request, capacity)
			leases = append(leases, l)
			counts[s] = 1
		}
		for n := 2; n <= capacity; n++ {
			for range sessions {
				l := r.acquire(request)
				s, _ := l.Session()
				leases = append(leases, l)
				counts[s]++
			}
			for s, count := range counts {
				if count != n {
					t.Fatalf("after %d rounds session %p has %d calls", n, s, count)
				}
			}
		}
		full := r.call(request)
		r.waits(full)
		last, _ := leases[7].Session()
		leases[7].Release()
		r.has(full, last)
		end(full.lease)
		end(leases...)
	})
}

func TestSharesComeFromTheBestKey(t *testing.T) {
	story(t, func(r *rig) {
		la, a := r.wide(ask(2, "a"), 2)
		lb, b := r.wide(ask(2, "b"), 2)
		first := r.shares(ask(2, "b", "a"), b)
		second := r.shares(ask(2, "b", "a"), a) // the other is full
		end(la, lb, first, second)
	})
}

func TestCapacity(t *testing.T) {
	t.Run("below one counts as one", func(t *testing.T) {
		for _, capacity := range []int32{-1, 0} {
			story(t, func(r *rig) {
				l, s := r.wide(ask(1, "a"), capacity)
				c := r.call(ask(1, "a"))
				r.waits(c)
				l.Release()
				r.has(c, s)
				end(c.lease)
			})
		}
	})
	t.Run("grown counts from the next end of a lease", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.wide(ask(1, "a"), 2)
			second := r.shares(ask(1, "a"), s)
			calls := []*call{r.call(ask(1, "a")), r.call(ask(1, "a")), r.call(ask(1, "a"))}
			s.capacity.Store(3)
			r.waits(calls[0])
			second.Release()
			r.has(calls[0], s)
			r.has(calls[1], s)
			r.waits(calls[2])
			l.Release()
			r.has(calls[2], s)
			end(calls[0].lease, calls[1].lease, calls[2].lease)
			r.states([]*peer{s}, "open")
		})
	})
	t.Run("shrunk lets those stay who are there", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.wide(ask(1, "a"), 4)
			second, third := r.shares(ask(1, "a"), s), r.shares(ask(1, "a"), s)
			s.capacity.Store(2)
			c := r.call(ask(1, "a"))
			r.waits(c)
			second.Release()
			r.waits(c)
			third.Release()
			r.has(c, s)
			end(l, c.lease)
		})
	})
}

func TestWaitersShareWhatIsOpened(t *testing.T) {
	story(t, func(r *rig) {
		opening := r.acquire(ask(1, "a"))
		calls := []*call{r.call(ask(1, "a")), r.call(ask(1, "a")), r.call(ask(1, "a"))}
		s := &peer{}
		s.capacity.Store(3)
		opening.Opened("a", s)
		r.has(calls[0], s)
		r.has(calls[1], s)
		r.waits(calls[2])
		opening.Release()
		r.has(calls[2], s)
		end(calls[0].lease, calls[1].lease, calls[2].lease)
	})
	story(t, func(r *rig) {
		opening := r.acquire(ask(1, "a", "b"))
		c := r.call(ask(1, "a"))
		s := &peer{}
		s.capacity.Store(3)
		opening.Opened("b", s)
		r.waits(c)
		opening.Release()
		r.has(c, nil)
		r.states([]*peer{s}, "retired")
		c.lease.Discard()
	})
}

// All who wait share a session that another call has just given back.
func TestWaitersShareWhatIsGivenBack(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(ask(1, "a"), 1)
		calls := []*call{r.call(ask(1, "a")), r.call(ask(1, "a"))}
		s.capacity.Store(2)
		l.Release()
		r.has(calls[0], s)
		r.has(calls[1], s)
		end(calls[0].lease, calls[1].lease)
	})
}

func TestFirstWaiterIsNotOvertakenByASharer(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(ask(1, "a"), 9)
		first := r.call(ask(1, "b"))
		second := r.call(ask(1, "a"))
		r.waits(first)
		r.waits(second)
		first.cancel(nil)
		r.has(second, s)
		end(l, second.lease)
	})
}

func TestMaxUsesCountsSharers(t *testing.T) {
	story(t, func(r *rig) {
		request := ask(1, "a")
		request.MaxUses = 3
		l, s := r.wide(request, 9)
		second, third := r.shares(request, s), r.shares(request, s)
		c := r.call(request)
		r.waits(c)
		end(l, third)
		r.states([]*peer{s}, "open")
		r.waits(c)
		end(second)
		r.states([]*peer{s}, "retired")
		r.has(c, nil)
		c.lease.Discard()
	})
}

// A session that is worn for one call is not for another, and does not stand before the next session.
func TestSharesOfDifferentBounds(t *testing.T) {
	story(t, func(r *rig) {
		narrow := ask(2, "a")
		narrow.MaxUses = 2
		l1, s1 := r.wide(ask(1, "a"), 9)
		l2 := r.shares(ask(1, "a"), s1)
		l3, s2 := r.wide(ask(2, "a"), 9)
		l4 := r.shares(narrow, s2)
		c := r.call(narrow)
		r.waits(c)
		c.cancel(nil)
		l5 := r.shares(ask(2, "a"), s1)
		end(l1, l2, l3, l4, l5)
		r.states([]*peer{s1, s2}, "open", "retired")
	})
}

func TestOneSharerEndsTheSession(t *testing.T) {
	tests := []struct {
		name        string
		end         func(*rig, *Lease[*peer])
		now, atLast string // what became of the session
	}{
		{"Retire", func(r *rig, l *Lease[*peer]) { l.Retire() }, "open", "retired"},
		{"Discard", func(r *rig, l *Lease[*peer]) { l.Discard() }, "killed", "killed"},
		{"Drain", func(r *rig, l *Lease[*peer]) { r.Drain(nil); l.Release() }, "open", "retired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				l, s := r.wide(ask(1, "a"), 9)
				second, third := r.shares(ask(1, "a"), s), r.shares(ask(1, "a"), s)
				tt.end(r, second)
				r.states([]*peer{s}, tt.now)
				c := r.call(ask(1, "a")) // it is lent no more, and counts until the last lease ends
				r.waits(c)
				l.Release()
				r.states([]*peer{s}, tt.now)
				r.waits(c)
				if got, ok := third.Session(); got != s || !ok {
					t.Errorf("the last lease has session %v, %v", got, ok)
				}
				third.Release()
				r.states([]*peer{s}, tt.atLast)
				r.has(c, nil)
				c.lease.Discard()
			})
		})
	}
	t.Run("Discard by all", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.wide(ask(1, "a"), 9)
			second := r.shares(ask(1, "a"), s)
			l.Discard()
			second.Discard()
			r.states([]*peer{s}, "killed")
			empty(t, &r.Pool)
			if got, want := r.Totals(), (Totals{Opened: 1, Reused: 1, Killed: 1}); got != want {
				t.Errorf("totals %+v, want %+v", got, want)
			}
		})
	})
}

// When the limit falls nobody shares what is above it, and the session that is free first makes the
// group fit.
func TestLimitFallsOnSharedSessions(t *testing.T) {
	story(t, func(r *rig) {
		l1, s1 := r.wide(ask(2, "a"), 9)
		l2, s2 := r.wide(ask(2, "a"), 9)
		l3 := r.shares(ask(2, "a"), s1)
		c := r.call(ask(1, "a"))
		r.waits(c)
		l1.Release()
		r.waits(c)
		l2.Release()
		r.states([]*peer{s1, s2}, "open", "retired")
		r.has(c, s1)
		end(l3, c.lease)
		r.states([]*peer{s1}, "open")
	})
}

func TestIdleTimeoutOfTheLastLeaseCounts(t *testing.T) {
	story(t, func(r *rig) {
		request := func(d time.Duration) Request { q := ask(1, "a"); q.IdleTimeout = d; return q }
		l, s := r.wide(request(time.Hour), 9)
		second, third := r.shares(request(0), s), r.shares(request(time.Second), s)
		second.Release()
		r.states([]*peer{s}, "open")
		l.Release()
		time.Sleep(time.Minute)
		third.Release()
		time.Sleep(time.Second - time.Nanosecond)
		r.states([]*peer{s}, "open")
		time.Sleep(time.Nanosecond)
		r.states([]*peer{s}, "retired")
	})
}

func TestAliveIsAskedBeforeAnybodyShares(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(ask(1, "a"), 2)
		s.dead.Store(true)
		second := r.shares(ask(1, "a"), s) // not asked: the calls on it will find out
		end(l, second)
		s.dead.Store(false)

		asked, answer := make(chan struct{}), make(chan struct{})
		s.alive = func() { close(asked); <-answer }
		first := r.call(ask(1, "a"))
		<-asked
		next := r.call(ask(1, "a"))
		r.waits(next)
		close(answer)
		r.has(first, s)
		r.has(next, s)
		end(first.lease, next.lease)
	})
}

// A session that is drained while a call asks whether it is alive serves that call alone.
func TestDrainedWhileAsked(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(ask(1, "a"), 2)
		l.Release()
		answer := make(chan struct{})
		s.alive = func() { <-answer }
		first, next := r.call(ask(1, "a")), r.call(ask(1, "a"))
		r.Drain(nil)
		close(answer)
		r.has(first, s)
		r.waits(next)
		end(first.lease)
		r.has(next, nil)
		r.states([]*peer{s}, "retired")
		next.lease.Discard()
	})
}

// What a call that gives up was to share goes to the next, and does not count as a use.
func TestSharedAndCancelledAtOnce(t *testing.T) {
	story(t, func(r *rig) {
		var served, gaveUp int
		for range 500 {
			request := ask(1, "a")
			request.MaxUses = 3
			l, s := r.wide(request, 2)
			second := r.shares(request, s)
			r.mu.Lock()
			_, w, _ := r.assign(r.groups["g"], r.claim(request))
			r.mu.Unlock()
			next := r.call(request)
			second.Release()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			got, err := r.wait(ctx, w)
			if err == nil {
				served++
				r.waits(next)
				r.lease(got, r.claim(request)).Discard()
				l.Discard()
				r.has(next, nil)
			} else {
				gaveUp++
				r.has(next, s)
				l.Discard()
			}
			next.lease.Discard()
		}
		if served == 0 || gaveUp == 0 {
			t.Errorf("%d served, %d gave up: the race was not tried", served, gaveUp)
		}
	})
}

// Where room for the first in line is being made already, what is given back is kept.
func TestRoomIsMadeOncePerWaiter(t *testing.T) {
	story(t, func(r *rig) {
		unblock := make(chan struct{})
		var leases []*Lease[*peer]
		var peers []*peer
		for range 3 {
			l, s := r.open(ask(3, "a"))
			s.retire = func() { <-unblock }
			leases, peers = append(leases, l), append(peers, s)
		}
		c := r.call(ask(3, "b"))
		end(leases...)
		r.states(peers, "retired", "open", "open")
		r.waits(c)
		close(unblock)
		r.has(c, nil)
		r.states(peers, "retired", "open", "open")
		c.lease.Discard()
	})
}

func TestCloseWaitsForSharers(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(ask(1, "a"), 9)
		second := r.shares(ask(1, "a"), s)
		c := r.closing()
		l.Release()
		r.states([]*peer{s}, "open")
		if c.returned() {
			t.Fatal("Close did not wait for the second lease")
		}
		second.Release()
		r.states([]*peer{s}, "retired")
		if !c.returned() || c.err != nil {
			t.Errorf("Close: %v", c.err)
		}
	})
	story(t, func(r *rig) {
		l, s := r.wide(ask(1, "a"), 9)
		second := r.shares(ask(1, "a"), s)
		c := r.closing()
		c.cancel(errShutdown)
		r.states([]*peer{s}, "killed")
		end(l, second)
		if !c.returned() || !errors.Is(c.err, errShutdown) {
			t.Errorf("Close: %v", c.err)
		}
		r.states([]*peer{s}, "killed")
	})
}

func TestStatsOfSharedSessions(t *testing.T) {
	story(t, func(r *rig) {
		unblock := make(chan struct{})
		r.idle(ask(3), "x")[0].retire = func() { <-unblock }
		l, s := r.wide(ask(3, "a"), 3)
		other, _ := r.wide(ask(3, "a"), 1)
		second := r.shares(ask(3, "a"), s)
		third := r.shares(ask(3, "a"), s)
		c := r.call(ask(3, "a")) // all is full: the idle one makes room
		want := []GroupStats{{Group: "g", Limit: 3, Lent: 2, Calls: 4, Ending: 1, Waiting: 1, Opened: 3}}
		if got := r.Stats(); !slices.Equal(got, want) {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		close(unblock)
		r.has(c, nil)
		c.lease.Discard()
		second.Discard()
		synctest.Wait()
		want = []GroupStats{{Group: "g", Limit: 3, Lent: 2, Calls: 3, Opened: 3}}
		if got := r.Stats(); !slices.Equal(got, want) {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		if got, want := r.Totals(), (Totals{Opened: 3, Reused: 2, Retired: 1, Killed: 1}); got != want {
			t.Errorf("totals %+v, want %+v", got, want)
		}
		end(l, third, other)
	})
}
