package sessions

import "testing"

// TestMore: one call may be there for several, as far as the session may serve as many.
func TestMore(t *testing.T) {
	story(t, func(r *rig) {
		request := ask(1, "a")
		request.MaxUses = 5
		l := r.acquire(request)
		if n := l.More(3); n != 0 {
			t.Errorf("%d more without a session", n)
		}
		s := &peer{name: "a"}
		l.Opened("a", s)
		if n := l.More(-1); n != 0 {
			t.Errorf("%d of -1 more", n)
		}
		if n := l.More(2); n != 2 {
			t.Errorf("%d of 2 more", n)
		}
		l.Release()
		l = r.acquire(request)
		if n := l.More(7); n != 1 {
			t.Errorf("%d more, after 4 of 5", n)
		}
		l.Release()
		if n := l.More(1); n != 0 {
			t.Errorf("%d more after the end", n)
		}
		r.acquire(request).Release()
		if s.state() != "retired" {
			t.Errorf("after 5 of 5 it is %s", s.state())
		}

		l = r.acquire(ask(1, "b"))
		l.Opened("b", &peer{name: "b"})
		if n := l.More(1000); n != 1000 {
			t.Errorf("%d of 1000 more, without a bound", n)
		}
		l.Release()
	})
}
