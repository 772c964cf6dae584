package sessions

import (
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// sweepEvery is how long buckets that are full again may take up memory although no new ones come.
	sweepEvery = 10 * time.Minute
	// sweepFrom is how many buckets are worth a sweep before sweepEvery is over.
	sweepFrom = 1024
	// lateness is how far the times of two callers may be apart because one of them was held up after he
	// had read the clock. What is further back is a clock that was set back.
	lateness = time.Second
	// maxBurst is the largest number of tokens that a float64 counts one by one.
	maxBurst = 1 << 53
)

// Rate is a number of events in a period. A rate whose Limit or Per is not positive is none: it lets
// everything through.
type Rate struct {
	// Limit is the number of events in the period.
	Limit int64
	// Per is the period.
	Per time.Duration
	// Burst is how many events may happen at once after a period of rest; 0 means Limit, 1 spaces evenly.
	// In a window of any length T no more than Burst + T*Limit/Per events pass.
	Burst int64
}

func (r Rate) none() bool { return r.Limit <= 0 || r.Per <= 0 }

func (r Rate) perSecond() rate.Limit { return rate.Limit(float64(r.Limit) / r.Per.Seconds()) }

func (r Rate) burst() int {
	burst := r.Burst
	if burst <= 0 {
		burst = r.Limit
	}
	return int(min(burst, maxBurst, math.MaxInt))
}

// Named is a rate under the name by which it is counted.
type Named struct {
	Name string
	Rate Rate
}

// Rates counts events under names. The zero value is ready. It is safe for concurrent use.
//
// Each name has a token bucket. A bucket that is full is as good as a new one, so it is forgotten at the
// next sweep, and a [Pace] that still holds it puts it back when it needs it: names that are not used
// cost no memory in the end. Rates does not look at the clock and starts no goroutine; it takes the time
// from the calls of its paces.
type Rates struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	now     time.Time // of the latest call
	asked   uint64    // calls of Gate
	swept   time.Time
	sweepAt int // number of buckets
}

// Gate returns what paces events under all of these rates together. Rates that are none are left out. If
// no rate is left it returns nil, and the methods of a nil *Pace let everything through, so that the
// result may be assigned to an interface without a look at it.
//
// A name that was asked for before with another rate has the new one from now on, for all its paces; of
// what was counted, no more is kept than leaves it empty. A name that is given twice counts once, by its
// last rate.
func (r *Rates) Gate(names ...Named) *Pace {
	if !slices.ContainsFunc(names, func(n Named) bool { return !n.Rate.none() }) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep()
	r.asked++
	p := &Pace{rates: r, buckets: make([]*bucket, 0, len(names))}
	for _, n := range names {
		if n.Rate.none() {
			continue
		}
		if b := r.ask(n); !slices.Contains(p.buckets, b) {
			p.buckets = append(p.buckets, b)
		}
	}
	return p
}

// ask returns the bucket of the name, with this rate.
func (r *Rates) ask(n Named) *bucket {
	b := r.buckets[n.Name]
	if b == nil {
		if r.buckets == nil {
			r.buckets = make(map[string]*bucket)
		}
		b = newBucket(n)
		r.buckets[n.Name] = b
	}
	b.change(n.Rate, r.now)
	b.asked = r.asked
	return b
}

// current returns the bucket that counts for the name of b: b itself, unless it was forgotten and its name
// has another one since. Then the rate that was asked for last holds.
func (r *Rates) current(b *bucket) *bucket {
	if !b.forgotten {
		return b
	}
	other := r.buckets[b.name]
	if other == nil {
		b.forgotten = false
		r.buckets[b.name] = b
		return b
	}
	if b.asked > other.asked {
		other.change(b.rate, r.now)
		other.asked = b.asked
	}
	return other
}

// sweep forgets the buckets that are full, if there are twice as many as the last sweep left, or if that
// was long ago.
func (r *Rates) sweep() {
	if len(r.buckets) < max(r.sweepAt, sweepFrom) && r.now.Sub(r.swept).Abs() < sweepEvery {
		return
	}
	kept := make(map[string]*bucket) // a map from which entries are deleted does not shrink
	for name, b := range r.buckets {
		if b.forgotten = b.full(r.now); !b.forgotten {
			kept[name] = b
		}
	}
	r.buckets, r.sweepAt, r.swept = kept, 2*len(kept), r.now
}

// Pace lets events through as fast as each of its rates does. It may be kept for any time. It is safe for
// concurrent use. A nil *Pace lets everything through.
type Pace struct {
	rates   *Rates
	buckets []*bucket // owned by rates.mu, as all below them
}

// Pass lets one event through and counts it under each of the names, or it returns how long to wait and
// counts nothing. Who asks again after that time is let through, unless another was faster. The times of
// concurrent calls need not be in order, and now may come from a clock that was set back.
func (p *Pace) Pass(now time.Time) (wait time.Duration) {
	if p == nil {
		return 0
	}
	p.rates.mu.Lock()
	defer p.rates.mu.Unlock()
	if wait := p.wait(now, 1); wait > 0 {
		return wait
	}
	for _, b := range p.buckets {
		b.take()
	}
	return 0
}

// Ahead returns how long it takes until the n-th event from now can pass, if all of them come as soon as
// they can and no others do; an n below 1 counts as 1. It is exact for one rate. For several it may be
// too short, by less than one interval of the slowest: a bucket that is full gains nothing while another
// holds back the first event.
func (p *Pace) Ahead(now time.Time, n int) time.Duration {
	if p == nil {
		return 0
	}
	p.rates.mu.Lock()
	defer p.rates.mu.Unlock()
	return p.wait(now, max(n, 1))
}

// wait returns how long it takes until every bucket has had n tokens to give.
func (p *Pace) wait(now time.Time, n int) (longest time.Duration) {
	p.rates.now = now
	for i, b := range p.buckets {
		b = p.rates.current(b)
		p.buckets[i] = b
		longest = max(longest, b.wait(now, n))
	}
	return longest
}

// bucket counts the events of one name. Rates.mu guards it.
type bucket struct {
	name      string
	rate      Rate
	limiter   *rate.Limiter
	latest    time.Time // no call that counts here is before it
	asked     uint64    // the call of Gate that last named it
	forgotten bool      // not in the map; full
}

func newBucket(n Named) *bucket {
	return &bucket{name: n.Name, rate: n.Rate, limiter: rate.NewLimiter(n.Rate.perSecond(), n.Rate.burst())}
}

// change gives the bucket another rate. It keeps its tokens, as far as the new burst goes; a full one is
// full again.
func (b *bucket) change(to Rate, now time.Time) {
	if b.rate == to {
		return
	}
	b.rate = to
	b.turn(now)
	if b.full(b.latest) {
		b.limiter = rate.NewLimiter(to.perSecond(), to.burst())
		return
	}
	b.limiter.SetLimitAt(b.latest, to.perSecond())
	b.limiter.SetBurstAt(b.latest, to.burst())
}

func (b *bucket) full(now time.Time) bool {
	return b.limiter.TokensAt(now) >= float64(b.limiter.Burst())
}

// turn brings b.latest up to now. The limiter would take a time before its last event as its new last
// one, and credit what is between the two once more: so a caller who comes a little late is served as if
// he came now.
func (b *bucket) turn(now time.Time) {
	switch early := b.latest.Sub(now); {
	case early <= 0:
		b.latest = now
	case early > lateness:
		b.setBack(now)
	}
}

// setBack goes on from a clock that was set back. What the bucket has got until now it keeps: else it
// would get nothing until the clock is again where it was.
func (b *bucket) setBack(now time.Time) {
	limit := b.limiter.Limit()
	b.limiter.SetLimitAt(b.latest, limit)
	b.limiter.SetLimitAt(now, limit)
	b.latest = now
}

// wait returns how long it takes until the bucket has had n tokens to give.
func (b *bucket) wait(now time.Time, n int) time.Duration {
	b.turn(now)
	perSecond := float64(b.limiter.Limit())
	missing := float64(n) - b.limiter.TokensAt(b.latest)
	// A wait is cut to whole nanoseconds, and the arithmetic may lose a little on the way, less than a
	// billionth of a token. So much may be missing from one who has waited. It stays as a debt, so that
	// nothing adds up.
	if missing <= (1+perSecond)/1e9 {
		return 0
	}
	wait := math.Floor(missing/perSecond*1e9) + float64(b.latest.Sub(now))
	if wait >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(wait)
}

// take takes one token; its owner has seen that there is nothing to wait for.
func (b *bucket) take() { b.limiter.ReserveN(b.latest, 1) }
