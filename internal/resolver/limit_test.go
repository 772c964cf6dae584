package resolver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// gauge counts how many queries are out at once.
type gauge struct {
	mu        sync.Mutex
	now, most int
	order     []string
}

func (g *gauge) option() dnstest.Option {
	return dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
		g.mu.Lock()
		g.now++
		g.most = max(g.most, g.now)
		g.order = append(g.order, query.Question[0].Name)
		g.mu.Unlock()
		time.Sleep(time.Second)
		g.mu.Lock()
		g.now--
		g.mu.Unlock()
		return [][]byte{dnstest.Pack(answer)}
	})
}

func TestQueriesAtOnce(t *testing.T) {
	for _, test := range []struct{ set, want int }{{0, 128}, {1, 1}, {7, 7}, {-1, 300}} {
		synctest.Test(t, func(t *testing.T) {
			var g gauge
			c := client(newServer(t, "*.test. A 192.0.2.1", g.option()))
			c.MaxQueries, c.TrustAD = test.set, false
			begin := time.Now()
			var callers sync.WaitGroup
			for i := range 300 {
				callers.Go(func() {
					if got := c.Lookup(t.Context(), fmt.Sprintf("d%d.test", i), TypeA); got.Result != Records {
						t.Errorf("%+v", got)
					}
				})
			}
			callers.Wait()
			rounds := (300 + test.want - 1) / test.want
			if g.most != test.want || time.Since(begin) != time.Duration(rounds)*time.Second {
				t.Errorf("limit %d: %d at once, for %v", test.set, g.most, time.Since(begin))
			}
		})
	}
}

func TestTurnsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		c := client(newServer(t, "*.test. A 192.0.2.1", g.option()))
		c.MaxQueries = 1
		var callers sync.WaitGroup
		var want []string
		impatient, cancel := context.WithCancel(t.Context())
		for i := range 9 {
			ctx := t.Context()
			if i%4 == 3 {
				ctx = impatient
			} else {
				want = append(want, fmt.Sprintf("d%d.test.", i))
			}
			callers.Go(func() {
				got := c.Lookup(ctx, fmt.Sprintf("d%d.test", i), TypeA)
				if (ctx == impatient) != errors.Is(got.Err, context.Canceled) || (ctx == impatient) != (got.Result == TempFail) {
					t.Errorf("%d: %+v", i, got)
				}
			})
			synctest.Wait()
		}
		if n := c.turns.waiting(); n != 8 {
			t.Errorf("%d wait", n)
		}
		cancel()
		synctest.Wait()
		if n := c.turns.waiting(); n != 6 {
			t.Errorf("%d wait when two have left", n)
		}
		callers.Wait()
		if !slices.Equal(g.order, want) {
			t.Errorf("asked for %v", g.order)
		}
		if c.turns.taken != 0 {
			t.Errorf("%d turns are taken for ever", c.turns.taken)
		}
	})
}

func TestCloseEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(newServer(t, "", dnstest.Silent()))
		c.MaxQueries = 1
		var callers sync.WaitGroup
		for i := range 5 {
			callers.Go(func() {
				if got := c.Lookup(t.Context(), fmt.Sprintf("d%d.test", i), TypeA); !errors.Is(got.Err, ErrClosed) {
					t.Errorf("%+v", got)
				}
			})
		}
		synctest.Wait()
		c.Close()
		callers.Wait()
		if c.turns.taken != 0 || c.turns.waiting() != 0 {
			t.Errorf("%d taken, %d wait", c.turns.taken, c.turns.waiting())
		}
	})
}

// Turns are neither lost nor doubled where they come just as somebody leaves.
func TestTurnsAreKept(t *testing.T) {
	var ts turns
	var users sync.WaitGroup
	var mu sync.Mutex
	now := 0
	for i := range 50 {
		users.Go(func() {
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%2 == 0 {
					go cancel()
				}
				if ts.take(ctx, 3) == nil {
					mu.Lock()
					if now++; now > 3 {
						t.Errorf("%d at once", now)
					}
					mu.Unlock()
					mu.Lock()
					now--
					mu.Unlock()
					ts.give()
				}
				cancel()
			}
		})
	}
	users.Wait()
	if ts.taken != 0 || ts.waiting() != 0 {
		t.Errorf("%d taken, %d wait", ts.taken, ts.waiting())
	}
}
