package mtasts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

func TestCloseDuringAFetch(t *testing.T) {
	for _, test := range []struct {
		name string
		slow func(w *world)
	}{
		{"lookup", func(w *world) { w.asking = time.Hour }},
		{"answer", func(w *world) { w.serve = stalls }},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
				r := expect(t, c, Fetched, Enforce)
				w.publish("2")
				time.Sleep(2 * day)
				test.slow(w)
				begin := time.Now()
				var callers sync.WaitGroup
				callers.Go(func() {
					if r := expect(t, c, Kept, Enforce); !errors.Is(r.Err, ErrClosed) {
						t.Errorf("%+v", r)
					}
				})
				callers.Go(func() {
					if r := c.Get(t.Context(), "example.net"); r.Status != Unknown || !errors.Is(r.Err, ErrClosed) {
						t.Errorf("%+v", r)
					}
				})
				synctest.Wait()
				for range 2 {
					closed(t, c)
				}
				callers.Wait()
				if d := time.Since(begin); d != 0 {
					t.Errorf("Close took %v", d)
				}
				if r = c.Get(t.Context(), "example.com"); r.Status != Unknown || r.Err != ErrClosed {
					t.Errorf("after Close: %+v", r)
				}
			})
		})
	}
}

func TestClosedWithAPolicy(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		expect(t, c, Fetched, Enforce)
		closed(t, c)
		if r := expect(t, c, Unknown, None); r.Err != ErrClosed {
			t.Error(r.Err)
		}
	})
}

func TestCloseOfWhatWasNotUsed(t *testing.T) {
	var c Cache
	closed(t, &c)
	if r := c.Get(t.Context(), "example.com"); r.Status != Unknown || r.Err != ErrClosed {
		t.Errorf("%+v", r)
	}
}

// Close waits for what does not heed its context, and no longer than its own.
func TestCloseIsBounded(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.Lookup = func(context.Context, string) (answer resolver.Answer) {
			time.Sleep(time.Hour)
			return answer
		}
		go c.Get(t.Context(), "example.com")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if err := c.Close(ctx); err != context.DeadlineExceeded || time.Since(begin) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		closed(t, c)
		if d := time.Since(begin); d != time.Hour {
			t.Errorf("after %v", d)
		}
		if err := c.Close(ctx); err != nil {
			t.Errorf("with nothing left: %v", err)
		}
	})
}

func TestOneCallerLeaves(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		w.asking = 3 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var callers sync.WaitGroup
		callers.Go(func() {
			begin := time.Now()
			r := c.Get(ctx, "example.com")
			if r.Status != Unknown || r.Err != context.DeadlineExceeded || time.Since(begin) != time.Second {
				t.Errorf("%+v after %v", r, time.Since(begin))
			}
		})
		callers.Go(func() { expect(t, c, Fetched, Enforce) })
		callers.Wait()
		if r := c.Get(ctx, "example.com"); r.Status != Cached {
			t.Errorf("from memory: %+v", r)
		}
		if r := c.Get(ctx, "example.net"); r.Status != Unknown || r.Err != context.DeadlineExceeded {
			t.Errorf("a context that ended before: %+v", r)
		}
		expectCounts(t, w, 1, 1)
		time.Sleep(2 * time.Hour)
		if r := c.Get(ctx, "example.com"); r.Status != Kept || !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("with a policy: %+v", r)
		}
	})
}

// What all callers have left is there for the next.
func TestAllCallersLeave(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		w.asking = 3 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.Get(ctx, "example.com")
		time.Sleep(5 * time.Second)
		expect(t, c, Cached, Enforce)
	})
}

// Callers come and go in real time, and the cache closes among them.
func TestManyCallers(t *testing.T) {
	w := newWorld(t, "1", enforce)
	w.config = w.ca.Server(t, "mta-sts.a.test", "mta-sts.b.test", "mta-sts.c.test")
	c := w.cache()
	store := &shelf{}
	c.Size, c.Fetches, c.Store = 2, 2, store
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if i%3 == 0 {
				go cancel()
			}
			defer cancel()
			for range 20 {
				for _, domain := range []string{"a.test", "b.test", "c.test", "d.test"} {
					r := c.Get(ctx, domain)
					if (r.Status >= Fetched) != (r.Policy.Mode == Enforce) || r.Policy.Mode == Enforce && domain == "d.test" ||
						r.Status == Unknown && !errors.Is(r.Err, context.Canceled) && r.Err != ErrClosed {
						t.Errorf("%s: %+v", domain, r)
					}
				}
			}
			if i == 75 {
				closed(t, c)
			}
		})
	}
	callers.Wait()
	closed(t, c)
	w.hosts.Wait()
	for domain, entry := range store.entries {
		if entry.Fetched != entry.Fetched.Round(0) || entry.Expires != entry.Expires.Round(0) {
			t.Errorf("%s: the times of an entry hold a monotonic clock", domain)
		}
	}
	if len(c.flights) != 0 || len(c.turns) != 0 || w.now != 0 {
		t.Errorf("%d flights, %d turns, %d connections are left", len(c.flights), len(c.turns), w.now)
	}
}

// Nothing of what happened runs on after Close: no bubble would tell of a goroutine that sleeps in a system
// call, so this looks at a real connection.
func TestNothingIsLeft(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	c := newWorld(t, "1", "").cache()
	c.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
	}
	done := make(chan Result)
	go func() { done <- c.Get(t.Context(), "example.com") }()
	conn := <-accepted
	defer conn.Close()
	conn.Read(make([]byte, 1)) // the handshake has begun
	closed(t, c)
	if r := <-done; r.Status != Unknown || !errors.Is(r.Err, ErrClosed) {
		t.Errorf("%+v", r)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, what := range []string{").check(", ").fetch("} {
		if strings.Contains(string(stacks), what) {
			t.Errorf("%s is still there:\n%s", what, stacks)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	inBubble(t, "", "", func(t *testing.T, w *world, c *Cache) {
		c.Size = 3
		for i := range 10 {
			c.Get(t.Context(), fmt.Sprintf("%d.test", i))
			c.Get(t.Context(), "0.test")
		}
		expectCounts(t, w, 10, 0) // 0.test is used all the time
		w.mu.Lock()
		w.asked = map[string]int{}
		w.mu.Unlock()
		for _, i := range []int{0, 8, 9, 1} {
			c.Get(t.Context(), fmt.Sprintf("%d.test", i))
		}
		if len(w.asked) != 1 || w.asked["_mta-sts.1.test"] != 1 || len(c.memory.places) != 3 {
			t.Errorf("asked %v, %d in memory", w.asked, len(c.memory.places))
		}
	})
}

// Domains without a policy do not push a policy out, and what is pushed out comes back from the store.
func TestPoliciesStayInMemory(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.Size = 3
		expect(t, c, Fetched, Enforce)
		w.publish("")
		for i := range 10 {
			if r := c.Get(t.Context(), fmt.Sprintf("%d.test", i)); r.Status != NoRecord {
				t.Errorf("%+v", r)
			}
		}
		time.Sleep(2 * time.Hour)
		expect(t, c, Kept, Enforce)
		if n := len(c.memory.places); n != 4 {
			t.Errorf("%d in memory", n)
		}
	})
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.Size, c.Store = 2, &shelf{}
		w.config = w.ca.Server(t, "mta-sts.example.com", "mta-sts.a.test", "mta-sts.b.test", "mta-sts.c.test")
		expect(t, c, Fetched, Enforce)
		for _, domain := range []string{"a.test", "b.test", "c.test"} {
			c.Get(t.Context(), domain)
		}
		w.publish("")
		if n := len(c.memory.places); n != 2 {
			t.Errorf("%d in memory", n)
		}
		expect(t, c, Kept, Enforce)
	})
}

// Against a plain model of memory: the right ones are there, in both lists.
func TestMemoryAgainstAModel(t *testing.T) {
	const size = 4
	random := rand.New(rand.NewPCG(1, 2))
	var m memory
	type kept struct {
		domain string
		with   bool
	}
	var model []kept // most recently used first
	drop := func(domain string) {
		for i, k := range model {
			if k.domain == domain {
				model = append(model[:i:i], model[i+1:]...)
				return
			}
		}
	}
	for range 10000 {
		domain := fmt.Sprint(random.IntN(16))
		if random.IntN(2) == 0 {
			want := false
			for _, k := range model {
				if k.domain == domain {
					want = true
					drop(domain)
					model = append([]kept{k}, model...)
					break
				}
			}
			if got := m.get(domain) != nil; got != want {
				t.Fatalf("%s is there: %v", domain, got)
			}
			continue
		}
		with, status := random.IntN(2) == 0, NoRecord
		if with {
			status = Cached
		}
		m.put(domain, known{result: Result{Status: status}}, size)
		drop(domain)
		model = append([]kept{{domain, with}}, model...)
		n, last := 0, ""
		for _, k := range model {
			if k.with == with {
				n, last = n+1, k.domain
			}
		}
		if n > size {
			drop(last)
		}
		if len(m.places) != len(model) || m.with.Len()+m.without.Len() != len(model) {
			t.Fatalf("%d places, %d and %d in the lists, for %d", len(m.places), m.with.Len(), m.without.Len(), len(model))
		}
	}
}
