package sessions

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const day = 24 * time.Hour

// noon is a time that a test begins with.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// greedy lets events pass from now on as fast as it can, sleeping what Pass says, and returns their times
// before the end. A wait that was not enough is an error.
func greedy(t testing.TB, p *Pace, now, end time.Time) (passed []time.Time) {
	t.Helper()
	var wait time.Duration
	for now.Before(end) {
		again := p.Pass(now)
		switch {
		case again == 0:
			passed = append(passed, now)
		case wait > 0:
			t.Fatalf("refused for %v after a wait of %v", again, wait)
		}
		wait = again
		if wait > end.Sub(now) {
			break
		}
		now = now.Add(wait)
	}
	return passed
}

// passes fails unless exactly n events pass now. It returns the wait of the next one.
func passes(t testing.TB, p *Pace, now time.Time, n int) time.Duration {
	t.Helper()
	for i := range n {
		if wait := p.Pass(now); wait != 0 {
			t.Fatalf("event %d of %d must wait %v", i+1, n, wait)
		}
	}
	wait := p.Pass(now)
	if wait <= 0 {
		t.Fatalf("more than %d events pass", n)
	}
	return wait
}

// near says whether the durations differ by what a rounding costs.
func near(a, b time.Duration) bool { return (a - b).Abs() <= 1+b.Abs()/1e8 }

func TestRateOverAnHour(t *testing.T) {
	tests := []Rate{
		{10, time.Second, 0},
		{10, time.Second, 1},
		{100, time.Minute, 0},
		{100, time.Minute, 7},
		{1000, time.Hour, 1},
		{1000, time.Hour, 0},
		{60, time.Hour, 0},
		{60, time.Hour, 1},
		{1, time.Second, 1000},
		{7, 3 * time.Minute, 1},
		{333, 10 * time.Second, 3},
	}
	for _, rate := range tests {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r Rates
				p := r.Gate(Named{"a", rate})
				n := int64(0)
				for end := time.Now().Add(time.Hour); ; {
					wait := p.Pass(time.Now())
					if wait == 0 {
						n++
					}
					if !time.Now().Add(wait).Before(end) {
						break
					}
					time.Sleep(wait)
				}
				checkHeld(t, rate, n, time.Hour)
			})
		})
	}
}

// Rates that are too fast for a sleep per event.
func TestFastRates(t *testing.T) {
	tests := []Rate{
		{5000, time.Second, 0},
		{5000, time.Second, 1},
		{999983, time.Second, 1},
		{999983, time.Second, 1000},
		{1e9, time.Second, 1},
	}
	for _, rate := range tests {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			var r Rates
			span := time.Duration(30_000 * float64(rate.Per) / float64(rate.Limit))
			passed := greedy(t, r.Gate(Named{"a", rate}), noon, noon.Add(span))
			checkHeld(t, rate, int64(len(passed)), span)
		})
	}
}

// checkHeld is narrower than 2 %: after the burst, the rate; and one for the edges of the window.
func checkHeld(t *testing.T, rate Rate, n int64, span time.Duration) {
	t.Helper()
	want := float64(rate.burst()) + float64(rate.perSecond())*span.Seconds()
	if got := float64(n); got > want+1e-6 || got < want-1.001 {
		t.Errorf("%v events in %v, want %v", n, span, want)
	}
}

func TestBurst(t *testing.T) {
	tests := []struct {
		rate Rate
		want int
	}{
		{Rate{10, time.Second, 0}, 10},
		{Rate{10, time.Second, -1}, 10},
		{Rate{10, time.Second, 1}, 1},
		{Rate{10, time.Second, 25}, 25},
		{Rate{2, day, 0}, 2},
		{Rate{1000, time.Hour, 999}, 999},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.rate), func(t *testing.T) {
			var r Rates
			p := r.Gate(Named{"a", tt.rate})
			now := noon
			interval := tt.rate.Per / time.Duration(tt.rate.Limit)
			for range 3 {
				if wait := passes(t, p, now, tt.want); !near(wait, interval) {
					t.Errorf("after the burst: wait %v, want %v", wait, interval)
				}
				now = now.Add(time.Duration(tt.want)*interval + time.Duration(tt.want)) // the intervals are rounded down
			}
			passes(t, p, now.Add(1000*day), tt.want)
		})
	}
}

func TestBurstOfOneSpacesEvenly(t *testing.T) {
	var r Rates
	passed := greedy(t, r.Gate(Named{"a", Rate{1000, time.Hour, 1}}), noon, noon.Add(time.Hour))
	for i, at := range passed {
		if want := noon.Add(time.Duration(i) * time.Hour / 1000); at.Sub(want).Abs() > 1 {
			t.Fatalf("event %d at %v, want %v", i, at.Sub(noon), want.Sub(noon))
		}
	}
}

// Who waits what he was told passes, at rates whose interval no float and no nanosecond holds.
func TestWaitIsEnough(t *testing.T) {
	tests := []Rate{
		{7, 3 * time.Hour, 1},
		{7, 3 * time.Hour, 0},
		{1, day, 0},
		{3, 365 * day, 1},
		{999983, time.Second, 1},
		{999983, day, 1},
		{1, 7, 1},
		{3e9, time.Second, 1},
		{math.MaxInt64, 1, 1},
		{math.MaxInt64, math.MaxInt64, 1},
		{1, 100 * 365 * day, 1},
	}
	for _, rate := range tests {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			var r Rates
			p := r.Gate(Named{"a", rate})
			now, refused := noon, 0
			for range 10_000 {
				wait := p.Pass(now)
				if now = now.Add(wait); wait > 0 {
					if again := p.Pass(now); again != 0 {
						t.Fatalf("refused for %v after a wait of %v", again, wait)
					}
					refused++
				}
			}
			if interval := float64(rate.Per) / float64(rate.Limit); interval >= 1 && refused == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

// A period of 292 years, which is all that a duration holds.
func TestLongestRate(t *testing.T) {
	var r Rates
	p := r.Gate(Named{"a", Rate{1, math.MaxInt64, 1}})
	if wait := passes(t, p, noon, 1); wait != math.MaxInt64 {
		t.Errorf("wait %v", wait)
	}
	if wait := p.Ahead(noon, math.MaxInt); wait != math.MaxInt64 {
		t.Errorf("Ahead is %v", wait)
	}
	if wait := p.Pass(noon.Add(-lateness)); wait != math.MaxInt64 {
		t.Errorf("wait of a late caller is %v", wait)
	}
	passes(t, p, noon.Add(math.MaxInt64), 1)
}

func TestNoRate(t *testing.T) {
	var r Rates
	tests := map[string][]Named{
		"none":       nil,
		"zero":       {{"a", Rate{}}},
		"no limit":   {{"a", Rate{0, time.Second, 5}}},
		"no period":  {{"a", Rate{5, 0, 5}}},
		"below zero": {{"a", Rate{-5, time.Second, 5}}, {"b", Rate{5, -time.Second, 5}}},
	}
	for name, names := range tests {
		t.Run(name, func(t *testing.T) {
			p := r.Gate(names...)
			if p != nil {
				t.Error("Gate is not nil")
			}
			if wait, ahead := p.Pass(noon), p.Ahead(noon, 1e6); wait != 0 || ahead != 0 {
				t.Errorf("wait %v, ahead %v", wait, ahead)
			}
		})
	}
	if p := r.Gate(Named{"a", Rate{}}, Named{"b", Rate{3, day, 0}}); p == nil {
		t.Error("one of two rates is none: Gate is nil")
	} else {
		passes(t, p, noon, 3)
	}
	if len(r.buckets) != 1 {
		t.Errorf("%d buckets, want 1", len(r.buckets))
	}
}

func TestNames(t *testing.T) {
	t.Run("one counter for the same name", func(t *testing.T) {
		var r Rates
		a := Named{"a", Rate{6, day, 0}}
		p, q := r.Gate(a), r.Gate(a)
		for range 3 {
			if p.Pass(noon)+q.Pass(noon) != 0 {
				t.Fatal("refused")
			}
		}
		passes(t, p, noon, 0)
		passes(t, q, noon, 0)
	})
	t.Run("another for another name", func(t *testing.T) {
		var r Rates
		passes(t, r.Gate(Named{"a", Rate{6, day, 0}}), noon, 6)
		passes(t, r.Gate(Named{"", Rate{6, day, 0}}), noon, 6)
	})
	t.Run("a name given twice counts once, by its last rate", func(t *testing.T) {
		var r Rates
		p := r.Gate(Named{"a", Rate{6, day, 0}}, Named{"b", Rate{100, day, 0}}, Named{"a", Rate{4, day, 0}})
		passes(t, p, noon, 4)
	})
}

func TestRatesTogether(t *testing.T) {
	second, minute := Named{"second", Rate{10, time.Second, 1}}, Named{"minute", Rate{100, time.Minute, 0}}
	for _, names := range [][]Named{{second, minute}, {minute, second}} {
		var r Rates
		passed := greedy(t, r.Gate(names...), noon, noon.Add(time.Hour))
		for _, n := range names {
			checkWindows(t, n.Rate, passed)
		}
		// The first 120 come at 10 a second: the burst of 100, and 20 that came meanwhile. Then 100 a minute.
		if got := passed[118].Sub(noon); !near(got, 11800*time.Millisecond) {
			t.Errorf("event 119 after %v", got)
		}
		checkHeld(t, minute.Rate, int64(len(passed)), time.Hour)
	}
}

// checkWindows fails if in any window of length T more than burst + T*rate events passed.
func checkWindows(t testing.TB, rate Rate, passed []time.Time) {
	t.Helper()
	perSecond := float64(rate.perSecond())
	slack := 1e-6 + perSecond/1e9
	least := math.Inf(1) // of i - rate*(time of i), over those before
	for i, at := range passed {
		now := float64(i) - perSecond*at.Sub(passed[0]).Seconds()
		least = min(least, now)
		if in := now - least + 1; in > float64(rate.burst())+slack {
			t.Fatalf("%v: event %d at %v is %v too many for a window before it",
				rate, i, at.Sub(passed[0]), in-float64(rate.burst()))
		}
	}
}

func TestRefusedCountsInNone(t *testing.T) {
	var r Rates
	few, many := Named{"few", Rate{2, day, 0}}, Named{"many", Rate{5, day, 0}}
	both := r.Gate(many, few)
	passes(t, both, noon, 2)
	for range 10 {
		if both.Pass(noon) == 0 {
			t.Fatal("passed")
		}
		both.Ahead(noon, 3)
	}
	passes(t, r.Gate(many), noon, 3)
	if wait := both.Pass(noon); !near(wait, day/2) {
		t.Errorf("wait %v, want that of the slower rate", wait)
	}
}

func TestRateChange(t *testing.T) {
	tests := []struct {
		name     string
		from, to Rate
		used     int
		left     int // events that pass after the change
		wait     time.Duration
	}{
		{"faster", Rate{6, time.Hour, 0}, Rate{3600, time.Hour, 6}, 6, 0, time.Second},
		{"slower", Rate{3600, time.Hour, 6}, Rate{6, time.Hour, 0}, 4, 2, 10 * time.Minute},
		{"smaller burst", Rate{60, time.Hour, 60}, Rate{60, time.Hour, 5}, 10, 5, time.Minute},
		{"smaller burst, nothing left", Rate{60, time.Hour, 60}, Rate{60, time.Hour, 5}, 60, 0, time.Minute},
		{"larger burst", Rate{60, time.Hour, 5}, Rate{60, time.Hour, 60}, 3, 2, time.Minute},
		{"larger burst of an unused name", Rate{60, time.Hour, 5}, Rate{60, time.Hour, 60}, 0, 60, time.Minute},
		{"the same in other words", Rate{60, time.Hour, 60}, Rate{60, time.Hour, 0}, 20, 40, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Rates
			p := r.Gate(Named{"a", tt.from})
			for range tt.used {
				if wait := p.Pass(noon); wait != 0 {
					t.Fatal(wait)
				}
			}
			r.Gate(Named{"a", tt.to}) // p has it too
			if wait := passes(t, p, noon, tt.left); !near(wait, tt.wait) {
				t.Errorf("wait %v, want %v", wait, tt.wait)
			}
			r.Gate(Named{"a", tt.from})
			passes(t, p, noon, 0) // and changing it back gives nothing
		})
	}
}

// A bucket that is full again is as good as a new one, also for a larger burst.
func TestRateChangeAfterRest(t *testing.T) {
	var r Rates
	p := r.Gate(Named{"a", Rate{60, time.Hour, 5}})
	passes(t, p, noon, 5)
	r.forget(noon) // too early, and the next sweep is far
	later := noon.Add(6 * time.Minute)
	p.Ahead(later, 1) // Rates learns how late it is
	r.Gate(Named{"a", Rate{60, time.Hour, 50}})
	passes(t, p, later, 50)
}

func TestAhead(t *testing.T) {
	tests := map[string][]Named{
		"one":           {{"a", Rate{7, time.Minute, 3}}},
		"even":          {{"a", Rate{1000, time.Hour, 1}}},
		"awkward":       {{"a", Rate{7, 3 * time.Hour, 0}}},
		"two":           {{"a", Rate{10, time.Second, 1}}, {"b", Rate{100, time.Minute, 0}}},
		"slow and fast": {{"a", Rate{1, time.Second, 10}}, {"b", Rate{3, time.Minute, 2}}, {"c", Rate{50, time.Second, 1}}},
	}
	for name, names := range tests {
		t.Run(name, func(t *testing.T) {
			var slowest time.Duration
			for _, n := range names {
				slowest = max(slowest, n.Rate.Per/time.Duration(n.Rate.Limit))
			}
			var r Rates
			p := r.Gate(names...)
			now := noon
			for _, idle := range []time.Duration{0, 1, time.Second, 3 * time.Second, time.Minute, time.Hour, day} {
				now = now.Add(idle)
				const n = 300
				if got, want := p.Ahead(now, 0), p.Ahead(now, 1); got != want {
					t.Errorf("Ahead of 0 is %v, of 1 %v", got, want)
				}
				var ahead []time.Duration
				for i := range n {
					ahead = append(ahead, p.Ahead(now, i+1))
				}
				passed := greedy(t, p, now, now.Add(ahead[n-1]+2*slowest))
				for i := range n {
					if got, want := ahead[i], passed[i].Sub(now); len(names) == 1 && !near(got, want) {
						t.Errorf("event %d comes after %v, Ahead says %v", i+1, want, got)
					} else if !near(got, want) && (got > want || got < want-slowest) {
						t.Errorf("event %d comes after %v, Ahead says %v", i+1, want, got)
					}
				}
				now = passed[n-1]
			}
		})
	}
}

// Callers that read the clock and then came late, in turn with others, gain nothing.
func TestLateCallers(t *testing.T) {
	var r Rates
	rate := Rate{1000, time.Second, 1}
	p := r.Gate(Named{"a", rate})
	var passed []time.Time
	for now := noon; now.Before(noon.Add(time.Second)); now = now.Add(100 * time.Microsecond) {
		for _, at := range []time.Time{now, now.Add(-time.Millisecond), now.Add(-lateness)} {
			if p.Pass(at) == 0 {
				passed = append(passed, now)
			}
		}
	}
	checkWindows(t, rate, passed)
	checkHeld(t, rate, int64(len(passed)), time.Second)
	if wait := p.Pass(noon); wait <= 0 || p.Pass(noon.Add(wait)) != 0 {
		t.Errorf("a wait of %v was not enough for a late caller", wait)
	}
}

func TestClockSetBack(t *testing.T) {
	for _, back := range []time.Duration{2 * time.Second, time.Hour, 50 * 365 * day} {
		var r Rates
		p := r.Gate(Named{"a", Rate{6, time.Minute, 0}})
		passes(t, p, noon, 6)
		p.Ahead(noon.Add(25*time.Second), 1)
		now := noon.Add(25*time.Second - back)
		if wait := passes(t, p, now, 2); !near(wait, 5*time.Second) {
			t.Errorf("set back by %v: wait %v", back, wait)
		}
		greedy(t, p, now, now.Add(time.Hour))
		passes(t, p, now.Add(2*time.Hour), 6)
	}
}

func TestConcurrentPasses(t *testing.T) {
	const (
		callers, calls = 8, 2000
		step           = 10 * time.Microsecond // all calls together take less than the lateness
	)
	var r Rates
	rate := Rate{5000, time.Second, 10}
	var clock, passed atomic.Int64
	var running sync.WaitGroup
	for i := range callers {
		running.Go(func() {
			own := Named{fmt.Sprint("own ", i), Rate{calls, time.Second, 0}}
			p := r.Gate(Named{"all", rate}, own)
			for n := range calls {
				now := noon.Add(time.Duration(clock.Add(int64(step))))
				if p.Pass(now) == 0 {
					passed.Add(1)
				}
				p.Ahead(now, n)
				switch n % 100 {
				case 0:
					p = r.Gate(Named{"all", rate}, own)
				case 50:
					r.forget(now)
				}
			}
		})
	}
	running.Wait()
	checkHeld(t, rate, passed.Load(), callers*calls*step)
}

func TestPassDoesNotAllocate(t *testing.T) {
	var r Rates
	p := paceOf(&r, 3, fast)
	if n := testing.AllocsPerRun(1000, func() {
		if p.Pass(noon) != 0 {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
