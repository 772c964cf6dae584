package resolver

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newServer(t, staleZone, dnstest.ServFail())
		second := newServer(t, staleZone, dnstest.Secure("signed.test"), dnstest.Delay(time.Second))
		c := client(first, second)
		c.MaxQueries = 1
		if got := c.Stats(); !reflect.DeepEqual(got, Stats{}) {
			t.Errorf("unused: %+v", got)
		}
		for range 3 {
			c.Lookup(t.Context(), "a.test", TypeA)
		}
		c.Lookup(t.Context(), "a.signed.test", TypeA)
		c.Lookup(t.Context(), "nx.test", TypeA)
		go c.Lookup(t.Context(), "under.way.test", TypeA)
		go c.Lookup(t.Context(), "waits.test", TypeA)
		synctest.Wait()
		want := Stats{Cached: 2, Asked: 5, Entries: 3, UnderWay: 2, Waiting: 1, Servers: []ServerStats{
			{Server: "192.0.2.1:53", Failures: 4}, {Server: "192.0.2.2:53", Answers: 3, Secure: 1}}}
		if got := c.Stats(); !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v, want\n%+v", got, want)
		}

		time.Sleep(time.Hour)
		second.Reset(dnstest.ServFail())
		c.Lookup(t.Context(), "a.test", TypeA)
		c.Lookup(t.Context(), "a.signed.test", TypeA)
		if got := c.Stats(); got.Asked != 7 || got.Failed != 2 || got.Stale != 1 || got.Waiting != 0 {
			t.Errorf("%+v", got)
		}
		c.Close()
	})
}
