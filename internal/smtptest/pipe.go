// Package smtptest has what tests of SMTP need: an in-memory connection, a peer that plays a written
// dialogue, a lean sink that takes mail, and throw-away certificates.
package smtptest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeLimit is how much one direction of a Pipe holds before a write blocks, as a socket's buffers do.
const pipeLimit = 128 << 10

// Pipe returns the two ends of an in-memory connection. Unlike those of net.Pipe they buffer 128 KiB in
// each direction. Deadlines work in virtual time inside a testing/synctest bubble.
func Pipe() (client, server net.Conn) {
	up, down := newStream(), newStream()
	return &PipeConn{in: down, out: up}, &PipeConn{in: up, out: down}
}

// PipeConn is an end of a [Pipe].
type PipeConn struct {
	in, out *stream
}

func (c *PipeConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *PipeConn) Write(b []byte) (int, error) { return c.out.write(b) }

// Peek copies what a read would return, without taking it and without waiting. It returns 0 and no error
// where nothing has arrived.
func (c *PipeConn) Peek(b []byte) (int, error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.readEnd:
		return 0, net.ErrClosed
	case len(s.buf) == 0:
		return 0, s.writeEnd
	}
	return copy(b, s.buf), nil
}

// Close closes this end: the other end reads what is on its way, then io.EOF.
func (c *PipeConn) Close() error {
	c.in.closeRead()
	if !c.out.closeWrite(io.EOF) {
		return net.ErrClosed
	}
	return nil
}

// CloseWrite ends what this end sends; it can still receive.
func (c *PipeConn) CloseWrite() error {
	c.out.closeWrite(io.EOF)
	return nil
}

// Reset closes this end as a reset does: the other end fails with ECONNRESET, and what was on its way to
// it is lost.
func (c *PipeConn) Reset() {
	c.in.closeRead()
	c.out.reset()
}

func (c *PipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *PipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

func (c *PipeConn) SetDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	c.out.setWriteDeadline(t)
	return nil
}

func (c *PipeConn) SetReadDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	return nil
}

func (c *PipeConn) SetWriteDeadline(t time.Time) error {
	c.out.setWriteDeadline(t)
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// stream is one direction of a pipe.
type stream struct {
	mu       sync.Mutex
	changed  *sync.Cond
	buf      []byte
	writeEnd error // what the reader gets once buf is empty; nil while the writer's end is open
	readEnd  bool  // the reader's end is closed
	readBy   deadline
	writeBy  deadline
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readEnd:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0:
			n := copy(b, s.buf)
			s.buf = s.buf[:copy(s.buf, s.buf[n:])]
			s.changed.Broadcast()
			return n, nil
		case s.writeEnd != nil:
			return 0, s.writeEnd
		case len(b) == 0:
			return 0, nil
		}
		s.changed.Wait()
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
		case s.readEnd:
			return n, syscall.EPIPE
		case len(b) == 0:
			return n, nil
		}
		if room := min(pipeLimit-len(s.buf), len(b)); room > 0 {
			s.buf = append(s.buf, b[:room]...)
			b, n = b[room:], n+room
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

func (s *stream) closeRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readEnd = true
	s.readBy.stop()
	s.changed.Broadcast()
}

func (s *stream) closeWrite(why error) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.writeEnd == nil
	if first {
		s.writeEnd = why
	}
	s.writeBy.stop()
	s.changed.Broadcast()
	return first
}

func (s *stream) reset() {
	s.closeWrite(syscall.ECONNRESET)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeEnd, s.buf = syscall.ECONNRESET, nil
}

func (s *stream) setReadDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.readEnd {
		s.readBy.set(t, s.wake)
	}
}

func (s *stream) setWriteDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writeEnd == nil {
		s.writeBy.set(t, s.wake)
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

func (d *deadline) set(t time.Time, wake func()) {
	d.at = t
	switch {
	case t.IsZero():
		d.stop()
	case d.timer == nil:
		d.timer = time.AfterFunc(time.Until(t), wake)
	default:
		d.timer.Reset(time.Until(t))
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
