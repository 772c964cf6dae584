package smtptest

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// stream is one direction of a pipe. What was written travels in legs: one for all that was written at
// one time. A reader that waits for a leg has one timer, whatever the number of legs.
type stream struct {
	mu      sync.Mutex
	changed *sync.Cond
	latency time.Duration
	limit   int

	buf      []byte // buf[r:] was written and not read
	r        int
	arrived  int   // how much of buf[r:] the reader may have
	legs     []leg // of the rest
	writeEnd error // what the reader gets once all is read; nil while the writer's end is open
	endAt    time.Time
	readEnd  bool // the reader's end is closed
	goneAt   time.Time
	readBy   deadline
	writeBy  deadline
	travel   deadline // of the next leg, or of the end
}

// leg is n bytes that arrive at one time.
type leg struct {
	at time.Time
	n  int
}

func newStream(l Link) *stream {
	s := &stream{latency: l.Latency, limit: l.limit()}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) held() int { return len(s.buf) - s.r }

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.arrive()
		switch {
		case s.readEnd:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case s.arrived > 0:
			n := s.take(b)
			s.changed.Broadcast()
			return n, nil
		case s.ended():
			return 0, s.writeEnd
		case len(b) == 0:
			return 0, nil
		}
		s.expect()
		s.changed.Wait()
	}
}

func (s *stream) peek(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrive()
	switch {
	case s.readEnd:
		return 0, net.ErrClosed
	case s.arrived > 0:
		return copy(b, s.buf[s.r:s.r+s.arrived]), nil
	case s.ended():
		return 0, s.writeEnd
	}
	return 0, nil
}

// arrive lets the reader have what has travelled long enough.
func (s *stream) arrive() {
	if len(s.legs) == 0 {
		return
	}
	now := time.Now()
	done := 0
	for ; done < len(s.legs) && !now.Before(s.legs[done].at); done++ {
		s.arrived += s.legs[done].n
	}
	s.legs = s.legs[:copy(s.legs, s.legs[done:])]
}

func (s *stream) take(b []byte) int {
	n := copy(b, s.buf[s.r:s.r+s.arrived])
	s.r, s.arrived = s.r+n, s.arrived-n
	if s.r == len(s.buf) {
		s.buf, s.r = s.buf[:0], 0
	}
	return n
}

// ended reports whether the end of the stream has come to the reader, after all that was written.
func (s *stream) ended() bool {
	return s.writeEnd != nil && s.held() == 0 && !time.Now().Before(s.endAt)
}

// expect sets the timer for what arrives next. That may be now, where time went on since arrive has looked:
// the reader is going to wait all the same.
func (s *stream) expect() {
	switch {
	case len(s.legs) > 0:
		s.travel.start(s.legs[0].at, s.wake)
	case s.writeEnd != nil:
		s.travel.start(s.endAt, s.wake)
	}
}

func (s *stream) write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writeEnd != nil:
			return n, net.ErrClosed
		case s.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case s.readEnd && !time.Now().Before(s.goneAt):
			return n, syscall.EPIPE
		case s.readEnd: // we do not know it yet
			return n + len(b), nil
		case len(b) == 0:
			return n, nil
		}
		if room := min(s.limit-s.held(), len(b)); room > 0 {
			s.put(b[:room])
			b, n = b[room:], n+room
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

func (s *stream) put(b []byte) {
	if len(s.buf)+len(b) > cap(s.buf) && s.r > 0 {
		s.buf, s.r = s.buf[:copy(s.buf, s.buf[s.r:])], 0
	}
	s.buf = append(s.buf, b...)
	if s.latency <= 0 {
		s.arrived += len(b)
		return
	}
	at := time.Now().Add(s.latency)
	if last := len(s.legs) - 1; last >= 0 && s.legs[last].at.Equal(at) {
		s.legs[last].n += len(b)
		return
	}
	s.legs = append(s.legs, leg{at, len(b)})
}

func (s *stream) closeRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readEnd {
		return
	}
	s.readEnd, s.goneAt = true, time.Now().Add(s.latency)
	s.drop()
	s.readBy.stop()
	s.travel.stop()
	s.changed.Broadcast()
}

func (s *stream) drop() { s.buf, s.r, s.arrived, s.legs = nil, 0, 0, nil }

func (s *stream) closeWrite(why error) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.writeEnd == nil
	if first {
		s.end(why)
	}
	s.writeBy.stop()
	s.changed.Broadcast()
	return first
}

func (s *stream) end(why error) { s.writeEnd, s.endAt = why, time.Now().Add(s.latency) }

func (s *stream) reset() {
	s.closeWrite(syscall.ECONNRESET)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	s.end(syscall.ECONNRESET)
}

// waitEnd waits until the writer's end is closed, reading nothing.
func (s *stream) waitEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writeEnd == nil && !s.readEnd {
		s.changed.Wait()
	}
}

func (s *stream) setReadDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.readEnd {
		s.readBy.set(t, s.wake)
		s.changed.Broadcast()
	}
}

func (s *stream) setWriteDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writeEnd == nil {
		s.writeBy.set(t, s.wake)
		s.changed.Broadcast()
	}
}

func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// deadline wakes waiters when its time has come. Its stream's mutex guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set sets the deadline. One that has passed needs no timer: the caller wakes the waiters.
func (d *deadline) set(t time.Time, wake func()) {
	if d.at = t; t.IsZero() || d.passed() {
		d.stop()
		return
	}
	d.start(t, wake)
}

// start sets the timer alone. It wakes even where the time has come.
func (d *deadline) start(t time.Time, wake func()) {
	if d.timer == nil {
		d.timer = time.AfterFunc(time.Until(t), wake)
		return
	}
	d.timer.Reset(time.Until(t))
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
