package resolver

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// What a negative answer says and how long it holds, directly and at the end of CNAMEs (RFC 2308).
func TestNegativeAnswers(t *testing.T) {
	const records = "a%[1]s.test. A 192.0.2.1\nalias%[1]s.test. 40 CNAME a%[1]s.test.\nlost%[1]s.test. 40 CNAME nx%[1]s.test.\n" +
		"far%[1]s.test. 4000 CNAME lost%[1]s.test.\n"
	soa := func(ttl, minimum int) string {
		return fmt.Sprintf("test. %d SOA ns.test. h.test. 1 1 1 1 %d\n", ttl, minimum)
	}
	for _, test := range []struct {
		name, soa string
		links     int
		want      Result
		last      string
		ttl       time.Duration
	}{
		{"a.test", soa(600, 120), 0, NoData, "a.test", 2 * time.Minute},
		{"a.test", soa(90, 120), 0, NoData, "a.test", 90 * time.Second},
		{"a.test", soa(90000, 90000), 0, NoData, "a.test", time.Hour},
		{"a.test", soa(0, 120), 0, NoData, "a.test", time.Second},
		{"a.test", soa(120, 0), 0, NoData, "a.test", time.Second},
		{"a.test", "", 0, NoData, "a.test", time.Minute},
		{"a.test", "other.test. SOA ns.test. h.test. 1 1 1 1 10\n", 0, NoData, "a.test", time.Minute},
		{"nx.test", soa(600, 120), 0, NXDomain, "nx.test", 2 * time.Minute},
		{"nx.test", "", 0, NXDomain, "nx.test", time.Minute},
		{"alias.test", soa(600, 120), 0, NoData, "a.test", 40 * time.Second},
		{"alias.test", soa(600, 30), 0, NoData, "a.test", 30 * time.Second},
		{"alias.test", soa(600, 120), 1, NoData, "a.test", 40 * time.Second},
		{"lost.test", soa(600, 120), 0, NXDomain, "nx.test", 40 * time.Second},
		{"lost.test", soa(600, 120), 1, NXDomain, "nx.test", 40 * time.Second},
		{"far.test", soa(600, 20), 0, NXDomain, "nx.test", 20 * time.Second},
		{"far.test", soa(600, 20), 1, NXDomain, "nx.test", 20 * time.Second},
		{"far.test", "", 0, NXDomain, "nx.test", 40 * time.Second},
	} {
		s := newServer(t, fmt.Sprintf(records, "")+test.soa, dnstest.Links(test.links))
		got := client(s).Lookup(t.Context(), test.name, TypeMX)
		if got.Result != test.want || got.Name != test.last || got.TTL != test.ttl || got.Err != nil {
			t.Errorf("%s with %q, %d links: %+v", test.name, test.soa, test.links, got)
		}
	}
}

func TestBogusCodes(t *testing.T) {
	bogus := map[uint16]bool{6: true, 7: true, 8: true, 9: true, 10: true, 11: true, 12: true, 25: true, 27: true}
	for code := range uint16(31) {
		want := TempFail
		if bogus[code] {
			want = Bogus
		}
		s := newServer(t, "a.test. A 192.0.2.1", dnstest.Explain(code))
		if got := client(s).Lookup(t.Context(), "a.test", TypeA); got.Result != want || got.Err == nil {
			t.Errorf("code %d: %+v", code, got)
		}
	}
	// Among several reasons, in either order, and where the response is no failure.
	for _, options := range [][]dnstest.Option{
		{dnstest.Explain(22), dnstest.Explain(9)}, {dnstest.Explain(9), dnstest.Explain(22)},
	} {
		got := client(newServer(t, "a.test. A 192.0.2.1", options...)).Lookup(t.Context(), "a.test", TypeA)
		if got.Result != Bogus {
			t.Errorf("two reasons: %+v", got)
		}
	}
	got := client(newServer(t, "a.test. A 192.0.2.1", dnstest.Fail(dns.RcodeRefused), dnstest.Explain(6))).Lookup(t.Context(), "a.test", TypeA)
	if got.Result != TempFail {
		t.Errorf("REFUSED with a reason: %+v", got)
	}
}

func TestFailuresAreKept(t *testing.T) {
	for _, test := range []struct{ set, keep time.Duration }{
		{0, 5 * time.Second}, {time.Minute, time.Minute}, {time.Hour, 5 * time.Minute}, {time.Millisecond, time.Second}, {-1, 0},
	} {
		for _, option := range []dnstest.Option{dnstest.ServFail(), dnstest.Explain(6), dnstest.Silent()} {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, "a.test. A 192.0.2.1", option)
				c := client(s)
				c.FailureTTL, c.Attempts = test.set, 1
				first := c.Lookup(t.Context(), "a.test", TypeA)
				if first.Err == nil || first.TTL != test.keep {
					t.Fatalf("%+v", first)
				}
				if test.keep == 0 {
					if c.Lookup(t.Context(), "a.test", TypeA); s.Total() != 2 {
						t.Errorf("%d queries", s.Total())
					}
					return
				}
				s.Reset()
				time.Sleep(test.keep - time.Millisecond)
				again := c.Lookup(t.Context(), "a.test", TypeA)
				if again.Result != first.Result || again.Err != first.Err || again.TTL != time.Millisecond || s.Total() != 1 {
					t.Errorf("just before its end: %+v after %d queries", again, s.Total())
				}
				time.Sleep(time.Millisecond)
				if again = c.Lookup(t.Context(), "a.test", TypeA); again.Result != Records || s.Total() != 2 {
					t.Errorf("at its end: %+v after %d queries", again, s.Total())
				}
			})
		}
	}
}

// What no server is to blame for is not kept: an end of the callers' patience, or a file.
func TestOwnFailuresAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "a.test. A 192.0.2.1", dnstest.Silent())
		c := client(s)
		ctx, cancel := withTimeout(t, time.Second)
		defer cancel()
		if got := c.Lookup(ctx, "a.test", TypeA); got.Result != TempFail || got.TTL != 0 {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		s.Reset()
		if got := c.Lookup(t.Context(), "a.test", TypeA); got.Result != Records {
			t.Errorf("%+v", got)
		}
	})
	c := Client{ConfigFile: t.TempDir()}
	if got := c.Lookup(t.Context(), "a.test", TypeA); got.Result != TempFail || got.TTL != 0 || got.Err == nil {
		t.Errorf("%+v", got)
	}
	if n := len(c.cache.entries); n != 0 {
		t.Errorf("%d entries", n)
	}
	var e *Error
	if got := c.Lookup(t.Context(), "a.test", TypeA); !errors.As(got.Err, &e) || e.Server != "" {
		t.Errorf("%+v", got)
	}
}
