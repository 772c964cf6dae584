package dnstest

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// conn is a client's end of a connection to a server in the same process. Packets to and from it keep
// their bounds if network is "udp", and have two bytes of length before them if it is "tcp".
type conn struct {
	server  *Server
	network string
	closed  chan struct{} // ends the answers under way

	mu       sync.Mutex
	changed  *sync.Cond // of mu
	packets  [][]byte   // udp: to be read
	stream   bytes.Buffer
	sent     bytes.Buffer // tcp: the part of a query that came so far
	ended    bool
	deadline time.Time
	timer    *time.Timer
}

func newConn(s *Server, network string) net.Conn {
	c := &conn{server: s, network: network, closed: make(chan struct{})}
	c.changed = sync.NewCond(&c.mu)
	if network == "udp" {
		return packetConn{c}
	}
	return c
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.ended:
			return 0, net.ErrClosed
		case c.late():
			return 0, os.ErrDeadlineExceeded
		case len(c.packets) > 0:
			n := copy(p, c.packets[0])
			c.packets = c.packets[1:]
			return n, nil
		case c.stream.Len() > 0:
			return c.stream.Read(p)
		}
		c.changed.Wait()
	}
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
		return 0, net.ErrClosed
	case c.late():
		return 0, os.ErrDeadlineExceeded
	case c.network == "udp":
		c.ask(p)
		return len(p), nil
	}
	c.sent.Write(p)
	for c.sent.Len() >= 2 {
		size := int(binary.BigEndian.Uint16(c.sent.Bytes()))
		if c.sent.Len() < 2+size {
			break
		}
		c.ask(c.sent.Next(2 + size)[2:])
	}
	return len(p), nil
}

// ask gives a packet to the server. What is no query gets no answer. The lock is held.
func (c *conn) ask(packet []byte) {
	query := new(dns.Msg)
	if query.Unpack(packet) != nil {
		return
	}
	go c.server.respond(c.network, query, c.closed, c.receive)
}

func (c *conn) receive(packet []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.network == "udp" {
		c.packets = append(c.packets, packet)
	} else {
		c.stream.Write(binary.BigEndian.AppendUint16(nil, uint16(len(packet))))
		c.stream.Write(packet)
	}
	c.changed.Broadcast()
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return net.ErrClosed
	}
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	close(c.closed)
	c.changed.Broadcast()
	return nil
}

func (c *conn) late() bool { return !c.deadline.IsZero() && !time.Now().Before(c.deadline) }

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return net.ErrClosed
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.deadline = t
	if !t.IsZero() {
		c.timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.changed.Broadcast()
		})
	}
	c.changed.Broadcast()
	return nil
}

// One deadline serves both directions: a Write never waits.
func (c *conn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

func (c *conn) LocalAddr() net.Addr  { return address{c.network, "192.0.2.1:1024"} }
func (c *conn) RemoteAddr() net.Addr { return address{c.network, c.server.Addr()} }

// packetConn is the conn of "udp": libraries recognise one by the methods that it has.
type packetConn struct{ *conn }

func (c packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := c.Read(p)
	return n, c.RemoteAddr(), err
}

func (c packetConn) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Write(p) }

type address struct{ network, text string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.text }
