package gather

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rig runs batches that take as long as work, behind a door that lets one in at a time.
type rig struct {
	*testing.T
	g     Gatherer[string, int]
	rules Rules
	work  time.Duration
	most  int // in one batch; 0: all

	door    chan struct{}
	mu      sync.Mutex
	batches [][]int
	begun   []time.Duration
	start   time.Time
}

func newRig(t *testing.T, rules Rules) *rig {
	r := &rig{T: t, rules: rules, door: make(chan struct{}, 1), start: time.Now()}
	r.g.Run = func(ctx context.Context, _ int, b *Batch[string, int]) {
		select {
		case r.door <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-r.door }()
		items := b.Begin(func(n int) int {
			if r.most > 0 {
				return min(n, r.most)
			}
			return n
		})
		r.mu.Lock()
		r.batches = append(r.batches, items)
		r.begun = append(r.begun, time.Since(r.start))
		r.mu.Unlock()
		time.Sleep(r.work)
	}
	return r
}

// do starts a call and returns when it stands where it belongs; the channel has its result.
func (r *rig) do(ctx context.Context, item int) <-chan error {
	result := make(chan error, 1)
	go func() { result <- r.g.Do(ctx, "key", item, r.rules) }()
	synctest.Wait()
	return result
}

func (r *rig) want(batches string, begun ...time.Duration) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := fmt.Sprint(r.batches); got != batches {
		r.Errorf("batches %s, want %s", got, batches)
	}
	for i, at := range begun {
		if i < len(r.begun) && r.begun[i] != at {
			r.Errorf("batch %d began after %v, want %v", i, r.begun[i], at)
		}
	}
}

func story(t *testing.T, rules Rules, tell func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules)
		tell(r)
		synctest.Wait()
		if len(r.g.open) != 0 {
			t.Errorf("%d batches are left", len(r.g.open))
		}
	})
}

func TestABatchGoesAtOnce(t *testing.T) {
	story(t, Rules{Size: 3, Min: 1, Latency: time.Second}, func(r *rig) {
		r.do(r.Context(), 1)
		r.want("[[1]]", 0)
	})
}

func TestWhatComesWhileOneIsUnderWayGoesTogether(t *testing.T) {
	story(t, Rules{Size: 3, Min: 1}, func(r *rig) {
		r.work = time.Second
		for i := range 6 {
			r.do(r.Context(), i)
		}
		time.Sleep(time.Hour)
		r.want("[[0] [1 2 3] [4 5]]", 0, time.Second, 2*time.Second)
	})
}

func TestMin(t *testing.T) {
	story(t, Rules{Size: 5, Min: 2, Latency: time.Minute}, func(r *rig) {
		r.do(r.Context(), 1)
		time.Sleep(time.Second)
		r.do(r.Context(), 2)
		r.want("[[1 2]]", time.Second)
	})
}

func TestLatency(t *testing.T) {
	story(t, Rules{Size: 5, Min: 4, Latency: time.Minute}, func(r *rig) {
		r.do(r.Context(), 1)
		time.Sleep(59 * time.Second)
		r.do(r.Context(), 2)
		r.want("[]")
		time.Sleep(time.Hour)
		r.want("[[1 2]]", time.Minute)
		r.do(r.Context(), 3)
		time.Sleep(time.Hour)
		r.want("[[1 2] [3]]")
	})
}

func TestTheLeaderLeaves(t *testing.T) {
	story(t, Rules{Size: 5, Min: 3, Latency: time.Minute}, func(r *rig) {
		ctx, cancel := context.WithCancelCause(r.Context())
		left := errors.New("left")
		leader := r.do(ctx, 1)
		time.Sleep(10 * time.Second)
		second := r.do(r.Context(), 2)
		cancel(left)
		if err := <-leader; err != left {
			t.Errorf("the leader: %v", err)
		}
		time.Sleep(49 * time.Second)
		r.want("[]")
		time.Sleep(2 * time.Second) // a minute after the first had come
		if err := <-second; err != nil {
			t.Errorf("the other: %v", err)
		}
		r.want("[[2]]", time.Minute)
	})
}

func TestTheLeaderLeavesAtTheDoor(t *testing.T) {
	story(t, Rules{Size: 5, Min: 1}, func(r *rig) {
		r.work = time.Minute
		r.do(r.Context(), 0)
		ctx, cancel := context.WithCancel(r.Context())
		leader, second, third := r.do(ctx, 1), r.do(r.Context(), 2), r.do(r.Context(), 3)
		cancel()
		if err := <-leader; err != nil { // Run saw to it
			t.Errorf("the leader: %v", err)
		}
		<-second
		<-third
		r.want("[[0] [2 3]]", 0, time.Minute)
	})
}

func TestOneWhoWaitsLeaves(t *testing.T) {
	story(t, Rules{Size: 3, Min: 3, Latency: time.Minute}, func(r *rig) {
		r.do(r.Context(), 1)
		ctx, cancel := context.WithCancel(r.Context())
		second := r.do(ctx, 2)
		cancel()
		if err := <-second; err != context.Canceled {
			t.Error(err)
		}
		r.do(r.Context(), 3)
		r.want("[]")
		r.do(r.Context(), 4)
		r.want("[[1 3 4]]", 0)
	})
}

func TestWhatHasBegunIsWaitedFor(t *testing.T) {
	story(t, Rules{Size: 2, Min: 2, Latency: time.Minute}, func(r *rig) {
		r.work = time.Minute
		r.do(r.Context(), 1)
		ctx, cancel := context.WithCancel(r.Context())
		second := r.do(ctx, 2)
		cancel()
		if err := <-second; err != nil || time.Since(r.start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(r.start))
		}
		r.want("[[1 2]]")
	})
}

func TestAllLeave(t *testing.T) {
	story(t, Rules{Size: 5, Min: 5, Latency: time.Minute}, func(r *rig) {
		ctx, cancel := context.WithCancel(r.Context())
		var calls []<-chan error
		for i := range 3 {
			calls = append(calls, r.do(ctx, i))
		}
		cancel()
		for _, c := range calls {
			if err := <-c; err != context.Canceled {
				t.Error(err)
			}
		}
		r.want("[]")
	})
}

func TestTheRestGoesOnItsOwn(t *testing.T) {
	story(t, Rules{Size: 5, Min: 5, Latency: time.Minute}, func(r *rig) {
		r.most = 2
		for i := range 5 {
			r.do(r.Context(), i)
		}
		r.want("[[0 1] [2 3] [4]]", 0, 0, 0)
	})
}

func TestClosingAndHurry(t *testing.T) {
	for _, how := range []string{"closing", "hurry"} {
		story(t, Rules{Size: 5, Min: 5, Latency: time.Minute}, func(r *rig) {
			closing := make(chan struct{})
			r.g.Closing = closing
			r.do(r.Context(), 1)
			r.do(r.Context(), 2)
			if how == "closing" {
				close(closing)
			} else {
				r.g.Hurry()
			}
			synctest.Wait()
			r.want("[[1 2]]", 0)
			r.do(r.Context(), 3)
			r.want("[[1 2] [3]]", 0, 0)
		})
	}
}

// TestAPanicOfRun: those who were led into it come back all the same.
func TestAPanicOfRun(t *testing.T) {
	for _, begins := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			first := true
			g := Gatherer[string, int]{Run: func(_ context.Context, _ int, b *Batch[string, int]) {
				if begins || !first {
					b.Begin(func(n int) int { return n })
				}
				if first {
					first = false
					panic("run")
				}
			}}
			rules := Rules{Size: 2, Min: 2, Latency: time.Minute}
			panicked := make(chan any, 1)
			go func() {
				defer func() { panicked <- recover() }()
				g.Do(t.Context(), "key", 1, rules)
			}()
			synctest.Wait()
			if err := g.Do(t.Context(), "key", 2, rules); err != nil {
				t.Error(err)
			}
			if p := <-panicked; p != "run" {
				t.Errorf("the one who led: %v", p)
			}
		})
	}
}

// TestEveryCallIsServedOnceOrLeaves: at random times, with calls that leave at random times.
func TestEveryCallIsServedOnceOrLeaves(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			rules := Rules{Size: 1 + random.IntN(6), Min: 1 + random.IntN(6), Latency: time.Duration(random.IntN(5)) * time.Millisecond}
			var mu sync.Mutex
			served := map[int]int{}
			door := make(chan struct{}, 1+random.IntN(3))
			delays := make([]time.Duration, 500)
			for i := range delays {
				delays[i] = time.Duration(random.IntN(3000)) * time.Microsecond
			}
			most := 1 + random.IntN(rules.Size)
			g := Gatherer[int, int]{Run: func(ctx context.Context, lead int, b *Batch[int, int]) {
				select {
				case door <- struct{}{}:
				case <-ctx.Done():
					return
				}
				defer func() { <-door }()
				items := b.Begin(func(n int) int { return most })
				if len(items) > rules.Size || len(items) > most || items[0] != lead {
					t.Errorf("seed %d: batch %v of %d at most, led by %d", seed, items, rules.Size, lead)
				}
				mu.Lock()
				for _, i := range items {
					served[i]++
				}
				mu.Unlock()
				time.Sleep(delays[lead])
			}}
			var calls sync.WaitGroup
			for i := range 100 {
				start, patience := delays[3*i], 3*delays[3*i+1]
				key := i % 2
				calls.Go(func() {
					time.Sleep(start)
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					err := g.Do(ctx, key, i, rules)
					mu.Lock()
					defer mu.Unlock()
					if n := served[i]; n > 1 || n == 1 && err != nil || n == 0 && ctx.Err() == nil {
						t.Errorf("seed %d: call %d was served %d times: %v", seed, i, n, err)
					}
				})
			}
			calls.Wait()
			if len(g.open) != 0 {
				t.Errorf("seed %d: %d batches are left", seed, len(g.open))
			}
		})
	}
}

func BenchmarkGather(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			door := make(chan struct{}, 1)
			g := Gatherer[string, int]{Run: func(_ context.Context, _ int, batch *Batch[string, int]) {
				door <- struct{}{}
				batch.Begin(func(n int) int { return n })
				<-door
			}}
			rules := Rules{Size: size, Min: size, Latency: time.Second}
			b.SetParallelism(2 * size)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					g.Do(b.Context(), "key", 1, rules)
				}
			})
		})
	}
}

// The first call's rules are the batch's, whatever those of later ones are.
func TestTheRulesOfTheFirst(t *testing.T) {
	story(t, Rules{Size: 3, Min: 3, Latency: time.Minute}, func(r *rig) {
		r.do(r.Context(), 1)
		r.rules = Rules{Size: 10, Min: 1}
		r.do(r.Context(), 2)
		r.want("[]")
		r.do(r.Context(), 3)
		r.do(r.Context(), 4)
		r.want("[[1 2 3] [4]]", 0, 0)
	})
}
