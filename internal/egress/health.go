package egress

import (
	"sync"
	"sync/atomic"
	"time"
)

// Rule says which failures suspend something, and for how long.
type Rule struct {
	// Failures within Per suspend; the first one does where Failures is 1 or less.
	Failures int64
	Per      time.Duration
	// For is how long the suspension lasts.
	For time.Duration
}

// Health knows what is suspended because it failed. The zero value is ready for use, by many
// goroutines. It keeps nothing of what has neither failed lately nor is suspended.
type Health struct {
	ailing  atomic.Int64 // how many records there are: mostly none, and then nobody needs the lock
	mu      sync.Mutex
	records map[string]*record
}

type record struct {
	failures []time.Time // within Per, oldest first; no more than the rule needs
	until    time.Time   // suspended until then
	forget   time.Time   // nothing is left to know of it from then on
}

// Failed records a failure of name, and reports whether it is the one that suspends it.
func (h *Health) Failed(name string, rule Rule) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.sweep(now)
	r := h.records[name]
	if r == nil {
		if h.records == nil {
			h.records = map[string]*record{}
		}
		r = &record{}
		h.records[name] = r
		h.ailing.Add(1)
	}
	if now.Before(r.until) {
		return false // what was under way when it was suspended
	}
	for len(r.failures) > 0 && now.Sub(r.failures[0]) >= rule.Per {
		r.failures = r.failures[1:]
	}
	r.failures = append(r.failures, now)
	if int64(len(r.failures)) < rule.Failures {
		r.forget = now.Add(rule.Per)
		return false
	}
	r.failures = nil
	r.until = now.Add(rule.For)
	r.forget = r.until
	return true
}

// Suspended returns until when name is suspended; false if it is not.
func (h *Health) Suspended(name string) (until time.Time, suspended bool) {
	if h.ailing.Load() == 0 {
		return time.Time{}, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.records[name]
	if r == nil || !time.Now().Before(r.until) {
		return time.Time{}, false
	}
	return r.until, true
}

// sweep forgets what there is nothing left to know of. Failures are few, and so are records. The lock is
// held.
func (h *Health) sweep(now time.Time) {
	for name, r := range h.records {
		if !now.Before(r.forget) {
			delete(h.records, name)
			h.ailing.Add(-1)
		}
	}
}
