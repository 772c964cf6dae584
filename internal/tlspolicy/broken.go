package tlspolicy

import (
	"sync"
	"time"
)

// Broken remembers addresses with which no TLS could be agreed on, for as long as the operator says. The zero
// value remembers none. It is safe for concurrent use.
type Broken struct {
	mu    sync.Mutex
	until map[string]time.Time
	sweep time.Time // when to look for those that may be forgotten
}

// maxBroken bounds how many addresses are remembered.
const maxBroken = 100_000

// Note remembers an address for so long; zero or less: not at all.
func (b *Broken) Note(address string, within time.Duration) {
	if within <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.forget(now)
	if b.until == nil {
		b.until = make(map[string]time.Time)
	}
	if _, known := b.until[address]; known || len(b.until) < maxBroken {
		b.until[address] = now.Add(within)
	}
}

// Is tells whether an address is remembered.
func (b *Broken) Is(address string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, known := b.until[address]
	return known && time.Now().Before(until)
}

// forget drops those whose time is over, once a minute. The lock is held.
func (b *Broken) forget(now time.Time) {
	if now.Before(b.sweep) {
		return
	}
	b.sweep = now.Add(time.Minute)
	for address, until := range b.until {
		if !now.Before(until) {
			delete(b.until, address)
		}
	}
}
