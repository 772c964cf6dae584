package resolver

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

const staleZone = `
test. 300 SOA ns.test. h.test. 1 1 1 1 300
a.test. A 192.0.2.1
a.test. MX 10 mx.test.
a.test. TXT x
a.test. TLSA 3 1 1 00
alias.test. CNAME a.test.
null.test. MX 0 .
also.null.test. MX 10 mx.test.
also.null.test. MX 20 .
a.signed.test. A 192.0.2.1
a.signed.test. MX 10 mx.test.
alias.signed.test. CNAME a.test.
`

func TestStaleAnswer(t *testing.T) {
	for name, outage := range map[string]dnstest.Option{"SERVFAIL": dnstest.ServFail(), "silence": dnstest.Silent(), "other answers": dnstest.WrongQuestion()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, staleZone)
				c := client(s)
				first := c.Lookup(t.Context(), "a.test", TypeMX)
				s.Set(outage)
				time.Sleep(first.TTL)
				asked := s.Total()

				got := c.Lookup(t.Context(), "a.test", TypeMX)
				want := first
				want.Stale, want.TTL = true, 30*time.Second
				if !reflect.DeepEqual(got, want) || s.Total() != asked+2 {
					t.Errorf("%+v after %d queries", got, s.Total()-asked)
				}

				// The servers are left alone for 30 seconds, and then asked again.
				asked = s.Total()
				time.Sleep(30*time.Second - time.Millisecond)
				want.TTL = time.Millisecond
				if got = c.Lookup(t.Context(), "a.test", TypeMX); !reflect.DeepEqual(got, want) || s.Total() != asked {
					t.Errorf("%+v after %d queries", got, s.Total()-asked)
				}
				time.Sleep(time.Millisecond)
				want.TTL = 30 * time.Second
				if got = c.Lookup(t.Context(), "a.test", TypeMX); !reflect.DeepEqual(got, want) || s.Total() != asked+2 {
					t.Errorf("%+v after %d queries", got, s.Total()-asked)
				}

				s.Reset()
				time.Sleep(30 * time.Second)
				if got = c.Lookup(t.Context(), "a.test", TypeMX); got.Stale || !reflect.DeepEqual(got, first) {
					t.Errorf("refreshed: %+v", got)
				}
			})
		})
	}
}

func TestStaleAnswerEnds(t *testing.T) {
	for _, test := range []struct{ set, keep time.Duration }{{0, 24 * time.Hour}, {time.Hour, time.Hour}, {10 * time.Second, 10 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, staleZone)
			c := client(s)
			c.MaxStale, c.FailureTTL = test.set, -1
			time.Sleep(c.Lookup(t.Context(), "a.test", TypeA).TTL)
			s.Set(dnstest.ServFail())

			time.Sleep(test.keep - 2*time.Second)
			if got := c.Lookup(t.Context(), "a.test", TypeA); !got.Stale || got.TTL != 2*time.Second {
				t.Errorf("%v: %+v", test.set, got)
			}
			time.Sleep(2 * time.Second)
			if got := c.Lookup(t.Context(), "a.test", TypeA); got.Result != TempFail || got.Stale {
				t.Errorf("%v: %+v", test.set, got)
			}
		})
	}
}

func TestNeverStale(t *testing.T) {
	for _, test := range []struct {
		name     string
		typ      Type
		maxStale time.Duration
		outage   dnstest.Option
		want     Result
	}{
		{"a.test", TypeTLSA, 0, dnstest.ServFail(), TempFail},
		{"a.signed.test", TypeA, 0, dnstest.ServFail(), TempFail},
		{"a.signed.test", TypeMX, 0, dnstest.ServFail(), TempFail},
		{"alias.signed.test", TypeCNAME, 0, dnstest.ServFail(), TempFail},
		{"null.test", TypeMX, 0, dnstest.ServFail(), TempFail},
		{"also.null.test", TypeMX, 0, dnstest.ServFail(), TempFail},
		{"a.test", TypeAAAA, 0, dnstest.ServFail(), TempFail},
		{"nx.test", TypeMX, 0, dnstest.ServFail(), TempFail},
		{"a.test", TypeA, -1, dnstest.ServFail(), TempFail},
		{"a.test", TypeA, 0, dnstest.Explain(6), Bogus},
		{"a.test", TypeA, 0, nil, Records}, // the servers answer
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, staleZone, dnstest.Secure("signed.test"))
			c := client(s)
			c.MaxStale = test.maxStale
			time.Sleep(c.Lookup(t.Context(), test.name, test.typ).TTL)
			if test.outage != nil {
				s.Set(test.outage)
			}
			if got := c.Lookup(t.Context(), test.name, test.typ); got.Stale || got.Result != test.want {
				t.Errorf("%s %v: %+v", test.name, test.typ, got)
			}
		})
	}
	// A verdict on the name, though it is no answer, ends what was known before.
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, staleZone)
		c := client(s)
		time.Sleep(c.Lookup(t.Context(), "alias.test", TypeA).TTL)
		s.SetZone("alias.test. CNAME alias.test.")
		if got := c.Lookup(t.Context(), "alias.test", TypeA); got.Stale || got.Result != TempFail {
			t.Errorf("a loop: %+v", got)
		}
	})
	// What other servers said does not stand in for these.
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, staleZone)
		c := client(s)
		time.Sleep(c.Lookup(t.Context(), "a.test", TypeA).TTL)
		c.forget()
		s.Set(dnstest.ServFail())
		if got := c.Lookup(t.Context(), "a.test", TypeA); got.Stale || got.Result != TempFail {
			t.Errorf("after a change of servers: %+v", got)
		}
	})
}

// A caller whose time ends before the servers' has the stale answer too; one who cancels has none.
func TestStaleAnswerAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, staleZone)
		c := client(s)
		time.Sleep(c.Lookup(t.Context(), "a.test", TypeA).TTL)
		s.Set(dnstest.Silent())

		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			begin := time.Now()
			if got := c.Lookup(ctx, "a.test", TypeA); !got.Stale || got.TTL != 30*time.Second || time.Since(begin) != 2*time.Second {
				t.Errorf("%+v after %v", got, time.Since(begin))
			}
			cancel()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		if got := c.Lookup(ctx, "a.test", TypeA); got.Stale || got.Result != TempFail {
			t.Errorf("cancelled: %+v", got)
		}
		// One caller's haste is not the others' answer.
		s.Reset()
		if got := c.Lookup(t.Context(), "a.test", TypeA); got.Stale || got.Result != Records {
			t.Errorf("another caller: %+v", got)
		}
	})
}
