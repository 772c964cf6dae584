package sessions

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errShutdown = errors.New("shutdown")

// closing is a Close under way.
type closing struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error
}

func (r *rig) closing() *closing {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &closing{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = r.Close(ctx)
	}()
	synctest.Wait()
	return c
}

func (c *closing) returned() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func TestCloseLetsCallsEnd(t *testing.T) {
	story(t, func(r *rig) {
		idle := r.idle(ask(4), "x", "y")
		l, lent := r.open(ask(4, "a"))
		opening := r.acquire(ask(4, "b"))
		full := r.acquire(Request{Group: "other"})
		waiter := r.call(Request{Group: "other"})

		c := r.closing()
		r.states(append(idle, lent), "retired", "retired", "open")
		if !waiter.answered() || !errors.Is(waiter.err, ErrClosed) || waiter.lease != nil {
			t.Errorf("waiting call: lease %v, error %v", waiter.lease, waiter.err)
		}
		if l, err := r.Acquire(context.Background(), ask(4, "x")); !errors.Is(err, ErrClosed) || l != nil {
			t.Errorf("Acquire: lease %v, error %v", l, err)
		}
		l.Release()
		r.states([]*peer{lent}, "retired")
		late := &peer{}
		opening.Opened("b", late)
		r.states([]*peer{late}, "open") // it may still serve its call
		opening.Release()
		r.states([]*peer{late}, "retired")
		if c.returned() {
			t.Fatal("Close did not wait for the last lease")
		}
		full.Discard()
		if !c.returned() || c.err != nil {
			t.Errorf("Close returned %v, %v", c.returned(), c.err)
		}
	})
}

func TestCloseWaitsForRetire(t *testing.T) {
	story(t, func(r *rig) {
		quit := make(chan struct{})
		for i, s := range r.idle(ask(2), "a", "b") {
			s.retire = func() { <-quit; time.Sleep(time.Duration(i) * time.Second) }
		}
		c, again := r.closing(), r.closing()
		if c.returned() || again.returned() {
			t.Fatal("Close did not wait for Retire")
		}
		if got := r.Totals().Ending; got != 2 {
			t.Errorf("%d sessions are ending, want 2", got)
		}
		close(quit)
		time.Sleep(time.Second)
		if !c.returned() || !again.returned() || c.err != nil || again.err != nil {
			t.Errorf("Close: %v, the other: %v", c.err, again.err)
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for range 20 { // not by chance
			if err := r.Close(ended); err != nil {
				t.Fatalf("Close of a closed pool: %v", err)
			}
		}
	})
}

func TestCloseOfAnUnusedPool(t *testing.T) {
	story(t, func(r *rig) {})
}

func TestCloseEndsManyAtOnce(t *testing.T) {
	story(t, func(r *rig) {
		const sessions = 4 * maxEnding
		var now, most atomic.Int32
		keys := make([]string, sessions)
		for i := range keys {
			keys[i] = "a"
		}
		for _, s := range r.idle(ask(sessions), keys...) {
			s.retire = func() {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(time.Second)
				now.Add(-1)
			}
		}
		start := time.Now()
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 4*time.Second || most.Load() != maxEnding {
			t.Errorf("took %v with %d at once, want 4s with %d", took, most.Load(), maxEnding)
		}
	})
}

func TestCloseCuts(t *testing.T) {
	story(t, func(r *rig) {
		hung := r.idle(ask(4), "a")[0]
		unblock := make(chan struct{})
		hung.retire = func() { <-unblock }
		l, lent := r.open(ask(4, "b"))
		opening := r.acquire(ask(4, "c"))

		c := r.closing()
		r.states([]*peer{hung, lent}, "retired", "open")
		c.cancel(errShutdown)
		r.states([]*peer{hung, lent}, "retired, killed", "killed")
		late := &peer{}
		opening.Opened("c", late)
		r.states([]*peer{late}, "killed")
		again := r.closing()
		again.cancel(errShutdown)
		if c.returned() || again.returned() {
			t.Fatal("Close did not wait for the leases")
		}
		l.Discard()
		opening.Release()
		close(unblock)
		if !c.returned() || !again.returned() {
			t.Fatal("Close did not return when nothing was left")
		}
		if !errors.Is(c.err, errShutdown) || !errors.Is(again.err, errShutdown) {
			t.Errorf("Close: %v, the other: %v", c.err, again.err)
		}
		r.states([]*peer{hung, lent, late}, "retired, killed", "killed", "killed")
		if got, want := r.Totals(), (Totals{Opened: 3, Retired: 1, Killed: 2}); got != want {
			t.Errorf("totals %+v, want %+v", got, want)
		}
	})
}

func TestCloseCutsWhatHasNotBegunToRetire(t *testing.T) {
	story(t, func(r *rig) {
		keys := make([]string, maxEnding+1)
		for i := range keys {
			keys[i] = "a"
		}
		unblock := make(chan struct{})
		peers := r.idle(ask(len(keys)), keys...)
		for _, s := range peers {
			s.retire = func() { <-unblock }
		}
		c := r.closing()
		c.cancel(errShutdown)
		synctest.Wait()
		close(unblock)
		if !c.returned() {
			t.Fatal("Close did not return")
		}
		states := make(map[string]int)
		for _, s := range peers {
			states[s.state()]++
		}
		if states["retired, killed"] != maxEnding || states["killed"] != 1 {
			t.Errorf("sessions are %v", states)
		}
	})
}

func TestCloseDoesNotHang(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.open(ask(1, "a"))
		start := time.Now()
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, errShutdown)
		defer cancel()
		err := r.Close(ctx)
		if took := time.Since(start); took != time.Second+cutGrace {
			t.Errorf("Close took %v", took)
		}
		if !errors.Is(err, errShutdown) || !strings.Contains(err.Error(), "1 session") {
			t.Errorf("Close: %v", err)
		}
		l.Release()
		r.states([]*peer{s}, "killed")
	})
}

func graceful(limit int, grace time.Duration, keys ...string) Request {
	q := ask(limit, keys...)
	q.Grace = grace
	return q
}

// What is lent for longer than its Grace is killed, though Close would wait.
func TestGrace(t *testing.T) {
	story(t, func(r *rig) {
		short, _ := r.open(graceful(9, time.Second, "a"))
		long, _ := r.open(graceful(9, 3*time.Second, "b"))
		none, _ := r.open(graceful(9, 0, "c"))
		done, _ := r.open(graceful(9, time.Second, "d"))
		early := r.acquire(graceful(9, 2*time.Second, "e"))
		late := r.acquire(graceful(9, 2*time.Second, "f"))
		var peers []*peer
		for _, l := range []*Lease[*peer]{short, long, none, done} {
			s, _ := l.Session()
			peers = append(peers, s)
		}
		slow := r.idle(graceful(9, time.Second), "g")[0]
		slow.retire = func() { time.Sleep(time.Minute) } // it is not lent: what bounds it is its own
		c := r.closing()
		done.Release()
		opened := &peer{}
		early.Opened("e", opened)
		peers = append(peers, opened, slow)
		time.Sleep(time.Second - time.Nanosecond)
		r.states(peers, "open", "open", "open", "retired", "open", "retired")
		time.Sleep(time.Nanosecond)
		r.states(peers, "killed", "open", "open", "retired", "open", "retired")
		time.Sleep(time.Second)
		r.states(peers, "killed", "open", "open", "retired", "killed", "retired")
		tooLate := &peer{}
		late.Opened("f", tooLate)
		r.states([]*peer{tooLate}, "killed")
		time.Sleep(time.Second)
		r.states(peers, "killed", "killed", "open", "retired", "killed", "retired")
		end(short, long, early, late)
		time.Sleep(time.Hour)
		r.states(peers, "killed", "killed", "open", "retired", "killed", "retired")
		none.Release()
		if !c.returned() || c.err != nil {
			t.Errorf("Close: %v", c.err)
		}
	})
}

// Of those who share a session, the one that came last says how long it may go on. When all has ended no
// timer is left.
func TestGraceOfTheLatestLeaseCounts(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(graceful(1, time.Second, "a"), 9)
		second := r.shares(graceful(1, time.Minute, "a"), s)
		second.Release()
		c := r.closing()
		time.Sleep(time.Minute - time.Nanosecond)
		r.states([]*peer{s}, "open")
		time.Sleep(time.Nanosecond)
		r.states([]*peer{s}, "killed")
		l.Discard()
		if !c.returned() || c.err != nil {
			t.Errorf("Close: %v", c.err)
		}
	})
	story(t, func(r *rig) {
		l, _ := r.open(graceful(1, time.Hour, "a"))
		c := r.closing()
		l.Release()
		if !c.returned() || c.err != nil {
			t.Errorf("Close: %v", c.err)
		}
		for _, timer := range r.graces {
			if timer.Stop() {
				t.Error("the timer was still set")
			}
		}
		if len(r.graces) != 1 {
			t.Errorf("%d timers", len(r.graces))
		}
	})
}

// TestManyCallers lets callers collide in earnest; it is for the race detector.
func TestManyCallers(t *testing.T) {
	const limit, capacity, callers, rounds = 3, 3, 32, 300
	var p Pool[*peer]
	var inUse atomic.Int32
	var all sync.Map
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			keys := [][]string{{"a", "b"}, {"b"}, {"c", "a"}}[n%3]
			for i := range rounds {
				ctx, cancel := context.WithCancel(context.Background())
				if (n+i)%4 == 0 {
					go cancel()
				}
				l, err := p.Acquire(ctx, Request{Group: "g", Limit: limit, Keys: keys, IdleTimeout: time.Minute, MaxUses: 7})
				if err == nil {
					if used := inUse.Add(1); used > limit*capacity {
						t.Errorf("%d leases at once on %d sessions", used, limit)
					}
					if _, ok := l.Session(); !ok && i%9 != 0 {
						s := &peer{}
						s.capacity.Store(int32(1 + i%capacity))
						all.Store(s, true)
						l.Opened(keys[0], s)
					}
					if s, ok := l.Session(); ok && i%11 == 0 {
						s.dead.Store(true)
					}
					inUse.Add(-1)
					switch {
					case i%13 == 0:
						l.Discard()
					case i%17 == 0:
						l.Retire()
					default:
						l.Release()
					}
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
				if i%100 == n {
					p.Drain(nil)
				}
			}
		})
	}
	wg.Wait()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	empty(t, &p)
	for s := range all.Range {
		if state := s.(*peer).state(); state != "retired" && state != "killed" {
			t.Fatalf("a session is %s after Close", state)
		}
	}
}
