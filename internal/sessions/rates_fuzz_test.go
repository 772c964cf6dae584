package sessions

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// ledger is a rate in whole numbers, to compare with: the debt in events times Rate.Per.
type ledger struct {
	Rate
	debt   big.Int
	latest time.Time
}

// advance pays off what the time since the last call brings.
func (l *ledger) advance(now time.Time) {
	if !now.After(l.latest) {
		return
	}
	paid := big.NewInt(int64(now.Sub(l.latest)))
	l.debt.Sub(&l.debt, paid.Mul(paid, big.NewInt(l.Limit)))
	if l.debt.Sign() < 0 {
		l.debt.SetInt64(0)
	}
	l.latest = now
}

// wait is how long it takes until n events fit, in nanoseconds.
func (l *ledger) wait(n int) float64 {
	room := big.NewInt(int64(l.burst()) - int64(n))
	over := new(big.Int).Sub(&l.debt, room.Mul(room, big.NewInt(int64(l.Per))))
	if over.Sign() <= 0 {
		return 0
	}
	wait, _ := new(big.Rat).SetFrac(over, big.NewInt(l.Limit)).Float64()
	return wait
}

func (l *ledger) count() { l.debt.Add(&l.debt, big.NewInt(int64(l.Per))) }

// compared is a pace beside the ledgers of its rates.
type compared struct {
	testing.TB
	*Pace
	ledgers []*ledger
	now     time.Time
}

// wait is what the ledgers say, and how far a pace may be from it.
func (c *compared) wait() (wait, off float64) {
	for _, l := range c.ledgers {
		l.advance(c.now)
		wait = max(wait, l.wait(1))
		off = max(off, 2+2e-9*float64(l.Per)/float64(l.Limit))
	}
	return wait, off
}

// pass asks for one event, called up to a second too late, and returns the wait from c.now.
func (c *compared) pass(late time.Duration) time.Duration {
	c.Helper()
	want, off := c.wait()
	got := c.Pass(c.now.Add(-late))
	switch {
	case got < 0:
		c.Fatalf("wait %v", got)
	case got == 0:
		if want > off {
			c.Fatalf("passed %v ns too early", want)
		}
		for _, l := range c.ledgers {
			l.count()
		}
		return 0
	}
	got -= late
	if math.Abs(float64(got)-want) > off+want/1e12 {
		c.Fatalf("wait %v, want %v ns", got, want)
	}
	return got
}

// FuzzRates compares a pace of two rates with whole numbers: at all times as many events pass, a caller
// that waited what he was told is served, and neither Ahead, sweeps nor late callers change anything.
func FuzzRates(f *testing.F) {
	f.Add(uint64(1), int64(7), int64(3*time.Hour), int64(1), int64(1), int64(day), int64(3))
	f.Add(uint64(2), int64(10), int64(time.Second), int64(1), int64(100), int64(time.Minute), int64(0))
	f.Add(uint64(3), int64(999983), int64(time.Second), int64(1), int64(0), int64(0), int64(0))
	f.Add(uint64(4), int64(1), int64(100*365*day), int64(2), int64(1), int64(time.Second), int64(50))
	f.Add(uint64(5), int64(1), int64(1), int64(1), int64(3), int64(7), int64(2))
	f.Fuzz(func(t *testing.T, seed uint64, limit1, per1, burst1, limit2, per2, burst2 int64) {
		var names []Named
		c := &compared{TB: t, now: noon}
		for i, rate := range []Rate{{limit1, time.Duration(per1), burst1}, {limit2, time.Duration(per2), burst2}} {
			if rate.none() || rate.Limit > 1e9 || rate.Per > 100*365*day || rate.Burst > 1e4 || rate.burst() > 1e9 ||
				rate.Limit > int64(rate.Per) {
				continue // less than a nanosecond for an event: nothing that a timer could hold
			}
			names = append(names, Named{fmt.Sprint(i), rate})
			c.ledgers = append(c.ledgers, &ledger{Rate: rate, latest: noon})
		}
		var r Rates
		c.Pace = r.Gate(names...)
		if (c.Pace == nil) != (len(names) == 0) {
			t.Fatalf("Gate(%v) = %v", names, c.Pace)
		} else if c.Pace == nil {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		interval := float64(names[0].Rate.Per) / float64(names[0].Rate.Limit)
		for range 300 {
			switch rng.IntN(10) {
			case 0:
				r.forget(c.now)
			case 1:
				c.Pace = r.Gate(names...)
			case 2:
				c.Ahead(c.now, rng.IntN(100))
			case 3: // rest, for a part of an interval or for many
				c.now = c.now.Add(time.Duration(min(interval*math.Exp(rng.Float64()*10-5), float64(day*1000))))
			case 4:
				c.Ahead(c.now, 1) // now all buckets have seen this time
				c.pass(time.Duration(rng.Int64N(int64(lateness))))
			default:
				if wait := c.pass(0); wait > 0 {
					c.now = c.now.Add(wait)
					if again := c.pass(0); again > 0 {
						t.Fatalf("refused for %v after a wait of %v", again, wait)
					}
				}
			}
		}
	})
}
