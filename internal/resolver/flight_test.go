package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func TestSameQuestionIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone, dnstest.Delay(time.Second))
		c := client(s)
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				name := []string{"example.com", "EXAMPLE.com", "example.com."}[i%3]
				if got := c.Lookup(t.Context(), name, TypeMX); got.Result != Records || len(got.MX) != 2 {
					t.Errorf("%+v", got)
				}
			})
		}
		callers.Wait()
		if n := s.Total(); n != 1 {
			t.Errorf("%d queries", n)
		}
	})
}

// The same without virtual time: nobody may slip between the end of a query and the cache.
func TestSameQuestionIsAskedOnceWithoutDelay(t *testing.T) {
	s := newServer(t, testZone)
	c := client(s)
	var callers sync.WaitGroup
	for range 1000 {
		callers.Go(func() { c.Lookup(t.Context(), "example.com", TypeMX) })
	}
	callers.Wait()
	if n := s.Total(); n != 1 {
		t.Errorf("%d queries", n)
	}
}

// A burst of mail to some domains asks about each of them once, whether they can be asked all at once or
// not, and however many callers there are.
func TestManyFirstLookupsOfFewNames(t *testing.T) {
	const callers, names = 10_000, 100
	for _, limit := range []int{0, 3} {
		s := newServer(t, "*.test. MX 10 mx.test.")
		c := client(s)
		c.TrustAD, c.MaxQueries = false, limit
		start := make(chan struct{})
		var burst sync.WaitGroup
		for i := range callers {
			burst.Go(func() {
				<-start
				if got := c.Lookup(t.Context(), fmt.Sprintf("d%d.test", i%names), TypeMX); got.Result != Records {
					t.Errorf("%+v", got)
				}
			})
		}
		close(start)
		burst.Wait()
		if stats := c.Stats(); s.Total() != names || stats.Asked != names || stats.Entries != names {
			t.Errorf("limit %d: %d queries for %d names, %+v", limit, s.Total(), names, stats)
		}
		c.Close()
	}
}

func TestFailuresAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "", dnstest.ServFail(), dnstest.Delay(time.Second))
		c := client(s)
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != TempFail || got.Err == nil {
					t.Errorf("%+v", got)
				}
			})
		}
		callers.Wait()
		if n := s.Total(); n != 2 { // the rounds
			t.Errorf("%d queries", n)
		}
	})
}

func TestOneCallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone, dnstest.Delay(3*time.Second))
		c := client(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var callers sync.WaitGroup
		callers.Go(func() { // the first, whose question it is
			begin := time.Now()
			got := c.Lookup(ctx, "example.com", TypeMX)
			if got.Result != TempFail || !errors.Is(got.Err, context.DeadlineExceeded) {
				t.Errorf("the one who cancelled: %+v", got)
			}
			if d := time.Since(begin); d != time.Second {
				t.Errorf("it waited %v", d)
			}
		})
		synctest.Wait()
		for range 5 {
			callers.Go(func() {
				if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != Records {
					t.Errorf("the others: %+v", got)
				}
			})
		}
		callers.Wait()
		if n := s.Total(); n != 1 {
			t.Errorf("%d queries", n)
		}
		if got := c.Lookup(ctx, "example.com", TypeMX); got.Result != Records {
			t.Errorf("from the cache: %+v", got)
		}
	})
}

func TestAllCallersCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone, dnstest.Delay(3*time.Second))
		c := client(s)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				if got := c.Lookup(ctx, "example.com", TypeMX); got.Result != TempFail || !errors.Is(got.Err, context.Canceled) {
					t.Errorf("%+v", got)
				}
			})
		}
		time.Sleep(time.Second)
		cancel()
		callers.Wait()
		begin := time.Now()
		c.working.Wait()
		if d := time.Since(begin); d != 0 {
			t.Errorf("the query went on for %v", d)
		}
		// Nothing of it was kept.
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != Records || s.Total() != 2 {
			t.Errorf("%+v after %d queries", got, s.Total())
		}
		if got := c.Lookup(ctx, "other.example.com", TypeMX); !errors.Is(got.Err, context.Canceled) || s.Total() != 2 {
			t.Errorf("a context that ended before: %+v after %d queries", got, s.Total())
		}
	})
}

// deaf is a client whose first connection takes a minute to be opened, whatever its context says.
func deaf(s *dnstest.Server) *Client {
	c := client(s)
	dial, first := c.Dial, make(chan bool, 1)
	first <- true
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-first:
			time.Sleep(time.Minute)
		default:
		}
		return dial(ctx, network, address)
	}
	return c
}

func TestNobodyJoinsWhatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := deaf(newServer(t, testZone))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.Lookup(ctx, "example.com", TypeMX)
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != Records {
			t.Errorf("%+v", got)
		}
		c.Close()
	})
}

func TestNothingOutlivesClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := deaf(newServer(t, testZone))
		begin := time.Now()
		go c.Lookup(t.Context(), "example.com", TypeMX)
		synctest.Wait()
		c.Close()
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("Close did not wait: %v", d)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone, dnstest.Silent("silent.example.com"))
		c := client(s)
		c.Lookup(t.Context(), "example.com", TypeMX)
		begin := time.Now()
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				if got := c.Lookup(t.Context(), "silent.example.com", TypeA); got.Result != TempFail || !errors.Is(got.Err, ErrClosed) {
					t.Errorf("under way: %+v", got)
				}
			})
		}
		synctest.Wait()
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		callers.Wait()
		if d := time.Since(begin); d != 0 {
			t.Errorf("Close took %v", d)
		}
		if got := c.Lookup(t.Context(), "example.com", TypeMX); got.Result != TempFail || !errors.Is(got.Err, ErrClosed) {
			t.Errorf("after Close: %+v", got)
		}
	})
	var unused Client
	if err := unused.Close(); err != nil {
		t.Error(err)
	}
}

// Callers come and go, and the client closes among them.
func TestManyCallers(t *testing.T) {
	s := newServer(t, "*.test. A 192.0.2.1", dnstest.ServFail("c.test"))
	c := client(s)
	c.CacheSize = 2
	var callers sync.WaitGroup
	for i := range 200 {
		callers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if i%3 == 0 {
				go cancel()
			}
			defer cancel()
			for range 20 {
				for _, name := range []string{"a.test", "b.test", "c.test", "d.test"} {
					got := c.Lookup(ctx, name, TypeA)
					if (got.Result == Records) != (len(got.Addrs) == 1) || (got.Result == TempFail) != (got.Err != nil) {
						t.Errorf("%+v", got)
					}
				}
			}
			if i == 150 {
				c.Close()
			}
		})
	}
	callers.Wait()
	c.Close()
	if len(c.flights) != 0 {
		t.Errorf("%d flights are left", len(c.flights))
	}
}
