package resolver

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func TestSilentServersAreAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newServer(t, "*.test. A 192.0.2.1", dnstest.Silent()), newServer(t, "*.test. A 192.0.2.2")
		c := client(first, second)
		n := 0
		ask := func(from string, takes time.Duration) {
			t.Helper()
			n++
			begin := time.Now()
			got := c.Lookup(t.Context(), fmt.Sprintf("d%d.test", n), TypeA)
			if got.Result != Records || got.Addrs[0].String() != from || time.Since(begin) != takes {
				t.Errorf("%+v after %v", got, time.Since(begin))
			}
		}
		ask("192.0.2.2", 5*time.Second) // the first is waited for
		ask("192.0.2.2", 0)
		time.Sleep(30 * time.Second)
		ask("192.0.2.2", 5*time.Second) // tried again in vain

		// When it is time to try again, only one caller pays for it.
		time.Sleep(30 * time.Second)
		go c.Lookup(t.Context(), "probing.test", TypeA)
		synctest.Wait()
		ask("192.0.2.2", 0)

		time.Sleep(time.Minute)
		first.Reset()
		ask("192.0.2.1", 0)
		ask("192.0.2.1", 0)

		// A refusal is a response, and about one name.
		first.Set(dnstest.ServFail("odd.test"))
		if got := c.Lookup(t.Context(), "odd.test", TypeA); got.Addrs[0].String() != "192.0.2.2" {
			t.Errorf("%+v", got)
		}
		ask("192.0.2.1", 0)

		// If all are silent, the order stays, and the first to respond is found.
		first.Set(dnstest.Silent())
		second.Set(dnstest.Silent())
		if got := c.Lookup(t.Context(), "gone.test", TypeA); got.Result != TempFail {
			t.Errorf("%+v", got)
		}
		second.Reset()
		ask("192.0.2.2", 5*time.Second)
		ask("192.0.2.2", 0)
		c.Close()
	})
}

// An end of the caller's patience is not the server's silence.
func TestCancelledIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newServer(t, "*.test. A 192.0.2.1", dnstest.Delay(3*time.Second)), newServer(t, "*.test. A 192.0.2.2")
		c := client(first, second)
		ctx, cancel := withTimeout(t, time.Second)
		defer cancel()
		c.Lookup(ctx, "a.test", TypeA)
		synctest.Wait()
		if got := c.Lookup(t.Context(), "b.test", TypeA); got.Result != Records || got.Addrs[0].String() != "192.0.2.1" {
			t.Errorf("%+v", got)
		}
	})
}
