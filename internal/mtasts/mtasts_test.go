package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

const day = 24 * time.Hour

// inBubble runs a test in virtual time with a world and a cache of its own, and closes the cache.
func inBubble(t *testing.T, id, body string, test func(t *testing.T, w *world, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, id, body)
		c := w.cache()
		test(t, w, c)
		closed(t, c)
		w.hosts.Wait()
	})
}

// expect checks the result of a Get for example.com.
func expect(t *testing.T, c *Cache, status Status, mode Mode) Result {
	t.Helper()
	r := c.Get(t.Context(), "example.com")
	if r.Status != status || r.Policy.Mode != mode {
		t.Errorf("%v, %v (%v); want %v, %v", r.Status, r.Policy.Mode, r.Err, status, mode)
	}
	return r
}

func expectCounts(t *testing.T, w *world, asked, fetched int) {
	t.Helper()
	synctest.Wait()
	if a, f := w.counts(); a != asked || f != fetched {
		t.Errorf("%d records and %d policies were asked for; want %d and %d", a, f, asked, fetched)
	}
}

func TestFirstAndLater(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		begin := time.Now()
		r := expect(t, c, Fetched, Enforce)
		if !r.Policy.Matches("mx.example.com") || r.ID != "1" || !r.Fetched.Equal(begin) ||
			!r.Expires.Equal(begin.Add(7*day)) || r.Err != nil || r.Failure() != NoFailure {
			t.Errorf("%+v", r)
		}
		for _, spelling := range []string{"example.com", "EXAMPLE.com", "example.com."} {
			if r := c.Get(t.Context(), spelling); r.Status != Cached || r.ID != "1" || r.Err != nil {
				t.Errorf("%s: %+v", spelling, r)
			}
		}
		expectCounts(t, w, 1, 1)
		if w.asked["_mta-sts.example.com"] != 1 || w.fetched["mta-sts.example.com:443"] != 1 {
			t.Errorf("asked %v, fetched %v", w.asked, w.fetched)
		}
	})
}

func TestWithoutPolicy(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer resolver.Answer
		status Status
		again  time.Duration // when the record is asked for again
	}{
		{"no such name", resolver.Answer{Result: resolver.NXDomain, TTL: 10 * time.Minute}, NoRecord, 10 * time.Minute},
		{"no such record", resolver.Answer{Result: resolver.NoData, TTL: time.Second}, NoRecord, time.Minute},
		{"other records", resolver.Answer{Result: resolver.Records, TTL: day, TXT: []string{"v=spf1 -all"}}, NoRecord, time.Hour},
		{"two", resolver.Answer{Result: resolver.Records, TTL: time.Hour, TXT: []string{"v=STSv1; id=1", "v=STSv1; id=2"}}, InvalidRecord, time.Hour},
		{"broken", resolver.Answer{Result: resolver.Records, TTL: time.Hour, TXT: []string{"v=STSv1; id=1-2"}}, InvalidRecord, time.Hour},
		{"failure", resolver.Answer{Err: errDown}, LookupFailed, time.Minute},
		{"bogus", resolver.Answer{Result: resolver.Bogus}, LookupFailed, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
				w.answer = test.answer
				r := expect(t, c, test.status, None)
				if (r.Err == nil) != (test.status == NoRecord) || test.answer.Err != nil && !errors.Is(r.Err, test.answer.Err) || r.Failure() != NoFailure {
					t.Errorf("%v", r.Err)
				}
				time.Sleep(test.again - 1)
				expect(t, c, test.status, None)
				expectCounts(t, w, 1, 0)
				time.Sleep(time.Nanosecond)
				expect(t, c, test.status, None)
				expectCounts(t, w, 2, 0)
			})
		})
	}
}

func TestWhatIsNoDomain(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		for _, domain := range []string{"", ".", "[192.0.2.1]", "[IPv6:::1]", "a..b", "a b", "a/b", "a\r\nb", "ex@mple.com"} {
			if r := c.Get(t.Context(), domain); r.Status != NoRecord || r.Policy.Mode != None {
				t.Errorf("%q: %+v", domain, r)
			}
		}
		expectCounts(t, w, 0, 0)
		w.config = w.ca.Server(t, "mta-sts.xn--bcher-kva.example.com")
		if r := c.Get(t.Context(), "bücher.example.com"); r.Status != Fetched {
			t.Errorf("in Unicode: %+v", r)
		}
		if w.asked["_mta-sts.xn--bcher-kva.example.com"] != 1 {
			t.Errorf("%v", w.asked)
		}
	})
}

func TestNewID(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		expect(t, c, Fetched, Enforce)
		w.publish("2")
		w.set(func() { w.body = report })

		// While the domain is busy nobody waits for it.
		time.Sleep(5*time.Minute - 1)
		expect(t, c, Cached, Enforce)
		time.Sleep(time.Nanosecond)
		expect(t, c, Cached, Enforce)
		expectCounts(t, w, 2, 2)
		if r := expect(t, c, Cached, Testing); r.ID != "2" {
			t.Errorf("%+v", r)
		}

		// One that was not asked for lately is looked at before it is believed.
		w.publish("3")
		w.set(func() { w.body = none })
		time.Sleep(2 * time.Hour)
		if r := expect(t, c, Fetched, None); r.ID != "3" {
			t.Errorf("%+v", r)
		}
	})
}

func TestRefreshAheadOfTime(t *testing.T) {
	for _, test := range []struct {
		maxAge, due time.Duration
	}{
		{7 * day, day},
		{day, 12 * time.Hour},
		{10 * time.Minute, 5 * time.Minute},
	} {
		t.Run(test.maxAge.String(), func(t *testing.T) {
			body := Policy{Enforce, []string{"mx.example.com"}, test.maxAge}.String()
			inBubble(t, "1", body, func(t *testing.T, w *world, c *Cache) {
				begin := time.Now()
				expect(t, c, Fetched, Enforce)
				for time.Since(begin) < test.due-time.Minute {
					time.Sleep(time.Minute)
					expect(t, c, Cached, Enforce)
				}
				if _, fetched := w.counts(); fetched != 1 {
					t.Errorf("%d fetches", fetched)
				}
				time.Sleep(time.Minute)
				expect(t, c, Cached, Enforce)
				synctest.Wait()
				if _, fetched := w.counts(); fetched != 2 {
					t.Errorf("%d fetches", fetched)
				}
				if r := expect(t, c, Cached, Enforce); !r.Expires.Equal(begin.Add(test.due + test.maxAge)) {
					t.Errorf("it expires %v after the beginning", r.Expires.Sub(begin))
				}
			})
		})
	}
}

func TestNobodyAsksNothingIsDone(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		expect(t, c, Fetched, Enforce)
		time.Sleep(6 * day)
		expectCounts(t, w, 1, 1)
	})
}

// An age of nothing does not mean a fetch for each message.
func TestMaxAgeZero(t *testing.T) {
	inBubble(t, "1", "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 0\n", func(t *testing.T, w *world, c *Cache) {
		expect(t, c, Fetched, Enforce)
		time.Sleep(time.Minute - 1)
		expect(t, c, Cached, Enforce)
		expectCounts(t, w, 1, 1)
		time.Sleep(time.Nanosecond)
		expect(t, c, Fetched, Enforce)
		w.set(func() { w.down = errDown })
		time.Sleep(time.Minute)
		expect(t, c, FetchFailed, None)
	})
}

func TestExpiredAndServerDown(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		r := expect(t, c, Fetched, Enforce)
		w.set(func() { w.down = errDown })
		time.Sleep(time.Until(r.Expires) - 1)
		r = expect(t, c, Kept, Enforce)
		if !errors.Is(r.Err, errDown) || r.Failure() != FetchError {
			t.Errorf("%v", r.Err)
		}
		time.Sleep(time.Nanosecond)
		r = expect(t, c, FetchFailed, None)
		var e *Error
		if !errors.Is(r.Err, errDown) || !errors.As(r.Err, &e) || e.Domain != "example.com" ||
			r.Failure() != FetchError || r.ID != "" || len(r.Policy.MX) != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestFailedFetchIsBackedOff(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		w.down = errDown
		expect(t, c, FetchFailed, None)
		for range 4 {
			time.Sleep(time.Minute)
			expect(t, c, FetchFailed, None)
		}
		expectCounts(t, w, 1, 1)

		// The next attempt makes nobody wait.
		w.set(func() { w.down, w.serve = nil, stalls })
		time.Sleep(time.Minute)
		begin := time.Now()
		expect(t, c, FetchFailed, None)
		if d := time.Since(begin); d != 0 {
			t.Errorf("it waited %v", d)
		}
		expectCounts(t, w, 2, 2)
		time.Sleep(defaultTimeout)
		synctest.Wait()
		if r := expect(t, c, FetchFailed, None); !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Error(r.Err)
		}

		w.set(func() { w.serve = nil })
		time.Sleep(5 * time.Minute)
		expect(t, c, FetchFailed, None)
		synctest.Wait()
		expect(t, c, Cached, Enforce)
	})
}

// A failure is one of an id (RFC 8461 section 3.3): a new one is tried at once.
func TestBackOffIsPerID(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		w.answer.TTL = time.Minute
		w.down = errDown
		expect(t, c, FetchFailed, None)
		time.Sleep(time.Minute)
		expect(t, c, FetchFailed, None)
		expectCounts(t, w, 2, 1) // looked at, not fetched
		w.publish("2")
		w.set(func() { w.down = nil })
		time.Sleep(time.Minute)
		expect(t, c, FetchFailed, None)
		expectCounts(t, w, 3, 2)
		expect(t, c, Cached, Enforce)
	})
}

func TestNoneReplacesEnforce(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		store := &shelf{}
		c.Store = store
		expect(t, c, Fetched, Enforce)
		w.publish("2")
		w.set(func() { w.body = none })
		time.Sleep(2 * time.Hour)
		expect(t, c, Fetched, None)
		w.publish("")
		time.Sleep(2 * time.Hour)
		if r := expect(t, c, Kept, None); r.ID != "2" {
			t.Errorf("%+v", r)
		}
		if entry := store.entries["example.com"]; entry.ID != "2" || string(entry.Policy) != none {
			t.Errorf("%+v", entry)
		}
	})
}

// Whatever an attacker on the network does, a policy that is held goes on, and is not asked for at each
// message.
func TestDowngradeAttempts(t *testing.T) {
	record := func(id string) resolver.Answer {
		return resolver.Answer{Result: resolver.Records, TTL: time.Minute, TXT: []string{"v=STSv1; id=" + id}}
	}
	for _, test := range []struct {
		name    string
		attack  func(t *testing.T, w *world)
		failure Failure
		fetches int // in 5 minutes
	}{
		{"TXT removed", func(t *testing.T, w *world) { w.answer = resolver.Answer{Result: resolver.NXDomain} }, NoFailure, 0},
		{"TXT replaced by nothing", func(t *testing.T, w *world) { w.answer = resolver.Answer{Result: resolver.NoData} }, NoFailure, 0},
		{"TXT SERVFAIL", func(t *testing.T, w *world) { w.answer = resolver.Answer{Err: errDown} }, NoFailure, 0},
		{"TXT bogus", func(t *testing.T, w *world) { w.answer = resolver.Answer{Result: resolver.Bogus} }, NoFailure, 0},
		{"TXT never answered", func(t *testing.T, w *world) { w.asking = time.Hour }, NoFailure, 0},
		{"TXT doubled", func(t *testing.T, w *world) {
			w.answer = record("2")
			w.answer.TXT = append(w.answer.TXT, "v=STSv1; id=3")
		}, NoFailure, 0},
		{"TXT broken", func(t *testing.T, w *world) { w.answer = record("?") }, NoFailure, 0},
		{"HTTPS refused", func(t *testing.T, w *world) { w.down = errDown }, FetchError, 1},
		{"HTTPS stalls", func(t *testing.T, w *world) { w.serve = stalls }, FetchError, 1},
		{"none with the certificate of another", func(t *testing.T, w *world) {
			w.body, w.config = none, w.ca.Server(t, "mta-sts.example.org")
		}, WebPKIInvalid, 1},
		{"none with a certificate of no authority", func(t *testing.T, w *world) {
			w.body, w.config = none, newWorld(t, "", "").config
		}, WebPKIInvalid, 1},
		{"none without TLS", func(t *testing.T, w *world) {
			w.config = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				saying(ok(none))(hello.Conn)
				return nil, errDown
			}}
		}, FetchError, 1},
		{"garbage", func(t *testing.T, w *world) { w.body = "<html>none</html>" }, PolicyInvalid, 1},
		{"nothing", func(t *testing.T, w *world) { w.body = "" }, PolicyInvalid, 1},
		{"redirect", func(t *testing.T, w *world) {
			w.serve = saying("HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.example.net/.well-known/mta-sts.txt\r\nContent-Length: 0\r\n\r\n")
		}, FetchError, 1},
		{"not found", func(t *testing.T, w *world) { w.serve = saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") }, FetchError, 1},
	} {
		for _, id := range []string{"1", "2"} { // with the old record as long as it lasts, or a new one
			t.Run(test.name+"/id "+id, func(t *testing.T) {
				inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
					first := expect(t, c, Fetched, Enforce)
					if id == "1" {
						time.Sleep(2 * day) // so that a refresh is due
					} else {
						time.Sleep(2 * time.Hour)
					}
					w.set(func() {
						w.answer = record(id)
						test.attack(t, w)
					})
					_, before := w.counts()
					for minute := range 5 {
						r := expect(t, c, Kept, Enforce)
						if r.Failure() != test.failure || r.Err == nil || r.ID != "1" || !r.Expires.Equal(first.Expires) {
							t.Errorf("minute %d: %+v", minute, r)
						}
						time.Sleep(time.Minute - 1)
						synctest.Wait()
					}
					if _, after := w.counts(); after-before != test.fetches {
						t.Errorf("%d fetches", after-before)
					}
					// And once the attack is over all is well, at the latest after the next check.
					w.set(func() {
						w.asking, w.serve, w.down, w.body, w.answer = 0, nil, nil, report, record("3")
						w.config = w.ca.Server(t, "mta-sts.example.com")
					})
					time.Sleep(2 * time.Hour)
					expect(t, c, Fetched, Testing)
				})
			})
		}
	}
}

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
		time.Sleep(2 * day)
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
