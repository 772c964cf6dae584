package sessions

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// idler is a session that costs nothing.
type idler struct{ capacity int }

func (s *idler) Capacity() int { return s.capacity }
func (s *idler) Comfort() int  { return 0 }
func (*idler) Alive() bool     { return true }
func (*idler) Retire(Reason)   {}
func (*idler) Kill()           {}

func warmRequest() Request {
	return Request{Group: "smtp.example", Limit: 32, Keys: []string{"192.0.2.1:25"}, IdleTimeout: time.Minute, MaxUses: 0}
}

// use is one call over a warm session; it opens one if there is none.
func use(b testing.TB, p *Pool[*idler], r Request) {
	l, err := p.Acquire(context.Background(), r)
	if err != nil {
		b.Error(err)
		return
	}
	if _, ok := l.Session(); !ok {
		l.Opened(r.Keys[0], &idler{})
	}
	l.Release()
}

func BenchmarkWarm(b *testing.B) {
	var p Pool[*idler]
	defer p.Close(context.Background())
	b.ReportAllocs()
	for r := warmRequest(); b.Loop(); {
		use(b, &p, r)
	}
}

func BenchmarkWarmParallel(b *testing.B) {
	for _, callers := range []int{1, 16, 200} {
		b.Run(fmt.Sprint("callers=", callers*runtime.GOMAXPROCS(0)), func(b *testing.B) {
			var p Pool[*idler]
			defer p.Close(context.Background())
			b.ReportAllocs()
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for r := warmRequest(); pb.Next(); {
					use(b, &p, r)
				}
			})
		})
	}
}

// BenchmarkShared lends a session that others use too.
func BenchmarkShared(b *testing.B) {
	for _, sessions := range []int{1, 32, 4096} {
		b.Run(fmt.Sprint("sessions=", sessions), func(b *testing.B) {
			var p Pool[*idler]
			defer p.Close(context.Background())
			r := warmRequest()
			r.Limit = sessions
			for range sessions {
				l, err := p.Acquire(context.Background(), r)
				if err != nil {
					b.Fatal(err)
				}
				l.Opened(r.Keys[0], &idler{capacity: 32})
				defer l.Release()
			}
			b.ReportAllocs()
			for b.Loop() {
				use(b, &p, r)
			}
		})
	}
}

// BenchmarkSharedParallel lends one session to many callers side by side.
func BenchmarkSharedParallel(b *testing.B) {
	for _, sharers := range []int{32, 400} {
		b.Run(fmt.Sprint("sharers=", sharers), func(b *testing.B) {
			var p Pool[*idler]
			defer p.Close(context.Background())
			r := warmRequest()
			r.Limit = 10
			for range r.Limit {
				l, err := p.Acquire(context.Background(), r)
				if err != nil {
					b.Fatal(err)
				}
				l.Opened(r.Keys[0], &idler{capacity: 32})
				defer l.Release()
			}
			b.ReportAllocs()
			b.SetParallelism(sharers / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					use(b, &p, r)
				}
			})
		})
	}
}

// BenchmarkTenThousandIdle lends from a group with many idle sessions of many keys.
func BenchmarkTenThousandIdle(b *testing.B) {
	var p Pool[*idler]
	defer p.Close(context.Background())
	requests := make([]Request, 10_000)
	for i := range requests {
		requests[i] = warmRequest()
		requests[i].Limit = len(requests)
		requests[i].Keys = []string{fmt.Sprint("192.0.2.1:", i)}
		use(b, &p, requests[i])
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		use(b, &p, requests[i])
		i = (i + 1) % len(requests)
	}
}

// BenchmarkIdleGroup reports what a group with one idle session costs in memory.
func BenchmarkIdleGroup(b *testing.B) {
	const groups = 100_000
	for b.Loop() {
		names := make([]Request, groups)
		for i := range names {
			names[i] = warmRequest()
			names[i].Group = fmt.Sprint("smtp", i, ".example")
		}
		var p Pool[*idler]
		before := inUse()
		for _, r := range names {
			use(b, &p, r)
		}
		b.ReportMetric(float64(inUse()-before)/groups, "B/group")
		p.Close(context.Background())
		runtime.KeepAlive(names)
	}
}

// inUse is how much of the heap is.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
