package resolver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// idleTime is how long a connection waits for the next query. With a handshake a query takes two more
	// round trips and thirty times the work of one over an open connection, and mail comes in bursts.
	idleTime = 10 * time.Second

	// patience is how long a query waits at least until a connection over which nothing came meanwhile is
	// given no more of them: the path may have died without a word.
	patience = time.Second

	// writeTime is how long a server may take to make room for a query.
	writeTime = 5 * time.Second

	// maxPending is how many queries a connection has at once at most; their ids are random.
	maxPending = 1 << 14

	// paddingBlock is what the size of an encrypted query is a multiple of (RFC 8467 section 4.1).
	paddingBlock = 128
)

// errLink: the connection to the server ended before the response.
var errLink = errors.New("the connection ended")

// links are the connections over TLS, one for each server. Its zero value is ready.
type links struct {
	mu  sync.Mutex
	all map[server]*link
}

// link is a connection to a server over TLS, for many queries at once, the answers to which come in any
// order (RFC 7858 section 3.3). One goroutine opens, reads and closes it.
type link struct {
	ready chan struct{} // closed when conn is open
	conn  *tls.Conn     // written before ready is closed
	gone  chan struct{} // closed at the end
	err   error         // why it ended; written before gone is closed

	mu       sync.Mutex
	pending  map[uint16]*inquiry
	messages int  // how many came
	answered bool // one of them was the response to a query
	retired  bool // it gets no more queries
}

// inquiry is a query on a link.
type inquiry struct {
	query    *dns.Msg
	begin    time.Time
	messages int                // of the link, at the begin
	response chan linkedMessage // with room for it
}

type linkedMessage struct {
	m   *dns.Msg
	err error
}

// exchangeTLS sends query to s over the connection that is open, or opens one. A connection may have
// ended while it was idle, or end after any number of answers (RFC 7766 section 6.2.4): that is no
// failure while each connection gets something done.
func (c *Client) exchangeTLS(ctx context.Context, s server, query *dns.Msg) (*dns.Msg, error) {
	pad(query)
	for {
		l, reused := c.linkTo(ctx, s)
		m, err := l.ask(ctx, query)
		if !errors.Is(err, errLink) || !reused && !l.hasAnswered() {
			return m, err
		}
	}
}

// linkTo returns the link to s, and whether it is open since before. A new one is opened by the deadline of
// ctx, but on behalf of all who ask for it.
func (c *Client) linkTo(ctx context.Context, s server) (l *link, reused bool) {
	c.links.mu.Lock()
	defer c.links.mu.Unlock()
	if l := c.links.all[s]; l != nil && l.usable() {
		return l, l.open()
	}
	l = &link{ready: make(chan struct{}), gone: make(chan struct{}), pending: make(map[uint16]*inquiry)}
	if c.links.all == nil {
		c.links.all = make(map[server]*link)
	}
	c.links.all[s] = l
	deadline, _ := ctx.Deadline()
	c.working.Go(func() {
		l.err = c.serve(l, s, deadline)
		close(l.gone)
		c.links.mu.Lock()
		defer c.links.mu.Unlock()
		if c.links.all[s] == l {
			delete(c.links.all, s)
		}
	})
	return l, false
}

// serve opens a link and reads from it until it ends.
func (c *Client) serve(l *link, s server, deadline time.Time) error {
	conn, err := c.dialTLS(s, deadline)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(c.life, func() { conn.NetConn().Close() })()
	l.conn = conn
	l.mu.Lock()
	l.settle()
	l.mu.Unlock()
	close(l.ready)
	for read := frames(conn); ; {
		packet, err := read()
		if err != nil {
			return fmt.Errorf("%w: %w", errLink, err)
		}
		l.receive(packet)
	}
}

// dialTLS opens a connection and verifies that it leads to s: there is no other profile than the strict
// one of RFC 8310 section 5.
func (c *Client) dialTLS(s server, deadline time.Time) (*tls.Conn, error) {
	ctx, cancel := context.WithDeadline(c.life, deadline)
	defer cancel()
	raw, err := c.dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: s.name, RootCAs: c.RootCAs})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// ask sends query and waits for the response. The error is errLink if the link ended once it was open.
func (l *link) ask(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	select {
	case <-l.ready:
	case <-l.gone:
		return nil, l.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	mine, err := l.enter(query)
	if err != nil {
		return nil, err
	}
	defer l.leave(mine)
	if err := l.send(query); err != nil {
		l.retire() // but what the server said before is still read, up to its end
	}
	select {
	case r := <-mine.response:
		return r.m, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-l.gone:
	}
	select {
	case r := <-mine.response: // it came before the end
		return r.m, r.err
	default:
		return nil, l.err
	}
}

// send writes query. After a part of it nothing more can be understood, so that the time for it is the
// link's and not the one that the query has left.
func (l *link) send(query *dns.Msg) error {
	packet, err := query.Pack()
	if err != nil {
		return err
	}
	l.conn.SetWriteDeadline(time.Now().Add(writeTime))
	packet = append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
	_, err = l.conn.Write(packet)
	return err
}

// retire lets the link end when nobody waits any more.
func (l *link) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	l.settle()
}

// enter waits for the response to query, whose id it changes if another query has it.
func (l *link) enter(query *dns.Msg) (*inquiry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending {
		return nil, errors.New("too many queries on one connection")
	}
	for l.pending[query.Id] != nil {
		query.Id = dns.Id()
	}
	mine := &inquiry{query, time.Now(), l.messages, make(chan linkedMessage, 1)}
	l.pending[query.Id] = mine
	l.settle()
	return mine, nil
}

// leave ends the wait, in vain or not.
func (l *link) leave(mine *inquiry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending[mine.query.Id] != mine {
		return
	}
	delete(l.pending, mine.query.Id)
	if l.messages == mine.messages && time.Since(mine.begin) >= patience {
		l.retired = true
	}
	l.settle()
}

// receive hands a message to whom it answers. What answers nobody is passed over.
func (l *link) receive(packet []byte) {
	if len(packet) < 2 {
		return
	}
	id := binary.BigEndian.Uint16(packet)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages++
	asked := l.pending[id]
	if asked == nil {
		return
	}
	m, ours, err := parseResponse(packet, asked.query)
	if !ours {
		return
	}
	delete(l.pending, id)
	l.answered = true
	l.settle()
	asked.response <- linkedMessage{m, err}
}

// settle says how long the link may stay without a word: as long as somebody waits, who has a deadline of
// his own, and idleTime else. The lock is held.
func (l *link) settle() {
	switch {
	case len(l.pending) > 0:
		l.conn.SetReadDeadline(time.Time{})
	case l.retired:
		l.conn.NetConn().Close()
	default:
		l.conn.SetReadDeadline(time.Now().Add(idleTime))
	}
}

// usable tells whether the link may be given queries.
func (l *link) usable() bool {
	select {
	case <-l.gone:
		return false
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.retired
}

func (l *link) open() bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

func (l *link) hasAnswered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered
}

// pad hides the length of the name behind that of others, where the query has EDNS (RFC 7830).
func pad(query *dns.Msg) {
	opt := query.IsEdns0()
	if opt == nil {
		return
	}
	padding := new(dns.EDNS0_PADDING)
	opt.Option = append(opt.Option, padding)
	if over := query.Len() % paddingBlock; over > 0 {
		padding.Padding = make([]byte, paddingBlock-over)
	}
}
