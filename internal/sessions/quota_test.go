package sessions

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// in is a request of a group with a wide limit of its own, and limits that it shares.
func in(group string, shared ...Shared) Request {
	return Request{Group: group, Limit: 9, Shared: shared, Keys: []string{"k"}, IdleTimeout: time.Minute}
}

func TestSharedLimit(t *testing.T) {
	story(t, func(r *rig) {
		two := Shared{"s", 2}
		l1, _ := r.open(in("a", two))
		l2, _ := r.open(in("b", two))
		c := r.call(in("c", two))
		r.waits(c)
		free, _ := r.open(in("free"))
		l1.Discard()
		r.has(c, nil)
		c.lease.Discard()
		end(l2, free)
	})
}

func TestOwnLimitStillCounts(t *testing.T) {
	story(t, func(r *rig) {
		q := in("a", Shared{"s", 5})
		q.Limit = 1
		l, _ := r.open(q)
		c := r.call(q)
		r.waits(c)
		l.Discard()
		r.has(c, nil)
		c.lease.Discard()
	})
}

// Where only a shared limit keeps a call waiting, the least recently used idle session of any group under
// it makes room.
func TestIdleSessionOfAnotherGroupGivesWay(t *testing.T) {
	story(t, func(r *rig) {
		s := Shared{"s", 3}
		var peers []*peer
		for _, group := range []string{"a", "b", "c"} {
			l, one := r.open(in(group, s))
			peers = append(peers, one)
			l.Release()
		}
		outside := r.idle(in("outside"), "k")
		r.acquire(in("a", s)).Release() // now the most recently used
		l, _ := r.open(in("d", s))
		r.states(append(peers, outside...), "open", "retired", "open", "open")
		if why := peers[1].why.Load(); why != Crowded {
			t.Errorf("retired because %v", why)
		}
		l.Release()
	})
	story(t, func(r *rig) { // one that comes idle later
		s := Shared{"s", 1}
		l, one := r.open(in("a", s))
		c := r.call(in("b", s))
		r.waits(c)
		l.Release()
		r.has(c, nil)
		r.states([]*peer{one}, "retired")
		c.lease.Discard()
	})
	story(t, func(r *rig) { // a call that waits for the limit of its own group ends none of another
		s := Shared{"s", 2}
		idle := r.idle(in("a", s), "k")
		q := in("b", s)
		q.Limit = 1
		l, _ := r.open(q)
		c := r.call(q)
		r.waits(c)
		r.states(idle, "open")
		l.Discard()
		r.has(c, nil)
		c.lease.Discard()
	})
}

// As many idle sessions end as calls wait for them, one for each.
func TestRoomInASharedLimitIsMadeOncePerCall(t *testing.T) {
	story(t, func(r *rig) {
		s := Shared{"s", 4}
		peers := r.idle(in("a", s), "k", "k", "k", "k")
		unblock := make(chan struct{})
		for _, one := range peers {
			one.retire = func() { <-unblock }
		}
		calls := []*call{r.call(in("b", s)), r.call(in("c", s)), r.call(in("c", s))}
		r.states(peers, "retired", "retired", "retired", "open")
		close(unblock)
		for _, c := range calls {
			r.has(c, nil)
			c.lease.Discard()
		}
	})
}

func TestRoomInASharedLimitGoesToTheFirst(t *testing.T) {
	story(t, func(r *rig) {
		s, other := Shared{"s", 2}, Shared{"other", 1}
		l1, _ := r.open(in("a", s))
		l2, _ := r.open(in("b", s, other))
		narrow := in("a", s) // its own group is full: it cannot use the room of b
		narrow.Limit = 1
		first := r.call(narrow)
		second := r.call(in("c", s, other)) // waits for both
		third := r.call(in("d", s))
		fourth := r.call(in("c", s))
		r.waits(fourth)
		l2.Discard()
		r.has(second, nil)
		r.waits(first)
		r.waits(third)
		r.waits(fourth)
		l1.Discard()
		r.has(first, nil)
		r.waits(third)
		first.lease.Discard()
		r.has(third, nil)
		r.waits(fourth)
		second.lease.Discard()
		r.has(fourth, nil)
		end(third.lease, fourth.lease)
	})
}

// The room of a group's own session goes to an older call of another group.
func TestOwnRoomGoesToAnOlderCall(t *testing.T) {
	story(t, func(r *rig) {
		s := Shared{"s", 2}
		l1, _ := r.open(in("a", s))
		l2, _ := r.open(in("a", s))
		calls := []*call{r.call(in("a", s)), r.call(in("b", s)), r.call(in("a", s)), r.call(in("c", s))}
		l1.Discard()
		r.has(calls[0], nil)
		r.waits(calls[1])
		l2.Discard()
		r.has(calls[1], nil)
		r.waits(calls[2])
		calls[1].lease.Discard()
		r.has(calls[2], nil)
		r.waits(calls[3])
		calls[0].lease.Discard()
		r.has(calls[3], nil)
		end(calls[2].lease, calls[3].lease)
	})
}

// A call that is held up by a gate leaves the room to those who can use it.
func TestGateStopsTheLineOfItsGroupOnly(t *testing.T) {
	story(t, func(r *rig) {
		s := Shared{"s", 1}
		l, _ := r.open(in("a", s))
		gate := every(5*time.Second, 1)
		gate.Pass(time.Now())
		slow := in("b", s)
		slow.Opening, slow.Patience = gate, time.Hour
		first, second := r.call(slow), r.call(in("c", s))
		l.Discard()
		r.has(second, nil)
		time.Sleep(5 * time.Second)
		r.waits(first)
		second.lease.Discard()
		r.has(first, nil)
		first.lease.Discard()
	})
}

func TestSharedLimitOfTheLatestRequestCounts(t *testing.T) {
	t.Run("raised", func(t *testing.T) {
		story(t, func(r *rig) {
			l, _ := r.open(in("a", Shared{"s", 1}))
			first, second := r.call(in("b", Shared{"s", 1})), r.call(in("a", Shared{"s", 1}))
			third := r.call(in("c", Shared{"s", 2}))
			r.has(first, nil)
			r.waits(second)
			r.waits(third)
			l.Discard()
			r.has(second, nil)
			r.waits(third)
			first.lease.Discard()
			r.has(third, nil)
			end(second.lease, third.lease)
		})
	})
	t.Run("lowered", func(t *testing.T) {
		story(t, func(r *rig) {
			s := Shared{"s", 4}
			l1, s1 := r.wide(in("a", s), 9)
			l2, s2 := r.open(in("b", s))
			idle := append(r.idle(in("c", s), "k"), r.idle(in("a", s), "x")...)
			c := r.call(in("a", Shared{"s", 1})) // nobody shares either, until they are within it
			r.states(idle, "retired", "retired")
			r.waits(c)
			l2.Release()
			r.states([]*peer{s1, s2}, "open", "retired")
			r.has(c, s1)
			end(l1, c.lease)
		})
	})
	t.Run("left", func(t *testing.T) {
		story(t, func(r *rig) {
			l, _ := r.open(in("a", Shared{"s", 1}))
			c := r.call(in("b", Shared{"s", 1}))
			r.waits(c)
			l2, _ := r.open(in("a", Shared{"t", 2})) // takes its session along
			r.has(c, nil)
			full := r.call(in("c", Shared{"t", 2}))
			r.waits(full)
			c.lease.Discard()
			r.waits(full)
			l.Discard()
			r.has(full, nil)
			end(full.lease, l2)
		})
	})
	t.Run("joined with idle sessions", func(t *testing.T) {
		story(t, func(r *rig) {
			s := Shared{"s", 4}
			mine := r.idle(in("a"), "k", "k")
			theirs := r.idle(in("b", s), "k")
			r.acquire(in("a")).Release()
			r.acquire(in("a", s)).Release()
			l, _ := r.open(in("c", Shared{"s", 3})) // the oldest goes, though it joined last
			r.states(append(mine, theirs...), "retired", "open", "open")
			l.Release()
		})
	})
	t.Run("below one, and twice", func(t *testing.T) {
		story(t, func(r *rig) {
			q := in("a", Shared{"s", -1}, Shared{"s", 0})
			l := r.acquire(q)
			c := r.call(q)
			r.waits(c)
			l.Discard()
			r.has(c, nil)
			c.lease.Discard()
		})
	})
}

// A call that waits for two limits ends no session as long as that would not serve it.
func TestTwoSharedLimits(t *testing.T) {
	story(t, func(r *rig) {
		s, o := Shared{"s", 1}, Shared{"o", 1}
		idle := r.idle(in("a", s), "k")
		l, lent := r.open(in("b", o))
		c := r.call(in("c", s, o))
		r.waits(c)
		r.states(idle, "open")
		l.Release()
		r.has(c, nil)
		r.states(append(idle, lent), "retired", "retired")
		c.lease.Discard()
	})
}

// A session that makes room for another group is none to hope for any more.
func TestOustedSessionLeavesNoHope(t *testing.T) {
	story(t, func(r *rig) {
		s := Shared{"s", 2}
		gate := every(time.Hour, 2)
		q := in("a", s)
		q.Opening, q.Patience = gate, time.Second
		q.Keys = []string{"x"}
		kept, _ := r.open(q)
		q.Keys = []string{"k"}
		leave := make(chan struct{})
		idle := r.idle(q, "k")
		idle[0].retire = func() { <-leave }
		q.Keys = []string{"x"}
		first := r.call(q) // waits for what is lent
		q.Keys = []string{"k"}
		second := r.call(q) // does not overtake it
		r.waits(first)
		r.waits(second)
		other := r.call(in("b", s))
		r.delayed(second, Delayed{RetryAfter: time.Hour, Opening: true})
		r.waits(first)
		r.waits(other)
		close(leave)
		r.has(other, nil)
		kept.Discard()
		r.delayed(first, Delayed{RetryAfter: time.Hour, Opening: true})
		other.lease.Discard()
	})
}

func TestSharedLimitsTakeNoMemory(t *testing.T) {
	story(t, func(r *rig) {
		for i := range 3 {
			l, _ := r.open(in(fmt.Sprint("g", i), Shared{fmt.Sprint("s", i), 1}))
			l.Release()
		}
		r.mu.Lock()
		quotas := len(r.quotas)
		r.mu.Unlock()
		if quotas != 3 {
			t.Errorf("%d shared limits, want 3", quotas)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		empty(t, &r.Pool)
	})
}
