package sessions

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestIdleSessionIsReused(t *testing.T) {
	tests := []struct {
		name string
		idle []string // least recently used first
		keys []string
		want int // index in idle; -1: a new one
	}{
		{"nothing idle", nil, []string{"a"}, -1},
		{"same key", []string{"a"}, []string{"a"}, 0},
		{"another key", []string{"a"}, []string{"b"}, -1},
		{"no key", []string{"a"}, nil, -1},
		{"most recently used", []string{"a", "a", "a"}, []string{"a"}, 2},
		{"best key first", []string{"b", "a", "c"}, []string{"a", "b", "c"}, 1},
		{"best key that there is", []string{"c", "b", "c"}, []string{"a", "b", "c"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				peers := r.idle(ask(10), tt.idle...)
				var want *peer
				if tt.want >= 0 {
					want = peers[tt.want]
				}
				c := r.call(ask(10, tt.keys...))
				r.has(c, want)
				c.lease.Release()
				for _, s := range peers {
					r.states([]*peer{s}, "open")
				}
			})
		})
	}
}

func TestGroupsDoNotShareSessions(t *testing.T) {
	story(t, func(r *rig) {
		r.idle(ask(1), "a")
		other := ask(1, "a")
		other.Group = "other"
		c := r.call(other)
		r.has(c, nil)
		c.lease.Release()
	})
}

func TestDeadSessionsArePassedOver(t *testing.T) {
	story(t, func(r *rig) {
		peers := r.idle(ask(3), "a", "a", "a")
		peers[2].dead.Store(true)
		peers[1].dead.Store(true)
		c := r.call(ask(3, "a"))
		r.has(c, peers[0])
		r.states(peers, "open", "killed", "killed")
		peers[0].dead.Store(true)
		c.lease.Release()

		c = r.call(ask(1, "a"))
		r.has(c, nil)
		r.states(peers, "killed", "killed", "killed")
		c.lease.Release()
		if got, want := r.Totals(), (Totals{Opened: 3, Reused: 1, Killed: 3, Dead: 3}); got != want {
			t.Errorf("totals %+v, want %+v", got, want)
		}
	})
}

func TestIdleSessionOfAnotherKeyGivesWay(t *testing.T) {
	story(t, func(r *rig) {
		peers := r.idle(ask(3), "a", "b", "c")
		l, _ := r.open(ask(3, "d"))
		r.states(peers, "retired", "open", "open")
		l2, _ := r.open(ask(3, "e"))
		r.states(peers, "retired", "retired", "open")
		l.Release()
		l2.Release()
	})
}

func TestWaitersAreServedInOrder(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(ask(1, "a"))
		var calls []*call
		for range 5 {
			calls = append(calls, r.call(ask(1, "a")))
		}
		for i, c := range calls {
			l.Release()
			r.has(c, s)
			for _, later := range calls[i+1:] {
				r.waits(later)
			}
			l = c.lease
		}
		l.Release()
		r.states([]*peer{s}, "open")
	})
}

func TestFirstWaiterIsNotOvertaken(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(ask(1, "a"))
		first, second := r.call(ask(1, "b")), r.call(ask(1, "a"))
		l.Release() // the second could use it, the first cannot
		r.has(first, nil)
		r.waits(second)
		r.states([]*peer{s}, "retired")
		first.lease.Discard()
		r.has(second, nil)
		second.lease.Discard()
	})
}

func TestHowALeaseEnds(t *testing.T) {
	tests := []struct {
		name   string
		end    func(*Lease[*peer])
		state  string
		handed bool // the waiter gets the session itself
	}{
		{"Release", (*Lease[*peer]).Release, "open", true},
		{"Retire", (*Lease[*peer]).Retire, "retired", false},
		{"Discard", (*Lease[*peer]).Discard, "killed", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				l, s := r.open(ask(1, "a"))
				first, second := r.call(ask(1, "a")), r.call(ask(1, "a"))
				tt.end(l)
				r.states([]*peer{s}, tt.state)
				if tt.handed {
					r.has(first, s)
				} else {
					r.has(first, nil)
				}
				for _, again := range tests {
					again.end(l)
				}
				if _, ok := l.Session(); ok {
					t.Error("the lease still has a session")
				}
				r.waits(second)
				r.states([]*peer{s}, tt.state)

				late := &peer{}
				l.Opened("a", late)
				r.states([]*peer{late}, "killed")
				first.lease.Discard()
				r.has(second, nil)
				second.lease.Discard()
			})
		})
		t.Run(tt.name+" of a permission", func(t *testing.T) {
			story(t, func(r *rig) {
				l := r.acquire(ask(1, "a"))
				c := r.call(ask(1, "a"))
				tt.end(l)
				tt.end(l)
				r.has(c, nil)
				c.lease.Discard()
			})
		})
	}
}

func TestOpenedOnASessionKillsTheSecond(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(ask(1, "a"))
		second := &peer{}
		l.Opened("b", second)
		if got, ok := l.Session(); got != s || !ok {
			t.Errorf("session %v, %v", got, ok)
		}
		r.states([]*peer{s, second}, "open", "killed")
		l.Release()
	})
}

func TestMaxUses(t *testing.T) {
	request := func(uses int) Request { q := ask(1, "a"); q.MaxUses = uses; return q }
	t.Run("given back after the last use", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.open(request(3))
			l.Release()
			for range 2 {
				r.states([]*peer{s}, "open")
				r.acquire(request(3)).Release()
			}
			r.states([]*peer{s}, "retired")
		})
	})
	t.Run("asked for with a lower bound", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.open(request(0))
			l.Release()
			r.acquire(request(2)).Release()
			r.states([]*peer{s}, "retired")
		})
	})
	t.Run("waited for with a lower bound", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.open(request(0))
			c := r.call(request(1))
			l.Release()
			r.has(c, nil)
			r.states([]*peer{s}, "retired")
			c.lease.Discard()
		})
	})
	t.Run("lent with a lower bound", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.open(request(0))
			l.Release()
			l2, fresh := r.open(request(1))
			r.states([]*peer{s, fresh}, "retired", "open")
			l2.Release()
			r.states([]*peer{fresh}, "retired")
		})
	})
}

func TestIdleTimeout(t *testing.T) {
	request := func(d time.Duration) Request { q := ask(1, "a"); q.IdleTimeout = d; return q }
	t.Run("to the moment", func(t *testing.T) {
		story(t, func(r *rig) {
			s := r.idle(request(10*time.Second), "a")
			time.Sleep(10*time.Second - time.Nanosecond)
			r.states(s, "open")
			time.Sleep(time.Nanosecond)
			r.states(s, "retired")
			empty(t, &r.Pool)
		})
	})
	t.Run("counted anew after each use", func(t *testing.T) {
		story(t, func(r *rig) {
			s := r.idle(request(10*time.Second), "a")
			for range 5 {
				time.Sleep(9 * time.Second)
				l := r.acquire(request(10 * time.Second))
				time.Sleep(time.Minute)
				l.Release()
			}
			time.Sleep(10*time.Second - time.Nanosecond)
			r.states(s, "open")
			time.Sleep(time.Nanosecond)
			r.states(s, "retired")
		})
	})
	t.Run("shortened by the next use", func(t *testing.T) {
		story(t, func(r *rig) {
			s := r.idle(request(time.Hour), "a")
			r.acquire(request(time.Second)).Release()
			time.Sleep(time.Second)
			r.states(s, "retired")
		})
	})
	t.Run("none", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.open(request(0))
			c := r.call(request(0))
			l.Release()
			r.has(c, s) // never idle
			c.lease.Release()
			r.states([]*peer{s}, "retired")
		})
	})
}

// A session that ends early leaves no timer behind that would hold its memory.
func TestEndedSessionHasNoTimer(t *testing.T) {
	story(t, func(r *rig) {
		s := r.idle(ask(1), "a")[0]
		l := r.acquire(ask(1, "a"))
		timer := l.slot.timer
		l.Discard()
		r.states([]*peer{s}, "killed")
		if timer.Stop() {
			t.Error("the timer was still set")
		}
	})
}

func TestLimitOfTheLatestRequestCounts(t *testing.T) {
	t.Run("raised", func(t *testing.T) {
		story(t, func(r *rig) {
			l, _ := r.open(ask(1, "a"))
			calls := []*call{r.call(ask(1, "a")), r.call(ask(1, "a")), r.call(ask(3, "a"))}
			r.has(calls[0], nil)
			r.has(calls[1], nil)
			r.waits(calls[2])
			l.Discard()
			for _, c := range calls {
				r.has(c, nil)
				c.lease.Discard()
			}
		})
	})
	t.Run("lowered", func(t *testing.T) {
		story(t, func(r *rig) {
			l1, s1 := r.open(ask(4, "a"))
			l2, s2 := r.open(ask(4, "a"))
			idle := r.idle(ask(4), "a", "a")
			c := r.call(ask(1, "a"))
			r.states(idle, "retired", "retired")
			r.waits(c)
			l1.Release()
			r.states([]*peer{s1}, "retired")
			r.waits(c)
			l2.Release()
			r.has(c, s2)
			c.lease.Release()
		})
	})
	t.Run("below one", func(t *testing.T) {
		story(t, func(r *rig) {
			l := r.acquire(ask(-1, "a"))
			c := r.call(ask(0, "a"))
			r.waits(c)
			l.Discard()
			r.has(c, nil)
			c.lease.Discard()
		})
	})
}

// A call that was served with a dead session while the limit fell waits again, before those who came
// after it.
func TestDeadSessionCostsNoPlaceInLine(t *testing.T) {
	story(t, func(r *rig) {
		l1, s1 := r.open(ask(2, "a"))
		l2, _ := r.open(ask(2, "a"))
		asked, answer := make(chan struct{}), make(chan struct{})
		s1.alive = func() { close(asked); <-answer }
		s1.dead.Store(true)
		first, second := r.call(ask(2, "a")), r.call(ask(2, "a"))
		l1.Release() // to the first, who asks
		<-asked
		third := r.call(ask(1, "a"))
		close(answer)
		r.waits(first)
		r.states([]*peer{s1}, "killed")
		l2.Discard()
		for _, c := range []*call{first, second, third} {
			r.has(c, nil)
			c.lease.Discard()
		}
	})
}

// Of two calls that were served with dead sessions while the limit fell to one, the earlier goes first,
// also if it was the first to find out.
func TestDeadSessionsKeepTheOrder(t *testing.T) {
	story(t, func(r *rig) {
		var leases []*Lease[*peer]
		var answers []chan struct{}
		for range 2 {
			l, s := r.open(ask(2, "a"))
			answer := make(chan struct{})
			s.alive = func() { <-answer }
			s.dead.Store(true)
			leases, answers = append(leases, l), append(answers, answer)
		}
		first, second := r.call(ask(2, "a")), r.call(ask(2, "a"))
		leases[0].Release()
		leases[1].Release()
		third := r.call(ask(1, "a"))
		close(answers[0])
		r.waits(first)
		close(answers[1])
		r.has(first, nil)
		r.waits(second)
		r.waits(third)
		for _, c := range []*call{first, second, third} {
			r.has(c, nil)
			c.lease.Discard()
		}
	})
}

func TestContextEnds(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(ask(1, "a"))
		calls := []*call{r.call(ask(1, "a")), r.call(ask(1, "a")), r.call(ask(1, "a"))}
		cause := errors.New("the caller went home")
		calls[1].cancel(cause)
		if !calls[1].answered() || calls[1].err != cause || calls[1].lease != nil {
			t.Fatalf("lease %v, error %v", calls[1].lease, calls[1].err)
		}
		l.Release()
		r.has(calls[0], s)
		calls[0].lease.Release()
		r.has(calls[2], s)
		calls[2].lease.Release()

		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		if l, err := r.Acquire(ctx, ask(1, "a")); err != cause || l != nil {
			t.Errorf("with an ended context: lease %v, error %v", l, err)
		}
	})
}

// A call that gives up at the moment when it is served hands on what it got. Which of the two it sees is
// up to chance, so this is tried until both were seen.
func TestServedAndCancelledAtOnce(t *testing.T) {
	for _, with := range []string{"session", "permission"} {
		t.Run(with, func(t *testing.T) {
			story(t, func(r *rig) {
				var served, gaveUp int
				for range 1000 {
					l, s := r.open(ask(1, "a"))
					r.mu.Lock()
					_, w, _ := r.assign(r.groups["g"], r.claim(ask(1, "a")))
					r.mu.Unlock()
					next := r.call(ask(1, "a"))
					if with == "session" {
						l.Release()
					} else {
						l.Discard()
						s = nil
					}
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					got, err := r.wait(ctx, w)
					if err == nil {
						served++
						r.waits(next)
						if got.asking {
							r.share(got)
						}
						r.lease(got, r.claim(ask(1, "a"))).Release()
					} else {
						gaveUp++
					}
					r.has(next, s)
					next.lease.Discard()
				}
				if served == 0 || gaveUp == 0 {
					t.Errorf("%d served, %d gave up: the race was not tried", served, gaveUp)
				}
			})
		})
	}
}

// A call that gives up no longer stands before one that can use an idle session.
func TestGivingUpLetsTheNextGo(t *testing.T) {
	story(t, func(r *rig) {
		peers := r.idle(ask(3), "a", "b", "x")
		unblock := make(chan struct{})
		for _, s := range peers {
			s.retire = func() { <-unblock }
		}
		first, second := r.call(ask(3, "c")), r.call(ask(3, "x"))
		r.states(peers, "retired", "retired", "open") // room for one each
		r.waits(second)
		first.cancel(nil)
		r.has(second, peers[2])
		close(unblock)
		second.lease.Release()
	})
}

// A session that is handed to a call which has given up was not used: it stays no longer for that.
func TestHandedBackUnusedIsNoUse(t *testing.T) {
	story(t, func(r *rig) {
		s := r.idle(ask(1), "a")
		time.Sleep(time.Minute - time.Second)
		for {
			r.mu.Lock()
			slot := r.find(r.groups["g"], r.claim(ask(1, "a")))
			w := r.groups["g"].enqueue(r.claim(ask(1, "a")))
			r.groups["g"].answer(w, slot, nil)
			r.mu.Unlock()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			got, err := r.wait(ctx, w)
			if err != nil {
				break
			}
			r.mu.Lock() // as if it had given up
			r.decline(got)
			r.mu.Unlock()
		}
		r.states(s, "open")
		time.Sleep(time.Second)
		r.states(s, "retired")
	})
}

func TestDrain(t *testing.T) {
	story(t, func(r *rig) {
		other := ask(9)
		other.Group = "other"
		kept := r.idle(other, "a")
		l, lent := r.open(ask(9, "a"))
		idle := r.idle(ask(9), "a", "b")
		opening := r.acquire(ask(9, "c"))

		r.Drain(func(group, _ string) bool { return group == "g" })
		r.states(idle, "retired", "retired")
		r.states([]*peer{lent, kept[0]}, "open", "open")
		l.Release()
		r.states([]*peer{lent}, "retired")
		late := &peer{}
		opening.Opened("c", late)
		opening.Release()
		r.states([]*peer{late}, "retired")

		l, fresh := r.open(ask(9, "a"))
		l.Release()
		r.states([]*peer{fresh, kept[0]}, "open", "open")
		r.Drain(nil)
		r.states([]*peer{fresh, kept[0]}, "retired", "retired")
		empty(t, &r.Pool)
	})
}

func TestDrainedSessionIsNotHandedOver(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(ask(1, "a"))
		c := r.call(ask(1, "a"))
		r.Drain(nil)
		r.waits(c)
		l.Release()
		r.has(c, nil)
		r.states([]*peer{s}, "retired")
		c.lease.Discard()
	})
}

func TestStatsAndTotals(t *testing.T) {
	story(t, func(r *rig) {
		b := ask(3, "x")
		b.Group = "b"
		r.idle(b, "x", "y")
		r.acquire(b).Release()
		l, _ := r.open(ask(2, "a"))
		opening := r.acquire(ask(2, "a"))
		c := r.call(ask(2, "a"))
		want := []GroupStats{
			{Group: "b", Limit: 3, Idle: 2, Opened: 2},
			{Group: "g", Limit: 2, Lent: 1, Calls: 1, Opening: 1, Waiting: 1, Opened: 1},
		}
		if got := r.Stats(); !slices.Equal(got, want) {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		opening.Discard()
		r.has(c, nil)
		c.lease.Discard()
		l.Discard()
		if got := r.Stats(); !slices.Equal(got, want[:1]) {
			t.Errorf("stats %+v, want %+v", got, want[:1])
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.Stats(); len(got) > 0 {
			t.Errorf("stats %+v, want none", got)
		}
		if got, want := r.Totals(), (Totals{Opened: 3, Reused: 1, Retired: 2, Killed: 1}); got != want {
			t.Errorf("totals %+v, want %+v", got, want)
		}
	})
}

func TestNoMoreWaitThanMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool[*idler]
		r := Request{Group: "g", Limit: 1, MaxWaiting: 2, Keys: []string{"k"}}
		held, err := p.Acquire(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		for range 2 {
			served.Go(func() {
				l, err := p.Acquire(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				l.Discard()
			})
		}
		synctest.Wait()
		if _, err := p.Acquire(t.Context(), r); err != ErrFull {
			t.Errorf("a third one waits: %v", err)
		}
		held.Discard()
		served.Wait()
		l, err := p.Acquire(t.Context(), r)
		if err != nil {
			t.Fatalf("when nobody waits any more: %v", err)
		}
		l.Discard()
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// slow takes its time to retire.
type slow struct{ leave chan struct{} }

func (*slow) Capacity() int   { return 1 }
func (*slow) Comfort() int    { return 1 }
func (*slow) Alive() bool     { return true }
func (s *slow) Retire(Reason) { <-s.leave }
func (*slow) Kill()           {}

// TestAnEndingSessionCounts: a peer that is slow to answer QUIT never sees more sessions than the limit.
func TestAnEndingSessionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool[*slow]
		leave := make(chan struct{})
		first, err := p.Acquire(t.Context(), Request{Group: "g", Limit: 1, Keys: []string{"a"}, IdleTimeout: time.Minute, MaxUses: 1})
		if err != nil {
			t.Fatal(err)
		}
		first.Opened("a", &slow{leave})
		first.Release()
		var served atomic.Bool
		var done sync.WaitGroup
		done.Go(func() {
			l, err := p.Acquire(t.Context(), Request{Group: "g", Limit: 1, Keys: []string{"b"}})
			if err != nil {
				t.Error(err)
				return
			}
			served.Store(true)
			l.Discard()
		})
		synctest.Wait()
		if served.Load() {
			t.Error("a second session may be opened while the first is ending")
		}
		close(leave)
		done.Wait()
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
