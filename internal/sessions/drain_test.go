package sessions

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestDrainOfAKey(t *testing.T) {
	story(t, func(r *rig) {
		l, lent := r.open(ask(9, "a"))
		peers := r.idle(ask(9), "x", "b")
		opening := r.acquire(ask(9, "c"))
		var asked []string
		r.Drain(func(group, key string) bool {
			r.Stats() // the lock is not held
			asked = append(asked, group+" "+key)
			return key == "b"
		})
		slices.Sort(asked)
		if !slices.Equal(asked, []string{"g ", "g a", "g b", "g x"}) {
			t.Errorf("asked for %q", asked)
		}
		late := &peer{}
		opening.Opened("b", late) // it is of the new configuration, for all that is known
		end(l, opening)
		r.states(append(peers, lent, late), "open", "retired", "open", "open")
	})
}

// A session that is opened while match runs is judged by what was known of it.
func TestOpenedWhileDraining(t *testing.T) {
	for _, drained := range []bool{true, false} {
		story(t, func(r *rig) {
			opening := r.acquire(ask(9, "a"))
			s := &peer{}
			r.Drain(func(_, key string) bool {
				if key == "" {
					opening.Opened("a", s)
				}
				return drained
			})
			opening.Release()
			r.states([]*peer{s}, map[bool]string{true: "retired", false: "open"}[drained])
		})
	}
}

func TestRefuse(t *testing.T) {
	story(t, func(r *rig) {
		why := errors.New("suspended")
		r.Refuse("unknown", why)
		l, s := r.open(ask(1, "a"))
		calls := []*call{r.call(ask(1, "a")), r.call(ask(1, "b"))}
		other := in("other")
		other.Limit = 1
		held := r.acquire(other)
		waiting := r.call(other)
		r.Refuse("g", nil)
		r.waits(calls[0])
		r.Refuse("g", why)
		for _, c := range calls {
			if !c.answered() || c.err != why || c.lease != nil {
				t.Errorf("lease %v, error %v", c.lease, c.err)
			}
		}
		r.waits(waiting)
		later := r.call(ask(1, "a"))
		l.Release()
		r.has(later, s)
		held.Discard()
		end(later.lease)
		r.has(waiting, nil)
		waiting.lease.Discard()
	})
}

func TestReasons(t *testing.T) {
	narrow := ask(1, "a")
	narrow.MaxUses = 1
	brief := ask(1, "a")
	brief.IdleTimeout = 0
	tests := []struct {
		name string
		end  func(*rig, *Lease[*peer])
		want Reason
	}{
		{"idle for its time", func(_ *rig, l *Lease[*peer]) { l.Release(); time.Sleep(time.Minute) }, Idle},
		{"not to be idle", func(r *rig, l *Lease[*peer]) { l.Release(); r.acquire(brief).Release() }, Idle},
		{"worn", func(r *rig, l *Lease[*peer]) {
			c := r.call(narrow)
			c.cancel(nil)
			l.Release()
			r.acquire(narrow).Discard()
		}, Worn},
		{"Retire", func(_ *rig, l *Lease[*peer]) { l.Retire() }, Drained},
		{"Drain", func(r *rig, l *Lease[*peer]) { r.Drain(nil); l.Release() }, Drained},
		{"Drain when idle", func(r *rig, l *Lease[*peer]) { l.Release(); r.Drain(nil) }, Drained},
		{"made room", func(r *rig, l *Lease[*peer]) { l.Release(); r.acquire(ask(1, "b")).Discard() }, Crowded},
		{"above the limit", func(r *rig, l *Lease[*peer]) {
			l2, _ := r.open(ask(2, "a"))
			c := r.call(ask(1, "b"))
			l.Release()
			l2.Discard()
			r.has(c, nil)
			c.lease.Discard()
		}, Crowded},
		{"Close", func(r *rig, l *Lease[*peer]) { r.closing(); l.Release() }, Closing},
		{"Close when idle", func(r *rig, l *Lease[*peer]) { l.Release(); r.closing() }, Closing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			story(t, func(r *rig) {
				l, s := r.open(ask(1, "a"))
				tt.end(r, l)
				r.states([]*peer{s}, "retired")
				if why := s.why.Load(); why != tt.want {
					t.Errorf("retired because %q, want %q", why, tt.want)
				}
			})
		})
	}
}
