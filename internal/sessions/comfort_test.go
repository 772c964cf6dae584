package sessions

import "testing"

func TestComfort(t *testing.T) {
	tests := []struct {
		name              string
		comfort, capacity int32
		calls             int // on the session when the next one comes
		limit             int
		want              string // "shared", "new"
	}{
		{"none", 0, 9, 1, 2, "new"},
		{"one", 1, 9, 1, 2, "new"},
		{"for two", 2, 9, 1, 2, "shared"},
		{"for two, both there", 2, 9, 2, 2, "new"},
		{"for two, both there, at the limit", 2, 9, 2, 1, "shared"},
		{"above capacity", 9, 2, 1, 2, "shared"},
		{"above capacity, which is reached", 9, 2, 2, 2, "new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				l, s := r.wide(ask(1, "a"), tt.capacity)
				leases := []*Lease[*peer]{l}
				for len(leases) < tt.calls {
					leases = append(leases, r.shares(ask(1, "a"), s))
				}
				s.comfort.Store(tt.comfort)
				c := r.call(ask(tt.limit, "a"))
				if tt.want == "shared" {
					r.has(c, s)
				} else {
					r.has(c, nil)
				}
				end(append(leases, c.lease)...)
			})
		})
	}
}

// An idle session comes first, and a comfortable one of a worse key before a new one.
func TestComfortAndKeys(t *testing.T) {
	story(t, func(r *rig) {
		l, s := r.wide(ask(9, "a"), 9)
		idle := r.idle(ask(9), "b")
		s.comfort.Store(9)
		first := r.shares(ask(9, "a", "b"), idle[0])
		second := r.shares(ask(9, "c", "a"), s)
		third := r.call(ask(9, "c"))
		r.has(third, nil)
		end(l, first, second, third.lease)
	})
}

// Comfortable sessions take calls in turn, and of one that has none the next is asked.
func TestComfortIsSpread(t *testing.T) {
	story(t, func(r *rig) {
		l1, s1 := r.wide(ask(9, "a"), 9)
		l2, s2 := r.wide(ask(9, "a"), 9)
		s1.comfort.Store(9)
		s2.comfort.Store(9)
		leases := []*Lease[*peer]{l1, l2}
		for range 3 {
			leases = append(leases, r.shares(ask(9, "a"), s1), r.shares(ask(9, "a"), s2))
		}
		s1.comfort.Store(1)
		leases = append(leases, r.shares(ask(9, "a"), s2), r.shares(ask(9, "a"), s2))
		end(leases...)
	})
}

// A call that may open nothing, because of a gate, goes to a session that is in use beyond its comfort.
func TestBeyondComfort(t *testing.T) {
	story(t, func(r *rig) {
		gate := every(5e9, 1)
		q := paced(9, nil, gate, "a")
		l, s := r.wide(q, 3)
		s.comfort.Store(2)
		second, third := r.shares(q, s), r.shares(q, s)
		end(l, second, third)
		if gate.count() != 1 {
			t.Errorf("%d events", gate.count())
		}
	})
}

// Calls wait for what is being opened, as far as it is expected to be enough for all of them.
func TestExpectedComfort(t *testing.T) {
	story(t, func(r *rig) {
		q := ask(9, "a")
		q.Expect = func() int { return 3 }
		first := r.acquire(q)
		var waiting []*call
		for range 2 {
			waiting = append(waiting, r.call(q))
		}
		for i, c := range waiting {
			if c.answered() {
				t.Errorf("call %d does not wait for the session that is being opened for it too", i)
			}
		}
		// One more is too many for that session: the first in line opens another, and that is enough for all.
		another := r.call(q)
		r.has(waiting[0], nil)
		if waiting[1].answered() || another.answered() {
			t.Error("two sessions for three calls each are being opened, and more are wanted for four")
		}
		s := &peer{name: "a"}
		s.capacity.Store(9)
		s.comfort.Store(9)
		first.Opened("a", s)
		r.has(waiting[1], s)
		r.has(another, s)
		end(first, waiting[0].lease, waiting[1].lease, another.lease)
	})
}

// What could not be opened is nobody's hope, and nobody who waited for it waits for another one.
func TestExpectedComfortThatDoesNotCome(t *testing.T) {
	story(t, func(r *rig) {
		q := ask(9, "a")
		q.Expect = func() int { return 9 }
		first := r.acquire(q)
		second, third := r.call(q), r.call(q)
		first.Discard()
		r.has(second, nil)
		r.has(third, nil)
		fourth := r.call(q)
		r.waits(fourth)
		end(second.lease, third.lease)
		r.has(fourth, nil)
		end(fourth.lease)
	})
}
