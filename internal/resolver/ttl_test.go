package resolver

import (
	"context"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func withTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func TestFloorAndCeiling(t *testing.T) {
	const zone = `
test. 7200 SOA ns.test. h.test. 1 1 1 1 7200
brief.test. 2 A 192.0.2.1
brief.test. 2 TLSA 3 1 1 00
brief.signed.test. 2 A 192.0.2.1
brief.signed.test. 0 TXT x
long.test. 1000000 A 192.0.2.1
long.test. 1000000 TLSA 3 1 1 00
long.signed.test. 1000000 A 192.0.2.1
`
	s := newServer(t, zone, dnstest.Secure("signed.test"))
	for _, test := range []struct {
		floor, ceiling time.Duration
		name           string
		typ            Type
		want           time.Duration
	}{
		{0, 0, "brief.test", TypeA, 2 * time.Second},
		{0, 0, "long.test", TypeA, 24 * time.Hour},
		{0, 0, "nx.test", TypeA, time.Hour},
		{-1, -1, "long.test", TypeA, 24 * time.Hour},
		{time.Minute, 0, "brief.test", TypeA, time.Minute},
		{time.Minute, 0, "brief.test", TypeTLSA, 2 * time.Second},
		{time.Minute, 0, "brief.signed.test", TypeA, 2 * time.Second},
		{time.Minute, 0, "brief.signed.test", TypeTXT, time.Second},
		{time.Minute, 0, "nx.test", TypeA, time.Hour},
		{3 * time.Hour, 0, "nx.test", TypeA, time.Hour},
		{0, time.Hour, "long.test", TypeA, time.Hour},
		{0, time.Hour, "long.test", TypeTLSA, time.Hour},
		{0, 48 * time.Hour, "long.signed.test", TypeA, 48 * time.Hour},
		{0, 48 * time.Hour, "nx.test", TypeA, time.Hour},
		{0, time.Minute, "nx.test", TypeA, time.Minute},
		{time.Hour, time.Minute, "brief.test", TypeA, time.Minute},
		{time.Hour, time.Minute, "long.test", TypeA, time.Minute},
	} {
		c := client(s)
		c.MinTTL, c.MaxTTL = test.floor, test.ceiling
		if got := c.Lookup(t.Context(), test.name, test.typ); got.TTL != test.want {
			t.Errorf("%v to %v: %s %v has TTL %v, want %v", test.floor, test.ceiling, test.name, test.typ, got.TTL, test.want)
		}
	}
}
