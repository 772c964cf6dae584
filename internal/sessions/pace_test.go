package sessions

import (
	"sync"
	"testing"
	"time"
)

// pacer is a gate that lets burst events through at once, and then one each interval. It counts, and can
// be shut.
type pacer struct {
	mu       sync.Mutex
	interval time.Duration
	burst    int
	next     time.Time // when the bucket will be full again
	shut     bool      // passes nothing; Ahead still says what it would
	passed   int
}

func every(interval time.Duration, burst int) *pacer { return &pacer{interval: interval, burst: burst} }

func (g *pacer) ahead(now time.Time, n int) time.Duration {
	next := g.next
	if next.Before(now) {
		next = now
	}
	return max(0, next.Add(g.interval*time.Duration(n-g.burst)).Sub(now))
}

func (g *pacer) Ahead(now time.Time, n int) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ahead(now, n)
}

func (g *pacer) Pass(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return time.Second
	}
	if wait := g.ahead(now, 1); wait > 0 {
		return wait
	}
	if g.next.Before(now) {
		g.next = now
	}
	g.next = g.next.Add(g.interval)
	g.passed++
	return 0
}

func (g *pacer) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

func TestPacer(t *testing.T) {
	g, now := every(time.Second, 3), time.Now()
	for range 3 {
		if wait := g.Pass(now); wait != 0 {
			t.Fatalf("of the burst: %v", wait)
		}
	}
	for n := range 3 {
		if wait := g.Ahead(now, n+1); wait != time.Duration(n+1)*time.Second {
			t.Errorf("number %d: %v", n+1, wait)
		}
	}
	if wait := g.Pass(now); wait != time.Second {
		t.Errorf("beyond the burst: %v", wait)
	}
	if wait := g.Pass(now.Add(time.Second)); wait != 0 {
		t.Errorf("after a second: %v", wait)
	}
}
