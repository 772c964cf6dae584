// Package smtptest has what tests of SMTP need: an in-memory connection, with latency if asked for, a
// peer that plays a written dialogue, a lean sink that takes mail, and throw-away certificates.
package smtptest

import (
	"cmp"
	"io"
	"net"
	"time"
)

// pipeLimit is how much one direction of a Pipe holds before a write blocks, as a socket's buffers do.
const pipeLimit = 128 << 10

// Pipe returns the two ends of an in-memory connection. Unlike those of net.Pipe they buffer 128 KiB in
// each direction. Deadlines work in virtual time inside a testing/synctest bubble.
func Pipe() (client, server net.Conn) { return Link{}.Pipe() }

// Link makes in-memory connections over a distance, of unlimited bandwidth: what one end writes, its end
// of stream and its reset reach the other end after the latency. In a testing/synctest bubble the time
// that passes is exact. There time stops with the bubble's main function, so that a test which closes one
// end has to wait for whoever reads the other: that end has the latency to go.
type Link struct {
	// Latency is how long a byte travels, one way: half a round trip.
	Latency time.Duration
	// Buffer is how many bytes one direction holds, on their way and arrived, before a write blocks; 0 is
	// 128 KiB. Below bandwidth times round trip it is what limits throughput, as a window does, but that the
	// writer learns at once of the room that a read makes.
	Buffer int
}

// Pipe returns the two ends of an open connection. Both are a [PipeConn].
func (l Link) Pipe() (client, server net.Conn) {
	up, down := newStream(l), newStream(l)
	return &PipeConn{in: down, out: up}, &PipeConn{in: up, out: down}
}

// Dial opens a connection as TCP does: it returns the client's end after one round trip, and serve gets
// the server's end when the client's last segment of the handshake has arrived there, one latency later.
func (l Link) Dial(serve func(net.Conn)) net.Conn {
	client, server := l.Pipe()
	if l.Latency <= 0 {
		serve(server)
		return client
	}
	time.Sleep(2 * l.Latency)
	time.AfterFunc(l.Latency, func() { serve(server) })
	return client
}

func (l Link) limit() int { return cmp.Or(l.Buffer, pipeLimit) }

// PipeConn is an end of a [Pipe].
type PipeConn struct {
	in, out *stream
}

func (c *PipeConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *PipeConn) Write(b []byte) (int, error) { return c.out.write(b) }

// Peek copies what a read would return, without taking it and without waiting. It returns 0 and no error
// where nothing has arrived.
func (c *PipeConn) Peek(b []byte) (int, error) { return c.in.peek(b) }

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
