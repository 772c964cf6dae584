package smtpclient

import (
	"sync"
	"time"
)

const (
	// firstWindow is how many messages are on their way at once to a peer of which nothing is known.
	firstWindow = 4
	// provenWindow is where the window begins again for a peer that has borne a wide one.
	provenWindow   = 16
	defaultWindow  = 32
	maxFlightBytes = 1 << 20 // of content that is on its way without an answer
	// peerMemory is how long a peer that did not bear something is spared it.
	peerMemory = 10 * time.Minute
)

// Peer is what is known of how a peer bears pipelined messages, and of its pace. The zero value knows
// nothing. It is safe for concurrent use and may be shared by the sessions with one peer; it must not be
// copied.
//
// A peer that has answered a message which was sent before the one ahead of it was answered is proven:
// new sessions begin with a wide window. One on which sessions broke twice within ten minutes, while
// messages stood in line behind each other, gets one message at a time for as long; one that offers
// CHUNKING and does not know BDAT gets DATA.
//
// What its sessions cost to open and what its transactions take is averaged over all of them, see
// [Session.Comfort]. A measurement loses half of its weight every minute, and to those that come after it.
type Peer struct {
	mu        sync.Mutex
	proven    bool
	struck    time.Time // when a session broke last that had messages in line
	alone     time.Time // until then: one message at a time
	unchunked time.Time // until then: no BDAT

	opening             aging // what it costs to open a session
	chunkPace, dataPace aging // what a transaction takes
}

// window is the width that a session begins with.
func (p *Peer) window(limit int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case time.Now().Before(p.alone):
		return 1
	case p.proven:
		return limit
	}
	return min(firstWindow, limit)
}

// widen is the width after a success.
func (p *Peer) widen(window, limit int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case time.Now().Before(p.alone):
		return 1
	case p.proven:
		window = max(window, provenWindow/2)
	}
	return min(2*window, limit)
}

// prove records that a message which did not wait for an answer was taken.
func (p *Peer) prove() {
	p.mu.Lock()
	p.proven = true
	p.mu.Unlock()
}

// strike records that a session broke while messages stood in line.
func (p *Peer) strike() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.struck.IsZero() && now.Sub(p.struck) < peerMemory {
		p.alone = now.Add(peerMemory)
	}
	p.struck, p.proven = now, false
}

// rejectOverlap records that the peer refuses a message only because it did not wait.
func (p *Peer) rejectOverlap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alone, p.proven = time.Now().Add(peerMemory), false
}

// rejectChunks records that the peer does not know the BDAT that it offers.
func (p *Peer) rejectChunks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unchunked = time.Now().Add(peerMemory)
}

func (p *Peer) chunks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !time.Now().Before(p.unchunked)
}
