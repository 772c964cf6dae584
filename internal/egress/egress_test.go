package egress

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnAnswerIsAskedForOnceUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Cache[string, any]
		var mu sync.Mutex
		asked := 0
		get := func() any {
			v, err := c.Get(t.Context(), "key", func() (any, time.Time, error) {
				mu.Lock()
				asked++
				n := asked
				mu.Unlock()
				time.Sleep(time.Second)
				return n, time.Now().Add(time.Minute), nil
			})
			if err != nil {
				t.Error(err)
			}
			return v
		}
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				if v := get(); v != 1 {
					t.Errorf("got answer %v", v)
				}
			})
		}
		callers.Wait()
		time.Sleep(time.Minute - time.Nanosecond)
		if v := get(); v != 1 {
			t.Errorf("before it expires: answer %v", v)
		}
		time.Sleep(time.Nanosecond)
		if v := get(); v != 2 {
			t.Errorf("when it has expired: answer %v", v)
		}
		c.Forget()
		if v := get(); v != 3 {
			t.Errorf("when it was forgotten: answer %v", v)
		}
	})
}

func TestWhatIsHeldKnowsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Cache[string, int]
		hold := func() (held Held[int]) {
			v, err := c.Get(t.Context(), "key", func() (int, time.Time, error) { return 7, time.Now().Add(time.Minute), nil })
			held, ok := c.Hold("key")
			if !ok || err != nil || held.Value != v || !held.Fresh() {
				t.Fatal(held.Value, ok, err)
			}
			return held
		}
		if _, ok := c.Hold("key"); ok || new(Held[int]).Fresh() {
			t.Error("nothing is held")
		}
		old := hold()
		time.Sleep(time.Minute)
		if _, ok := c.Hold("key"); ok || old.Fresh() {
			t.Error("held beyond its time")
		}
		forgotten := hold()
		c.Forget()
		if forgotten.Fresh() {
			t.Error("held though all was forgotten")
		}
		if hold(); old.Fresh() || forgotten.Fresh() {
			t.Error("a new answer makes an old one fresh")
		}
	})
}

func TestFailuresAreNotKept(t *testing.T) {
	var c Cache[string, any]
	failure := errors.New("failure")
	if _, err := c.Get(t.Context(), "key", func() (any, time.Time, error) { return nil, time.Time{}, failure }); err != failure {
		t.Error(err)
	}
	v, err := c.Get(t.Context(), "key", func() (any, time.Time, error) { return "fine", time.Time{}, nil })
	if v != "fine" || err != nil {
		t.Error(v, err)
	}
}

func TestOneCallersEndIsNotAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Cache[string, any]
		first, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() {
			c.Get(first, "key", func() (any, time.Time, error) {
				<-first.Done()
				return nil, time.Time{}, errors.New("whatever the policy makes of it")
			})
		})
		synctest.Wait()
		callers.Go(func() {
			v, err := c.Get(t.Context(), "key", func() (any, time.Time, error) { return "mine", time.Time{}, nil })
			if v != "mine" || err != nil {
				t.Error(v, err)
			}
		})
		impatient, leave := context.WithCancelCause(t.Context())
		why := errors.New("no patience")
		callers.Go(func() {
			if _, err := c.Get(impatient, "key", nil); err != why {
				t.Error(err)
			}
		})
		synctest.Wait()
		leave(why)
		synctest.Wait()
		cancel()
		callers.Wait()
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	var c Cache[string, any]
	for i := range maxEntries + 10 {
		c.Get(t.Context(), fmt.Sprint(i), func() (any, time.Time, error) { return i, time.Time{}, nil })
	}
	if len(c.entries) > maxEntries {
		t.Errorf("%d entries", len(c.entries))
	}
}

func TestTurnsFollowTheWeights(t *testing.T) {
	var turns Turns
	take := func(n int, choices ...Choice) (names []string) {
		for range n {
			name, ok := turns.Next(choices)
			if !ok {
				name = "-"
			}
			names = append(names, name)
		}
		return names
	}
	if got, want := take(8, Choice{"a", 3}, Choice{"b", 1}, Choice{"never", 0}), []string{"a", "a", "b", "a", "a", "a", "b", "a"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := take(4, Choice{"x", 1}, Choice{"y", 1}), []string{"x", "y", "x", "y"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := take(2, Choice{"never", 0}), []string{"-", "-"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAFailureOfItsOwnIsForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Cache[string, any]
		start := time.Now()
		var callers sync.WaitGroup
		for range 30 {
			callers.Go(func() {
				_, err := c.Get(t.Context(), "key", func() (any, time.Time, error) {
					time.Sleep(time.Second)
					return nil, time.Time{}, context.DeadlineExceeded // of a client that it used
				})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("they waited %v, one after the other", waited)
		}
	})
}
