package sessions

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// What a name costs, and that it costs nothing in the end.
func TestUnusedNamesAreForgotten(t *testing.T) {
	const names = 100_000
	var r Rates
	now := noon
	before := int64(heapInUse())
	for i := range names {
		r.Gate(Named{fmt.Sprint("name ", i), Rate{1, time.Minute, 0}}).Pass(now)
	}
	used := (int64(heapInUse()) - before) / names
	t.Logf("%d bytes a name", used)
	if used > 512 {
		t.Errorf("%d bytes a name", used)
	}
	if len(r.buckets) != names {
		t.Errorf("%d of %d names are left while they count something", len(r.buckets), names)
	}
	p := r.Gate(Named{"one", Rate{1, day, 0}})
	passes(t, p, now.Add(sweepEvery), 1)
	r.Gate(Named{"two", Rate{1, day, 0}})
	if _, ok := r.buckets["one"]; len(r.buckets) != 2 || !ok {
		t.Errorf("%d names after the sweep", len(r.buckets))
	}
	if left := int64(heapInUse()) - before; left > 16*names {
		t.Errorf("%d bytes are left", left)
	}
	runtime.KeepAlive(&r)
}

// Names that come and go keep the map small without sweepEvery.
func TestSweepOfGrowth(t *testing.T) {
	var r Rates
	now := noon
	for i := range 100_000 {
		now = now.Add(time.Millisecond)
		r.Gate(Named{fmt.Sprint(i), Rate{1, time.Second, 0}}).Pass(now)
		if len(r.buckets) > 4*sweepFrom {
			t.Fatalf("%d buckets, of which about 1000 count something", len(r.buckets))
		}
	}
}

// forget makes Rates sweep now; all full buckets go.
func (r *Rates) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.swept = now, now.Add(-sweepEvery)
	r.sweep()
}

func TestPaceOutlivesItsBucket(t *testing.T) {
	a := Named{"a", Rate{3, time.Hour, 0}}
	other := Named{"a", Rate{5, time.Hour, 0}}
	later := noon.Add(2 * time.Hour)
	// Each story begins with paces p, q of a that were used, and then forgotten.
	tests := map[string]func(t *testing.T, r *Rates, p, q *Pace){
		"put back": func(t *testing.T, r *Rates, p, q *Pace) {
			passes(t, p, later, 3)
			passes(t, q, later, 0)
			passes(t, r.Gate(a), later, 0)
		},
		"asked for anew": func(t *testing.T, r *Rates, p, q *Pace) {
			passes(t, r.Gate(a), later, 3)
			passes(t, p, later, 0)
			passes(t, q, later, 0)
		},
		"Ahead alone": func(t *testing.T, r *Rates, p, q *Pace) {
			if wait := p.Ahead(later, 4); !near(wait, 20*time.Minute) {
				t.Errorf("Ahead is %v", wait)
			}
			passes(t, q, later, 3)
			passes(t, p, later, 0)
		},
		"asked for with another rate": func(t *testing.T, r *Rates, p, q *Pace) {
			s := r.Gate(other)
			passes(t, p, later, 5)
			passes(t, s, later, 0)
			passes(t, q, later, 0)
		},
		"another rate, forgotten too": func(t *testing.T, r *Rates, p, q *Pace) {
			s := r.Gate(other)
			r.forget(later)
			passes(t, s, later, 5)
			passes(t, p, later, 0)
			if wait := q.Ahead(later, 1); !near(wait, 12*time.Minute) {
				t.Errorf("wait %v is of the old rate", wait)
			}
		},
		"another rate, forgotten too, and the old pace first": func(t *testing.T, r *Rates, p, q *Pace) {
			s := r.Gate(other)
			r.forget(later)
			if p.Pass(later) != 0 {
				t.Fatal("refused")
			}
			if wait := s.Ahead(later, 3); !near(wait, 12*time.Minute) { // 2 are left
				t.Errorf("wait %v is of the old rate", wait)
			}
			passes(t, q, later, 2)
			passes(t, s, later, 0)
		},
		"three rates, and the newest is not the last to come back": func(t *testing.T, r *Rates, p, q *Pace) {
			second := r.Gate(Named{"a", Rate{60, time.Hour, 0}})
			r.forget(later)
			third := r.Gate(other)
			r.forget(later)
			for i, pace := range []*Pace{p, third, second} {
				if pace.Pass(later) != 0 {
					t.Fatalf("event %d is refused", i+1)
				}
			}
			if wait := passes(t, q, later, 0); !near(wait, 12*time.Minute) {
				t.Errorf("wait %v is of an old rate", wait)
			}
		},
	}
	for name, story := range tests {
		t.Run(name, func(t *testing.T) {
			var r Rates
			p, q := r.Gate(a), r.Gate(a)
			passes(t, p, noon, 3)
			r.forget(noon)
			if len(r.buckets) != 1 {
				t.Fatal("forgotten while it counted something")
			}
			r.forget(later)
			if len(r.buckets) != 0 {
				t.Fatal("not forgotten")
			}
			story(t, &r, p, q)
			if len(r.buckets) != 1 {
				t.Errorf("%d buckets", len(r.buckets))
			}
		})
	}
}

// heapInUse is what is in use when there is no garbage.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
