package resolver

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// aboutTheRoot changes answers to questions about the root alone.
func aboutTheRoot(change func(m *dns.Msg)) dnstest.Option {
	return dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
		if query.Question[0].Name == "." {
			change(answer)
		}
		return [][]byte{dnstest.Pack(answer)}
	})
}

func TestServersThatNeverSetAD(t *testing.T) {
	const zone = ". SOA ns.test. h.test. 1 1 1 1 60\n*.test. A 192.0.2.1\n*.signed.test. A 192.0.2.1\n"
	for _, test := range []struct {
		name    string
		zone    string
		option  dnstest.Option
		trust   bool
		signed  int // which of the lookups is of a signed name; 0: none
		answers int
		want    bool
		probes  int
	}{
		{"never", zone, dnstest.Secure("signed.test"), true, 0, 16, true, 1},
		{"reported once", zone, dnstest.Secure("signed.test"), true, 0, 100, true, 1},
		{"too early to tell", zone, dnstest.Secure("signed.test"), true, 0, 15, false, 0},
		{"not trusted", zone, dnstest.Secure("signed.test"), false, 0, 100, false, 0},
		{"all is secure", zone, dnstest.Secure(), true, 0, 100, false, 0},
		{"nothing but the root is signed", zone, aboutTheRoot(func(m *dns.Msg) { m.AuthenticatedData = true }), true, 0, 100, false, 1},
		{"secure answers before", zone, dnstest.Secure("signed.test"), true, 3, 100, false, 0},
		{"secure answers after", zone, dnstest.Secure("signed.test"), true, 17, 100, false, 1},
		{"no root", "test" + zone, dnstest.Secure("signed.test"), true, 0, 70, false, 3},
		{"the root fails", zone, aboutTheRoot(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), true, 0, 70, false, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				s := newServer(t, test.zone, test.option)
				c := client(s)
				c.TrustAD, c.Logger = test.trust, slog.New(slog.NewTextHandler(&log, nil))
				for i := 1; i <= test.answers; i++ {
					name := fmt.Sprintf("d%d.test", i)
					if i == test.signed {
						name = "a.signed.test"
					}
					c.Lookup(t.Context(), name, TypeA)
					synctest.Wait() // for what it began
				}
				stats := c.Stats().Servers[0]
				if stats.NeverSecure != test.want {
					t.Errorf("%+v", stats)
				}
				lines := strings.Count(log.String(), "192.0.2.1:53")
				if reported := test.want || test.signed > insecureAnswers; (lines > 0) != reported || lines > 1 {
					t.Errorf("%d lines: %s", lines, log.String())
				}
				if n := s.Queries(".", "SOA"); n != test.probes {
					t.Errorf("the root was asked for %d times", n)
				}
				c.Close()
			})
		})
	}
}
