package smtpclient

import (
	"cmp"
	"math"
	"time"
)

// How many calls stand comfortably in line at a session follows from two things that are measured: what it
// costs to open another one, and what the peer takes for a transaction. What the next in line waits for is
// the one before it; the network's round trip is waited for on any connection, and is not counted.
//
// With CHUNKING a transaction counts from when it can be at the peer, which is a round trip before the first
// reply to it can be here, or from the final reply to the one ahead of it, to the final reply to itself. With
// DATA the next envelope goes out with the content of the one ahead, but its content waits for its own 354:
// each costs a round trip, and that remains in the count, since only the first of the two is left out.

// Weights of the averages, in measurements.
const (
	maxPaceWeight    = 64
	maxOpeningWeight = 8
	// shareCount and shareTime are how many measurements, or how much measured time, a session keeps before
	// it tells the peer's other sessions: a fast one does not take the lock for each message.
	shareCount = 32
	shareTime  = time.Millisecond
	// staleAfter is how long it takes a measurement to lose half of its weight, and leastKept what remains
	// of it at last, so that an old value is better than none, and any new one better than that.
	staleAfter = time.Minute
	leastKept  = 1.0 / 1024
)

// average is a sum of durations and the weight of what was added up. The zero value holds nothing.
type average struct {
	sum    float64 // nanoseconds
	weight float64
}

func (a *average) add(b average) {
	a.sum += b.sum
	a.weight += b.weight
}

func (a *average) scale(by float64) {
	a.sum *= by
	a.weight *= by
}

// aging is an average in which old measurements lose weight, by time and by what comes after them.
type aging struct {
	average
	at time.Time // when something was added last
}

func (a *aging) add(b average, most float64) {
	now := time.Now()
	if a.weight > 0 {
		age := now.Sub(a.at)
		a.scale(max(leastKept, math.Exp2(-float64(age)/float64(staleAfter))))
	}
	a.average.add(b)
	if a.weight > most {
		a.scale(most / a.weight)
	}
	a.at = now
}

// opened records what it cost to open a session, and returns what is known by then.
func (p *Peer) opened(cost time.Duration, chunks bool) (opening, pace average) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opening.add(average{float64(cost), 1}, maxOpeningWeight)
	return p.opening.average, p.pace(chunks).average
}

// share adds what a session has measured, and returns what is known by then.
func (p *Peer) share(measured average, chunks bool) (opening, pace average) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := p.pace(chunks)
	if measured.weight > 0 {
		mine.add(measured, maxPaceWeight)
	}
	return p.opening.average, mine.average
}

// pace is what transactions with BDAT, or with DATA, cost. The lock is held.
func (p *Peer) pace(chunks bool) *aging {
	if chunks {
		return &p.chunkPace
	}
	return &p.dataPace
}

// Comfort is how many calls a session that is about to be opened is going to serve before another one would
// serve the next one sooner, by what is known of the peer. Window is the session's Config.MaxPipelined.
func (p *Peer) Comfort(window int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case now.Before(p.alone):
		return 1
	case p.chunkPace.weight > 0 && !now.Before(p.unchunked):
		window = cmp.Or(window, defaultWindow)
		return bearable(p.opening.average, p.chunkPace.average, window+window/4)
	}
	return bearable(p.opening.average, p.dataPace.average, 3)
}

// pacer measures a session. All of its times are on the session's own clock, which never reads 0. The
// session's lock guards it once the session is open.
type pacer struct {
	start     time.Time
	rtt       time.Duration // the shortest round trip that was seen
	group     time.Duration // when the group that is being gathered was begun; 0: none was
	heard     time.Duration // when what is being judged was received; 0: nobody has looked
	lastReply time.Duration // when the last transaction was answered

	opening average // what the peer's sessions cost to open, as far as we were told
	known   average // and what its transactions took
	fresh   average // what ours took, and the peer's other sessions do not know yet
}

// startClock starts the clock when the connection is there. To dial takes a round trip, unless somebody on
// this side answers for the peer.
func (p *pacer) startClock(began time.Time) {
	now := time.Now()
	p.start, p.rtt = now.Add(-1), math.MaxInt64
	if !began.IsZero() {
		p.sawRoundTrip(max(0, now.Sub(began)))
	}
}

func (p *pacer) clock() time.Duration { return time.Since(p.start) }

// sawRoundTrip notes that a reply came so long after what it answers.
func (p *pacer) sawRoundTrip(d time.Duration) { p.rtt = min(p.rtt, d) }

// groupBegun is when the group that is being gathered was begun.
func (s *Session) groupBegun() time.Duration {
	if s.group == 0 || len(s.out.bytes) == 0 {
		s.group = s.clock()
	}
	return s.group
}

// countFromHere has the transfer that is being sent, and those that lie gathered with it, counted from now on:
// what was before was not the peer's time, or is not going to be spent on the next one. Where a content has
// to wait for a reply of its own, that round trip remains. The lock is held.
func (s *Session) countFromHere() {
	now := s.clock()
	for t := s.flight.head; t != nil; t = t.next {
		switch {
		case t.end <= s.flushed && t != s.sending:
		case t.chunked && t.size <= maxSpeculation:
			t.from = now
		default:
			t.from = now - s.rtt
		}
	}
}

// measure counts a transfer whose final reply has come. Replies that came together are timed together: the
// first of them has the time of all, and the others add none. The lock is held.
func (s *Session) measure(t *transfer) {
	if s.heard == 0 {
		s.heard = s.clock()
	}
	s.sawRoundTrip(s.heard - t.from)
	took := s.heard - max(s.lastReply, t.from+s.rtt)
	s.lastReply = s.heard
	if t.skip == nil && t.bodyErr == nil {
		s.fresh.add(average{float64(took), 1})
	}
}

// waits notes that all that was received has been judged. The lock is held.
func (s *Session) waits() {
	if s.heard != 0 {
		s.heard = 0
		s.reckon()
	}
}

// reckon brings the session's comfort up to date. The lock is held.
func (s *Session) reckon() {
	if f := &s.fresh; f.weight >= shareCount || f.sum >= float64(shareTime) || s.known.weight == 0 && f.weight > 0 {
		s.refresh()
	}
	most := s.room()
	if s.widens() { // what stands in line is begun before a new connection would be there
		most = max(most, s.maxWindow+s.maxWindow/4)
	}
	n := int32(s.bearable(most))
	if n != s.comfort.Load() {
		s.comfort.Store(n)
	}
	if room := min(max(int32(s.room()), n), s.remaining()); room != s.capacity.Load() {
		s.capacity.Store(room)
	}
}

// remaining is how many calls may be there before the session has served as many as the peer takes; at least 1. The
// lock is held.
func (s *Session) remaining() int32 {
	if s.maxMails == 0 {
		return math.MaxInt32
	}
	return int32(min(math.MaxInt32, max(1, s.flight.len+s.queue.len+s.maxMails-s.taken)))
}

// refresh exchanges what was measured with the peer's other sessions. The lock is held.
func (s *Session) refresh() {
	s.opening, s.known = s.peer.share(s.fresh, s.chunks)
	s.fresh = average{}
}

// bearable is how many calls may be there, of at most capacity, so that the last one is served no later than
// it would be by a new connection.
func (p *pacer) bearable(capacity int) int {
	pace := p.known
	pace.add(p.fresh)
	return bearable(p.opening, pace, capacity)
}

// bearable is how many calls may be there by two averages: one where nothing is known.
func bearable(opening, pace average, capacity int) int {
	if pace.weight == 0 || opening.weight == 0 {
		return 1
	}
	// Both are multiplied by their weights: the cost of opening against that of the calls ahead.
	open, each := opening.sum*pace.weight, pace.sum*opening.weight
	if open >= each*float64(capacity-1) {
		return capacity // of a peer that takes no time at all, too
	}
	return 1 + int(open/each)
}
