package sessions

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// paced is a request with gates, of a caller who waits for ten seconds.
func paced(limit int, lending, opening Gate, keys ...string) Request {
	q := ask(limit, keys...)
	q.Lending, q.Opening, q.Patience = lending, opening, 10*time.Second
	return q
}

// delayed checks that the call was refused because of a gate.
func (r *rig) delayed(c *call, want Delayed) {
	r.Helper()
	var d *Delayed
	if !c.answered() || !errors.As(c.err, &d) || *d != want || c.lease != nil {
		r.Fatalf("answered %v, lease %v, error %v; want %v", c.answered(), c.lease, c.err, &want)
	}
}

func TestLendingIsPassedByEveryCallThatIsServed(t *testing.T) {
	story(t, func(r *rig) {
		gate := every(time.Second, 2)
		q := paced(2, gate, nil, "a")
		l, s := r.open(q) // a new one
		s.capacity.Store(2)
		l.Release()
		l = r.acquire(q) // an idle one
		if gate.count() != 2 || l.Waited() != 0 {
			t.Fatalf("%d events, waited %v", gate.count(), l.Waited())
		}
		calls := []*call{r.call(q), r.call(q), r.call(q)}
		for i, c := range calls {
			r.waits(c)
			time.Sleep(time.Second)
			if !c.answered() || gate.count() != 3+i {
				t.Fatalf("call %d is answered: %v; %d events", i, c.answered(), gate.count())
			}
			if waited := c.lease.Waited(); waited != time.Duration(i+1)*time.Second {
				t.Errorf("call %d waited %v", i, waited)
			}
			if i > 0 { // the others share, or have the room
				c.lease.Release()
			}
		}
		end(l, calls[0].lease)
	})
}

// A session that comes free while the gate is closed lies idle, and goes to the first in line when it opens.
func TestLendingHoldsTheHandOver(t *testing.T) {
	story(t, func(r *rig) {
		q := paced(1, every(time.Second, 1), nil, "a")
		l, s := r.open(q)
		c := r.call(q)
		l.Release()
		r.waits(c)
		want := []GroupStats{{Group: "g", Limit: 1, Idle: 1, Waiting: 1, Held: true, Opened: 1}}
		if got := r.Stats(); !slices.Equal(got, want) {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		time.Sleep(time.Second)
		r.has(c, s)
		end(c.lease)
	})
}

func TestLendingThatTakesTooLongIsRefusedAtArrival(t *testing.T) {
	story(t, func(r *rig) {
		q := paced(9, every(4*time.Second, 1), nil, "a")
		l, _ := r.open(q)
		first, second := r.call(q), r.call(q) // after 4 and 8 seconds
		r.waits(first)
		r.waits(second)
		r.delayed(r.call(q), Delayed{RetryAfter: 12 * time.Second})
		first.cancel(nil)
		synctest.Wait()
		third := r.call(q)
		r.waits(third)
		end(l)
		time.Sleep(8 * time.Second)
		for _, c := range []*call{second, third} {
			if !c.answered() {
				t.Fatal("a call still waits")
			}
			end(c.lease)
		}
		if got := r.Totals().Delayed; got != 1 {
			t.Errorf("%d calls delayed", got)
		}
	})
	story(t, func(r *rig) { // a group that is unknown stays so
		gate := every(time.Minute, 1)
		gate.Pass(time.Now())
		r.delayed(r.call(paced(9, gate, nil, "a")), Delayed{RetryAfter: time.Minute})
		empty(t, &r.Pool)
	})
}

func TestOpeningIsPassedByEachPermission(t *testing.T) {
	story(t, func(r *rig) {
		gate := every(time.Second, 2)
		q := paced(9, nil, gate, "a")
		l1, s1 := r.open(q)
		l2, _ := r.open(q)
		c := r.call(q)
		r.waits(c)
		time.Sleep(time.Second)
		r.has(c, nil)
		if gate.count() != 3 {
			t.Errorf("%d events", gate.count())
		}
		if waited := c.lease.Waited(); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		c.lease.Discard() // it has used its event up
		c = r.call(q)
		r.waits(c)
		l1.Release()
		r.has(c, s1) // which needs no opening
		if gate.count() != 3 {
			t.Errorf("%d events", gate.count())
		}
		end(c.lease, l2)
	})
}

// Where nothing may be opened now, a call shares rather than waits, and no idle session makes room.
func TestClosedOpening(t *testing.T) {
	story(t, func(r *rig) {
		q := paced(9, nil, every(time.Second, 2), "a")
		l, s := r.wide(q, 2)
		idle := r.idle(q, "b")
		c := r.call(q)
		r.has(c, s)
		full := r.call(q)
		r.waits(full)
		r.states(idle, "open")
		time.Sleep(time.Second)
		r.has(full, nil)
		full.lease.Discard()
		end(l, c.lease)
	})
	story(t, func(r *rig) {
		q := paced(1, nil, every(time.Second, 1), "a")
		idle := r.idle(q, "b")
		c := r.call(q)
		r.waits(c)
		r.states(idle, "open")
		time.Sleep(time.Second)
		r.states(idle, "retired")
		r.has(c, nil)
		c.lease.Discard()
	})
}

func TestOpeningThatTakesTooLong(t *testing.T) {
	minute := func() *pacer { return every(time.Minute, 1) }
	t.Run("at arrival", func(t *testing.T) {
		story(t, func(r *rig) {
			q := paced(9, nil, minute(), "a")
			l, _ := r.open(q)
			l.Discard()
			time.Sleep(20 * time.Second)
			r.delayed(r.call(q), Delayed{RetryAfter: 40 * time.Second, Opening: true})
			time.Sleep(30 * time.Second)
			c := r.call(q)
			r.waits(c)
			time.Sleep(10 * time.Second)
			r.has(c, nil)
			c.lease.Discard()
		})
	})
	t.Run("with a session that may come free", func(t *testing.T) {
		story(t, func(r *rig) {
			q := paced(9, nil, minute(), "a")
			l, s := r.open(q)
			c := r.call(q)
			r.waits(c)
			l.Release()
			r.has(c, s)
			end(c.lease)
		})
	})
	t.Run("with sessions of other keys", func(t *testing.T) {
		story(t, func(r *rig) {
			gate := minute()
			l, s := r.open(paced(9, nil, gate, "a"))
			r.delayed(r.call(paced(9, nil, gate, "b")), Delayed{RetryAfter: time.Minute, Opening: true})
			c := r.call(paced(9, nil, gate, "b", "a"))
			r.waits(c)
			l.Release()
			r.has(c, s)
			end(c.lease)
		})
	})
	ends := []struct {
		name string
		end  func(*rig, *Lease[*peer])
	}{
		{"Discard", func(_ *rig, l *Lease[*peer]) { l.Discard() }},
		{"Retire", func(_ *rig, l *Lease[*peer]) { l.Retire() }},
		{"Drain", func(r *rig, _ *Lease[*peer]) { r.Drain(nil) }},
	}
	for _, tt := range ends {
		t.Run("when the last session went with "+tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				q := paced(9, nil, minute(), "a")
				patient := q
				patient.Patience = time.Hour
				l, _ := r.open(q)
				first, second, third := r.call(q), r.call(patient), r.call(q)
				tt.end(r, l)
				want := Delayed{RetryAfter: time.Minute, Opening: true}
				r.delayed(first, want)
				r.delayed(third, want)
				r.waits(second)
				time.Sleep(time.Minute)
				r.has(second, nil)
				l.Release()
				second.lease.Discard()
			})
		})
		t.Run("when it was not opened after "+tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				q := paced(9, nil, minute(), "a")
				opening := r.acquire(q)
				c := r.call(q)
				r.waits(c)
				tt.end(r, opening)
				r.delayed(c, Delayed{RetryAfter: time.Minute, Opening: true})
				opening.Discard()
			})
		})
	}
	t.Run("when it was opened under another key", func(t *testing.T) {
		story(t, func(r *rig) {
			gate := minute()
			opening := r.acquire(paced(9, nil, gate, "b", "a"))
			c := r.call(paced(9, nil, gate, "a"))
			fits := r.call(paced(9, nil, gate, "b"))
			r.waits(c)
			opening.Opened("b", &peer{})
			r.delayed(c, Delayed{RetryAfter: time.Minute, Opening: true})
			r.waits(fits)
			opening.Discard()
			r.delayed(fits, Delayed{RetryAfter: time.Minute, Opening: true})
		})
	})
	t.Run("when it was found dead", func(t *testing.T) {
		story(t, func(r *rig) {
			lending := every(time.Second, 9)
			q := paced(9, lending, minute(), "a")
			r.idle(q, "a")[0].dead.Store(true)
			r.delayed(r.call(q), Delayed{RetryAfter: time.Minute, Opening: true})
			if lending.count() != 2 {
				t.Errorf("%d calls passed", lending.count())
			}
		})
	})
}

// The first in line is not overtaken by a call that needs no gate.
func TestGatesKeepTheOrder(t *testing.T) {
	story(t, func(r *rig) {
		opening := every(5*time.Second, 1)
		l, s := r.wide(paced(9, nil, opening, "a"), 2)
		first := r.call(paced(9, nil, opening, "b"))
		if first.answered() {
			t.Fatalf("lease %v, error %v", first.lease, first.err)
		}
		second := r.call(paced(9, nil, opening, "a"))
		r.waits(second)
		time.Sleep(5 * time.Second)
		r.has(first, nil)
		r.has(second, s)
		first.lease.Discard()
		end(l, second.lease)
	})
}

// The gates of the latest request count, also for those who wait.
func TestGatesOfTheLatestRequestCount(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(paced(1, every(9*time.Second, 1), nil, "a"))
		slow := every(9*time.Second, 1)
		slow.Pass(time.Now())
		c := r.call(paced(1, slow, nil, "a"))
		l.Release()
		r.waits(c)
		next := r.call(ask(1, "a")) // at any rate
		r.has(c, s)
		end(c.lease)
		r.has(next, s)
		end(next.lease)
	})
}

// A call that is served again, because its session was dead, passes once.
func TestDeadSessionCostsNoEvent(t *testing.T) {
	story(t, func(r *rig) {
		gate := every(time.Second, 3)
		q := paced(3, gate, nil, "a")
		peers := r.idle(q, "a", "a")
		peers[1].dead.Store(true)
		c := r.call(q)
		r.has(c, peers[0])
		if gate.count() != 3 {
			t.Errorf("%d events for 3 calls", gate.count())
		}
		end(c.lease)
	})
}

// A call that has passed the Lending gate, and waits again, takes no event from those behind it, and needs
// none for the room that is made for it.
func TestPassedCallsInLine(t *testing.T) {
	story(t, func(r *rig) {
		q := paced(9, every(4*time.Second, 1), nil, "a")
		q.Patience = 5 * time.Second
		first := r.postpone(r.acquire(q), time.Second)
		next := r.call(q)
		r.waits(next)
		time.Sleep(time.Second)
		r.has(first, nil)
		time.Sleep(3 * time.Second)
		r.has(next, nil)
		first.lease.Discard()
		next.lease.Discard()
	})
	story(t, func(r *rig) {
		lending := every(4*time.Second, 2)
		idle := r.idle(paced(2, lending, nil, "x"), "x")
		first := r.postpone(r.acquire(paced(2, lending, nil, "a")), time.Second)
		next := r.call(paced(1, lending, nil, "a"))
		r.waits(next)
		r.states(idle, "open")
		time.Sleep(time.Second)
		r.states(idle, "retired")
		r.has(first, nil)
		first.lease.Discard()
		time.Sleep(3 * time.Second)
		r.has(next, nil)
		next.lease.Discard()
	})
}

// A gate may close between the estimate and the event, for other pools pass it too.
func TestOpeningClosesAtTheLastMoment(t *testing.T) {
	story(t, func(r *rig) {
		lending, opening := every(time.Second, 9), every(time.Second, 9)
		opening.shut = true
		q := paced(9, lending, opening, "a")
		c := r.call(q)
		r.waits(c)
		time.Sleep(3 * time.Second)
		r.waits(c)
		opening.mu.Lock()
		opening.shut = false
		opening.mu.Unlock()
		time.Sleep(time.Second)
		r.has(c, nil)
		if lending.count() != 1 || opening.count() != 1 {
			t.Errorf("%d and %d events for one call", lending.count(), opening.count())
		}
		c.lease.Discard()
	})
}

func TestPostpone(t *testing.T) {
	t.Run("waits in its old place", func(t *testing.T) {
		story(t, func(r *rig) {
			lending := every(time.Second, 2)
			q := paced(1, lending, nil, "a")
			l := r.acquire(q)
			next := r.call(q)
			again := r.postpone(l, 3*time.Second)
			r.waits(again)
			time.Sleep(3*time.Second - time.Nanosecond)
			r.waits(again)
			time.Sleep(time.Nanosecond)
			r.has(again, nil)
			r.waits(next)
			if lending.count() != 1 {
				t.Errorf("%d events for one call", lending.count())
			}
			if waited := again.lease.Waited(); waited != 3*time.Second {
				t.Errorf("waited %v", waited)
			}
			again.lease.Discard()
			r.has(next, nil)
			next.lease.Discard()
		})
	})
	t.Run("takes what comes free", func(t *testing.T) {
		story(t, func(r *rig) {
			q := paced(2, nil, nil, "a")
			l1, s := r.open(q)
			again := r.postpone(r.acquire(q), time.Hour)
			r.waits(again) // though its patience is shorter: there is a session
			l1.Release()
			r.has(again, s)
			end(again.lease)
		})
	})
	t.Run("longer than its patience", func(t *testing.T) {
		story(t, func(r *rig) {
			q := paced(2, nil, nil, "a")
			r.delayed(r.postpone(r.acquire(q), time.Minute), Delayed{RetryAfter: time.Minute, Opening: true})
			time.Sleep(20 * time.Second)
			r.delayed(r.call(q), Delayed{RetryAfter: 40 * time.Second, Opening: true})
			time.Sleep(40 * time.Second)
			synctest.Wait()
			empty(t, &r.Pool)
			l := r.acquire(q)
			l.Discard()
			empty(t, &r.Pool)
		})
	})
	t.Run("given up", func(t *testing.T) {
		story(t, func(r *rig) {
			again := r.postpone(r.acquire(paced(1, nil, nil, "a")), time.Second)
			cause := errors.New("enough")
			again.cancel(cause)
			if !again.answered() || again.err != cause {
				t.Errorf("error %v", again.err)
			}
		})
	})
	t.Run("closed meanwhile", func(t *testing.T) {
		story(t, func(r *rig) {
			l := r.acquire(paced(1, nil, nil, "a"))
			c := r.closing()
			again := r.postpone(l, time.Second)
			if !again.answered() || again.err != ErrClosed {
				t.Errorf("error %v", again.err)
			}
			if !c.returned() || c.err != nil {
				t.Errorf("Close: %v", c.err)
			}
		})
	})
	t.Run("of what is no permission", func(t *testing.T) {
		story(t, func(r *rig) {
			l, s := r.open(ask(1, "a"))
			if again := r.postpone(l, time.Second); !again.answered() || again.err == nil || again.lease != nil {
				t.Errorf("lease %v, error %v", again.lease, again.err)
			}
			if got, ok := l.Session(); got != s || !ok {
				t.Error("the lease was ended")
			}
			l.Release()
			if again := r.postpone(l, time.Second); !again.answered() || again.err == nil || again.lease != nil {
				t.Errorf("lease %v, error %v", again.lease, again.err)
			}
		})
	})
}

// postpone is a Postpone that may wait.
func (r *rig) postpone(l *Lease[*peer], wait time.Duration) *call {
	return r.async(func(ctx context.Context) (*Lease[*peer], error) { return l.Postpone(ctx, wait) })
}

// A pool with a bar or a gate's timer that has been closed leaves nothing behind.
func TestCloseForgetsBars(t *testing.T) {
	story(t, func(r *rig) {
		q := paced(2, nil, nil, "a")
		r.delayed(r.postpone(r.acquire(q), time.Hour), Delayed{RetryAfter: time.Hour, Opening: true})
		r.mu.Lock()
		groups := len(r.groups)
		timer := r.groups["g"].gates.timer
		r.mu.Unlock()
		if groups != 1 {
			t.Fatalf("%d groups", groups)
		}
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if timer.Stop() {
			t.Error("the timer was still set")
		}
		empty(t, &r.Pool)
	})
}

// TestHugeRates: a rate that a 32-bit number does not hold lets events pass all the same.
func TestHugeRates(t *testing.T) {
	var rates Rates
	for _, rate := range []Rate{{Limit: 1 << 32, Per: time.Hour}, {Limit: 1, Per: time.Second, Burst: 1 << 32}, {Limit: math.MaxInt64, Per: time.Nanosecond}} {
		gate := rates.Gate(Named{Name: fmt.Sprint(rate), Rate: rate})
		for range 2 {
			if wait := gate.Pass(time.Now()); wait != 0 {
				t.Errorf("%+v holds an event up for %v", rate, wait)
			}
		}
	}
}
