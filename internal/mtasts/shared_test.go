package mtasts

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

func TestSameDomainIsAskedOnce(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		w.asking = time.Second
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { expect(t, c, Fetched, Enforce) })
		}
		callers.Wait()
		expectCounts(t, w, 1, 1)
	})
}

// The same in real time: nobody slips between the end of a flight and memory.
func TestSameDomainIsAskedOnceWithoutDelay(t *testing.T) {
	w := newWorld(t, "1", enforce)
	c := w.cache()
	var callers sync.WaitGroup
	for range 1000 {
		callers.Go(func() {
			if r := c.Get(t.Context(), "example.com"); r.Status != Fetched && r.Status != Cached || r.Policy.Mode != Enforce {
				t.Errorf("%+v", r)
			}
		})
	}
	callers.Wait()
	if asked, fetched := w.counts(); asked != 1 || fetched != 1 {
		t.Errorf("%d records and %d policies were asked for", asked, fetched)
	}
	closed(t, c)
	w.hosts.Wait()
}

func TestFetchesAreBounded(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.Fetches = 3
		var domains, hosts []string
		for i := range 10 {
			domains = append(domains, fmt.Sprintf("%d.test", i))
			hosts = append(hosts, "mta-sts."+domains[i])
		}
		w.config = w.ca.Server(t, hosts...)
		w.serve = func(conn net.Conn) {
			time.Sleep(time.Second)
			fmt.Fprint(conn, ok(enforce))
		}
		begin := time.Now()
		var callers sync.WaitGroup
		for _, domain := range domains {
			callers.Go(func() {
				if r := c.Get(t.Context(), domain); r.Status != Fetched {
					t.Errorf("%+v", r)
				}
			})
		}
		callers.Wait()
		if d := time.Since(begin); w.most != 3 || d != 4*time.Second {
			t.Errorf("%d at the same time, in %v", w.most, d)
		}
	})
}

// A fetch that gets no turn says nothing of the domain.
func TestBusy(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.Fetches = 1
		w.config = w.ca.Server(t, "mta-sts.example.com", "mta-sts.example.net")
		expect(t, c, Fetched, Enforce)
		w.publish("2")
		time.Sleep(2 * time.Hour)
		c.turns <- struct{}{} // as a fetch does
		var callers sync.WaitGroup
		callers.Go(func() {
			if r := c.Get(t.Context(), "example.net"); r.Status != Unknown || !errors.Is(r.Err, ErrBusy) {
				t.Errorf("%+v", r)
			}
		})
		callers.Go(func() {
			if r := expect(t, c, Kept, Enforce); !errors.Is(r.Err, ErrBusy) {
				t.Errorf("%+v", r)
			}
		})
		begin := time.Now()
		callers.Wait()
		if d := time.Since(begin); d != defaultTimeout {
			t.Errorf("they waited %v", d)
		}
		<-c.turns
		if r := c.Get(t.Context(), "example.net"); r.Status != Fetched {
			t.Errorf("it was remembered: %+v", r)
		}
	})
}
