package mtasts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
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

// Without a Lookup a resolver of its own is asked, and closed with the cache.
func TestOwnResolver(t *testing.T) {
	inBubble(t, "", enforce, func(t *testing.T, w *world, c *Cache) {
		server, err := dnstest.New(`_mta-sts.example.com. 300 TXT "v=STSv1; " "id=7"`)
		if err != nil {
			t.Fatal(err)
		}
		c.Lookup = nil
		c.own.Servers, c.own.Dial = []string{"192.0.2.1"}, server.Dial
		if r := expect(t, c, Fetched, Enforce); r.ID != "7" {
			t.Errorf("%+v", r)
		}
		if r := c.Get(t.Context(), "example.net"); r.Status != NoRecord {
			t.Errorf("%+v", r)
		}
		closed(t, c)
		if r := c.own.Lookup(t.Context(), "example.com", resolver.TypeTXT); !errors.Is(r.Err, resolver.ErrClosed) {
			t.Errorf("%+v", r)
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
		maxAge, ttl, due time.Duration
	}{
		{7 * day, 5 * time.Minute, day},
		{day, 5 * time.Minute, 12 * time.Hour},
		{5 * time.Hour, time.Hour, 150 * time.Minute},
		{10 * time.Minute, time.Hour, 5 * time.Minute},
	} {
		t.Run(test.maxAge.String(), func(t *testing.T) {
			body := Policy{Enforce, []string{"mx.example.com"}, test.maxAge}.String()
			inBubble(t, "1", body, func(t *testing.T, w *world, c *Cache) {
				w.answer.TTL = test.ttl
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

// A domain that gets a message a day has its policy refreshed all the same, and the message does not wait.
func TestRefreshOfWhatIsRare(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		expect(t, c, Fetched, Enforce)
		w.set(func() {
			w.serve = func(conn net.Conn) {
				time.Sleep(time.Second)
				fmt.Fprint(conn, ok(enforce))
			}
		})
		for range 30 {
			time.Sleep(day + time.Minute)
			begin := time.Now()
			expect(t, c, Cached, Enforce)
			if d := time.Since(begin); d != 0 {
				t.Errorf("it waited %v", d)
			}
		}
		time.Sleep(time.Minute)
		expectCounts(t, w, 31, 31)
	})
}

// Who asks while a refresh is under way, and the policy has expired meanwhile, waits for its end.
func TestExpiryDuringARefresh(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		first := expect(t, c, Fetched, Enforce)
		for _, down := range []bool{false, true} {
			w.set(func() {
				w.serve = func(conn net.Conn) {
					time.Sleep(10 * time.Second)
					if !down {
						fmt.Fprint(conn, ok(enforce))
					}
				}
			})
			time.Sleep(time.Until(first.Expires) - time.Second)
			expect(t, c, Cached, Enforce)
			time.Sleep(time.Second - time.Nanosecond)
			expect(t, c, Cached, Enforce)
			time.Sleep(time.Nanosecond)
			if down {
				expect(t, c, FetchFailed, None)
			} else {
				first = expect(t, c, Fetched, Enforce)
			}
		}
		if asked, fetched := w.counts(); asked != 3 || fetched != 3 {
			t.Errorf("%d records and %d policies were asked for", asked, fetched)
		}
	})
}

// What makes a policy end some day is told to the administrator, once for each attempt.
func TestLog(t *testing.T) {
	for _, test := range []struct {
		name, body string
		change     func(w *world)
		want       string // of the log, but for its times
	}{
		{"refresh", enforce, func(w *world) { w.down = errDown },
			`level=WARN msg="MTA-STS policy not fetched" id=1 domain=example.com error="MTA-STS of example.com: sts-policy-fetch-error: connection refused"`},
		{"refresh of none", none, func(w *world) { w.down = errDown },
			`level=INFO msg="MTA-STS policy not fetched" id=1 domain=example.com error="MTA-STS of example.com: sts-policy-fetch-error: connection refused"`},
		{"record removed", enforce, func(w *world) { w.answer = resolver.Answer{Result: resolver.NXDomain} },
			`level=WARN msg="MTA-STS policy not confirmed" id=1 domain=example.com error="MTA-STS of example.com: there is no MTA-STS record"`},
		{"record of none removed", none, func(w *world) { w.answer = resolver.Answer{Result: resolver.NXDomain} }, ""},
		{"nothing", enforce, func(w *world) {}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, "1", test.body, func(t *testing.T, w *world, c *Cache) {
				var log strings.Builder
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
					ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
						if a.Key == slog.TimeKey {
							return slog.Attr{}
						}
						return a
					},
				}))
				c.Store = &shelf{}
				c.Get(t.Context(), "example.com")
				time.Sleep(2 * day)
				w.set(func() { test.change(w) })
				for range 3 {
					c.Get(t.Context(), "example.com")
					synctest.Wait()
				}
				if got := strings.TrimSpace(log.String()); got != test.want {
					t.Errorf("%s\nwant %s", got, test.want)
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
		expect(t, c, Cached, Enforce)
		synctest.Wait()
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
		w.answer.TTL = time.Hour
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

// A look at the record while a fetch is backed off does not put the next attempt off.
func TestBackOffEndsInTime(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		w.answer.TTL = time.Minute
		w.down = errDown
		expect(t, c, FetchFailed, None)
		time.Sleep(time.Minute)
		w.set(func() { w.answer.TTL = time.Hour })
		expect(t, c, FetchFailed, None)
		expectCounts(t, w, 2, 1)
		time.Sleep(4 * time.Minute)
		expect(t, c, FetchFailed, None)
		expectCounts(t, w, 3, 2)
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
