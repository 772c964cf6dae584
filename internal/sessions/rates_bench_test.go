package sessions

import (
	"fmt"
	"testing"
	"time"
)

// fast is a rate that a benchmark cannot reach.
var fast = Rate{Limit: 1 << 40, Per: time.Second}

func paceOf(r *Rates, rates int, rate Rate) *Pace {
	var names []Named
	for i := range rates {
		names = append(names, Named{fmt.Sprint("name ", i), rate})
	}
	return r.Gate(names...)
}

func BenchmarkPass(b *testing.B) {
	for _, rates := range []int{0, 1, 3} {
		b.Run(fmt.Sprint("rates=", rates), func(b *testing.B) {
			var r Rates
			p := paceOf(&r, rates, fast)
			b.ReportAllocs()
			for b.Loop() {
				if wait := p.Pass(time.Now()); wait > 0 {
					b.Fatal(wait)
				}
			}
		})
	}
}

func BenchmarkPassRefused(b *testing.B) {
	var r Rates
	p := paceOf(&r, 1, Rate{Limit: 1, Per: 24 * time.Hour})
	p.Pass(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if p.Pass(time.Now()) == 0 {
			b.Fatal("an event passed")
		}
	}
}

// BenchmarkPassParallel has each caller under a name of its own: what they share is the lock.
func BenchmarkPassParallel(b *testing.B) {
	var r Rates
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		p := r.Gate(Named{fmt.Sprintf("%p", pb), fast})
		for pb.Next() {
			p.Pass(time.Now())
		}
	})
}

func BenchmarkGate(b *testing.B) {
	var r Rates
	b.ReportAllocs()
	for b.Loop() {
		paceOf(&r, 1, fast)
	}
}

// BenchmarkNewNames has sweeps in it.
func BenchmarkNewNames(b *testing.B) {
	var r Rates
	now := time.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Millisecond)
		r.Gate(Named{fmt.Sprint("name ", i), Rate{Limit: 1, Per: time.Minute}}).Pass(now)
	}
}
