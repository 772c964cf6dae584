package sessions

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

func TestARateIsHeldOverAnHour(t *testing.T) {
	for _, r := range []Rate{
		{Limit: 10, Per: time.Second}, {Limit: 100, Per: time.Minute}, {Limit: 1000, Per: time.Hour, Burst: 1}, {Limit: 60, Per: time.Hour},
		{Limit: 500, Per: time.Second}, {Limit: 7, Per: 3 * time.Hour, Burst: 2}, {Limit: 1, Per: 24 * time.Hour}, {Limit: 20, Per: 30 * time.Minute, Burst: 3},
		{Limit: 999_983, Per: time.Hour, Burst: 17},
	} {
		t.Run(fmt.Sprint(r), func(t *testing.T) {
			var rates Rates
			p := rates.Gate(Named{"n", r})
			start := time.Now()
			now, end := start, start.Add(time.Hour)
			passed, atOnce, asked := 0, 0, 0
			for now.Before(end) {
				wait := p.Pass(now)
				if asked++; wait > 0 {
					if now = now.Add(wait); now.Before(end) && p.Pass(now) != 0 {
						t.Fatalf("who has waited for %v does not pass", wait)
					}
				}
				if now.Before(end) {
					passed++
				}
				if now.Equal(start) {
					atOnce++
				}
			}
			burst := r.Limit
			if r.Burst > 0 {
				burst = r.Burst
			}
			want := float64(burst) + float64(r.Limit)*time.Hour.Seconds()/r.Per.Seconds()
			if math.Abs(float64(passed)-want) > max(1, want/50) {
				t.Errorf("%d passed in an hour, want %.0f", passed, want)
			}
			if atOnce != int(burst) {
				t.Errorf("%d passed at once, want %d", atOnce, burst)
			}
			if asked > passed+1 {
				t.Errorf("asked %d times for %d events: it was told to come too early", asked, passed)
			}
		})
	}
}

func TestABurstOfOneIsEven(t *testing.T) {
	var rates Rates
	p := rates.Gate(Named{"n", Rate{Limit: 4, Per: time.Second, Burst: 1}})
	now := time.Now()
	p.Pass(now)
	for range 10 {
		wait := p.Pass(now)
		if d := wait - 250*time.Millisecond; d < 0 || d > time.Microsecond {
			t.Fatalf("the next one passes after %v", wait)
		}
		now = now.Add(wait)
		p.Pass(now)
	}
	now = now.Add(time.Hour)
	if p.Pass(now) != 0 || p.Pass(now) == 0 {
		t.Error("after a pause more than one passes at once, or none")
	}
}

func TestWhatOneRateRefusesCountsInNone(t *testing.T) {
	var rates Rates
	now := time.Now()
	few, many := Named{"few", Rate{Limit: 1, Per: time.Hour}}, Named{"many", Rate{Limit: 10, Per: time.Hour}}
	both, alone := rates.Gate(many, few), rates.Gate(many)
	if both.Pass(now) != 0 || both.Pass(now) == 0 || both.Pass(now) == 0 {
		t.Fatal("both rates are not held together")
	}
	passed := 0
	for alone.Pass(now) == 0 {
		passed++
	}
	if passed != 9 {
		t.Errorf("%d pass the other rate, want 9", passed)
	}
}

func TestNoRates(t *testing.T) {
	p := new(Rates).Gate()
	for range 1000 {
		if p.Pass(time.Now()) != 0 || p.Ahead(time.Now(), 1000) != 0 {
			t.Fatal("held up by nothing")
		}
	}
}

func TestARateThatChanges(t *testing.T) {
	var rates Rates
	now := time.Now()
	old := rates.Gate(Named{"n", Rate{Limit: 10, Per: time.Hour}})
	for range 10 {
		old.Pass(now)
	}
	changed := rates.Gate(Named{"n", Rate{Limit: 3600, Per: time.Hour, Burst: 5}})
	for _, p := range []*Pace{old, changed} {
		if wait := p.Pass(now); wait <= 0 || wait > 2*time.Second {
			t.Errorf("at one a second the next passes after %v", wait)
		}
	}
	now = now.Add(time.Minute)
	passed := 0
	for changed.Pass(now) == 0 {
		passed++
	}
	if passed != 5 {
		t.Errorf("%d pass at once, want 5", passed)
	}
}

func TestCountersAreForgottenWhenTheyNoLongerMatter(t *testing.T) {
	var rates Rates
	start := time.Now().Add(-time.Hour)
	const names = 10_000
	held := rates.Gate(Named{"held", Rate{Limit: 1, Per: time.Second}})
	for i := range names {
		rates.Gate(Named{fmt.Sprint(i), Rate{Limit: 1, Per: time.Second}}).Pass(start)
	}
	busy := rates.Gate(Named{"busy", Rate{Limit: 1, Per: 24 * time.Hour}})
	busy.Pass(time.Now())
	held.Pass(time.Now())
	for i := range names { // the sweep has had occasion by now
		rates.Gate(Named{fmt.Sprint("more", i), Rate{Limit: 1, Per: time.Second}})
	}
	if n := len(rates.counters); n > names {
		t.Errorf("%d counters are kept", n)
	}
	if busy.Pass(time.Now()) == 0 || rates.Gate(Named{"busy", Rate{Limit: 1, Per: 24 * time.Hour}}).Pass(time.Now()) == 0 {
		t.Error("a counter that matters was forgotten")
	}
	// Whatever was forgotten, two who use a name count together.
	later := time.Now().Add(time.Hour)
	if another := rates.Gate(Named{"held", Rate{Limit: 1, Per: time.Second}}); held.Pass(later) != 0 || another.Pass(later) == 0 {
		t.Error("one name is counted twice")
	}
	runtime.KeepAlive(held)
}

// TestAnyWindow: in any stretch of time no more pass than the burst and what the rate gives meanwhile, and
// Ahead says when the n-th will.
func TestAnyWindow(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := Rate{Limit: 1 + rng.Int64N(100), Per: time.Duration(1+rng.Int64N(1000)) * time.Second, Burst: rng.Int64N(20)}
		var rates Rates
		p := rates.Gate(Named{"n", r})
		start := time.Now()
		now := start
		var passed []time.Duration
		for range 2000 {
			if ahead := p.Ahead(now, 1); (ahead == 0) != (p.Pass(now) == 0) {
				t.Fatalf("%v: Ahead says %v, Pass another thing", r, ahead)
			} else if ahead == 0 {
				passed = append(passed, now.Sub(start))
			}
			if rng.IntN(10) == 0 {
				now = now.Add(-time.Millisecond) // clocks do that
			}
			now = now.Add(time.Duration(rng.Int64N(int64(r.Per) / 10)))
		}
		burst := float64(r.burst())
		for i := range passed {
			for j := i; j < len(passed); j += 7 {
				most := burst + (passed[j]-passed[i]+20*time.Millisecond).Seconds()*float64(r.limit()) + 1
				if float64(j-i+1) > most {
					t.Fatalf("%v: %d passed in %v", r, j-i+1, passed[j]-passed[i])
				}
			}
		}
		n := 1 + rng.IntN(30)
		if ahead := p.Ahead(now, n); n <= r.burst() {
			at := now.Add(ahead)
			for i := range n {
				if p.Pass(at) != 0 {
					t.Fatalf("%v: the event %d of %d does not pass after %v", r, i+1, n, ahead)
				}
			}
		}
	}
}

func BenchmarkPass(b *testing.B) {
	var rates Rates
	p := rates.Gate(Named{"n", Rate{Limit: 1 << 40, Per: time.Second}}, Named{"m", Rate{Limit: 1 << 40, Per: time.Second}})
	b.ReportAllocs()
	for b.Loop() {
		if p.Pass(time.Now()) != 0 {
			b.Fatal("held up")
		}
	}
}
