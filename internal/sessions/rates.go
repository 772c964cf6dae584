package sessions

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a number of events in a period.
type Rate struct {
	Limit int64
	Per   time.Duration
	Burst int64 // how many may pass at once; 0: Limit
}

func (r Rate) limit() rate.Limit { return rate.Limit(float64(r.Limit) / r.Per.Seconds()) }
func (r Rate) burst() int        { return int(min(cmp.Or(r.Burst, r.Limit), math.MaxInt)) }

// Named is a rate with the name under which its events are counted.
type Named struct {
	Name string
	Rate Rate
}

// Rates counts events under names. The zero value is ready for use, by many goroutines. What was counted
// under a name is forgotten once it no longer matters.
type Rates struct {
	mu       sync.Mutex
	counters map[string]*counter
	next     int // how many counters are looked through
}

// counter is a token bucket, which is what the generic cell rate algorithm is seen from the other side.
type counter struct {
	rate    Rate
	limiter *rate.Limiter
	gone    bool // forgotten: whoever holds it asks for the name again
}

// fewCounters are not worth looking through.
const fewCounters = 64

// Pace lets events pass that count under one or several rates. It is a [Gate], for any number of groups.
type Pace struct {
	rates *Rates
	named []Named // the slowest first
	held  []*counter
}

// Gate returns what paces events under all of the rates together: an event passes when each lets it, and
// then counts in each; else it counts in none. A name that is asked for with another rate than before goes
// on at the new one. Without rates everything passes.
func (r *Rates) Gate(named ...Named) *Pace {
	named = slices.Clone(named)
	slices.SortStableFunc(named, func(a, b Named) int { return cmp.Compare(a.Rate.limit(), b.Rate.limit()) })
	p := &Pace{rates: r, named: named, held: make([]*counter, len(named))}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for i := range named {
		c := r.counter(named[i], now)
		if c.rate != named[i].Rate {
			c.rate = named[i].Rate
			c.limiter.SetLimitAt(now, c.rate.limit())
			c.limiter.SetBurstAt(now, c.rate.burst())
		}
		p.held[i] = c
	}
	return p
}

// counter returns the counter of a name, a new one if there is none. The lock is held.
func (r *Rates) counter(named Named, now time.Time) *counter {
	if c := r.counters[named.Name]; c != nil {
		return c
	}
	r.sweep(now)
	if r.counters == nil {
		r.counters = map[string]*counter{}
	}
	c := &counter{rate: named.Rate, limiter: rate.NewLimiter(named.Rate.limit(), named.Rate.burst())}
	r.counters[named.Name] = c
	return c
}

// sweep forgets the counters that are as good as new. The lock is held.
func (r *Rates) sweep(now time.Time) {
	if len(r.counters) < max(r.next, fewCounters) {
		return
	}
	for name, c := range r.counters {
		if c.limiter.TokensAt(now) >= float64(c.limiter.Burst()) {
			c.gone = true
			delete(r.counters, name)
		}
	}
	r.next = 2 * len(r.counters)
}

// hold finds again what was forgotten meanwhile. The lock is held.
func (p *Pace) hold(now time.Time) {
	for i, c := range p.held {
		if c.gone {
			p.held[i] = p.rates.counter(p.named[i], now)
		}
	}
}

// Pass counts one event and returns 0, or counts nothing and returns after how long to ask again.
func (p *Pace) Pass(now time.Time) time.Duration {
	p.rates.mu.Lock()
	defer p.rates.mu.Unlock()
	p.hold(now)
	for _, c := range p.held {
		if wait := c.wait(now, 1); wait > 0 {
			return wait
		}
	}
	for _, c := range p.held {
		c.limiter.ReserveN(now, 1) // which also takes what lacks a millionth
	}
	return 0
}

// Ahead estimates how long the n-th event from now has to wait.
func (p *Pace) Ahead(now time.Time, n int) time.Duration {
	p.rates.mu.Lock()
	defer p.rates.mu.Unlock()
	p.hold(now)
	var longest time.Duration
	for _, c := range p.held {
		longest = max(longest, c.wait(now, n))
	}
	return longest
}

// wait is how long the n-th event from now has to wait for one rate, in whole nanoseconds, rounded up: who
// waits that long passes.
func (c *counter) wait(now time.Time, n int) time.Duration {
	missing := float64(n) - c.limiter.TokensAt(now)
	// A bucket that has been waited for lacks some millionths by rounding.
	if missing <= 1e-6 {
		return 0
	}
	seconds := missing / float64(c.limiter.Limit())
	if seconds > (100 * 365 * 24 * time.Hour).Seconds() {
		return 100 * 365 * 24 * time.Hour
	}
	return time.Duration(seconds*float64(time.Second)) + 1
}
