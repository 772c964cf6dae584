package smtpclient

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Session is an open SMTP or LMTP session. Send, Usable, Capacity, Comfort, Info, Transcript and Close may
// be called at any time from anywhere; Quit is for when no Send is under way.
type Session struct {
	wire
	pacer
	cfg      *Config
	timeouts Timeouts
	peer     *Peer
	verified bool
	doubt    error // why it is not
	// What the peer offers, and what of it is used. They do not change once the session is open.
	ext       extensions
	tls       *tls.ConnectionState
	pipelined bool  // commands are sent without waiting for replies
	chunks    bool  // content goes by BDAT
	maxSize   int64 // of a message; 0: the peer names none
	maxMails  int   // transactions in the session, likewise
	maxWindow int
	peeker    peeker // nil where there is none
	// paramsWithRcpt: the peer reads BY and MT-PRIORITY at RCPT instead of at MAIL.
	paramsWithRcpt atomic.Bool
	// stage is when the stage of opening that is under way began, and goodbye when it failed, on the session's
	// clock, for the trace.
	stage, goodbye time.Duration

	broken   atomic.Bool // no further transaction may be begun
	full     atomic.Bool // as many were begun or stand in line as the peer takes
	capacity atomic.Int32
	comfort  atomic.Int32

	mu       sync.Mutex
	queue    line      // not begun, in order of arrival
	flight   line      // begun and not settled, in order of their replies
	sending  *transfer // the last in flight, while a part of it is to be sent
	inFlight int64     // bytes of content in flight
	window   int       // how many may be in flight
	proven   bool
	taken    int  // transactions that were begun or stand in line
	finished int  // those that were answered
	open     bool // the last transaction may still be open at the peer

	writing, reading bool          // a goroutine does
	inBody           *transfer     // whose body the writer is reading, which may take any time
	flushed          int64         // bytes written
	armed            bool          // the reply that is due has its deadline
	deadlined        bool          // the connection has a deadline for reading
	limit            time.Duration // of the reply that was armed last
	dueSince         time.Duration // when that was, on the session's clock, for the trace
	stopped          bool          // nothing more is begun
	leaving          *Reply        // the 421 after which the peer is going to close
	gone             bool          // the peer has accepted nothing since
	writeErr         error         // what is said now may be read, but no more can be sent
	writeLimit       time.Duration
	reader, writer   func()        // read and write
	failure          error         // why the session has ended
	quiet            chan struct{} // closed when neither goroutine is left
}

// Info describes a session.
type Info struct {
	// Extensions are what the peer offered last: keywords in upper case and their parameters.
	Extensions map[string]string
	// TLS is nil in clear.
	TLS *tls.ConnectionState
	// Verified: the peer's certificate was good and held its name. It is true under the insecure policies
	// too where it would have been.
	Verified bool
	// Doubt is why it was not.
	Doubt error
	// LocalAddr and RemoteAddr are the ends of the connection, "192.0.2.1:25".
	LocalAddr, RemoteAddr string
	// PipeliningUsed: the commands of a transaction go out in one group.
	PipeliningUsed bool
	// ChunkingUsed: content goes out by BDAT.
	ChunkingUsed bool
	// MaxRcpts, MaxMails and MaxRcptDomains are what the peer takes by its own word (RFC 9422): recipients
	// in a transaction, transactions in a session, domains of recipients in a transaction. 0 means that it
	// has named no limit. The session keeps to MaxMails; dividing a message is the caller's.
	MaxRcpts, MaxMails, MaxRcptDomains int
}

// Info returns what is known of the session.
func (s *Session) Info() Info {
	return Info{
		Extensions:     maps.Clone(s.ext),
		TLS:            s.tls,
		Verified:       s.verified,
		Doubt:          s.doubt,
		LocalAddr:      addrText(s.raw.LocalAddr()),
		RemoteAddr:     addrText(s.raw.RemoteAddr()),
		PipeliningUsed: s.pipelined,
		ChunkingUsed:   s.chunks,
		MaxRcpts:       s.ext.limit("RCPTMAX"),
		MaxMails:       s.ext.limit("MAILMAX"),
		MaxRcptDomains: s.ext.limit("RCPTDOMAINMAX"),
	}
}

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// prepare decides how the session is going to speak, from what the peer offers and the config wants.
func (s *Session) prepare() {
	s.peer = s.cfg.Peer
	if s.peer == nil {
		s.peer = &Peer{}
	}
	s.pipelined = s.ext.has("PIPELINING") && !s.cfg.DisablePipelining
	s.chunks = s.ext.has("CHUNKING") && !s.cfg.DisableChunking && s.peer.chunks()
	s.maxSize, s.maxMails = s.ext.maxSize(), s.ext.limit("MAILMAX")
	s.peeker = newPeeker(s.raw)
	if s.chunks { // with DATA, we answer the 354 and acknowledge by that
		s.ack = quickAck(s.raw)
	}
	s.deadlined = true // by the opening dialogue
	s.maxWindow = cmp.Or(s.cfg.MaxPipelined, defaultWindow)
	if s.odd != nil {
		s.maxWindow = 1
	}
	s.opening, s.known = s.peer.opened(s.cost(), s.chunks)
	s.setWindow(s.peer.window(s.maxWindow))
	s.reader, s.writer = s.read, s.write
}

// cost is what it took to open the session.
func (s *Session) cost() time.Duration {
	if began := s.cfg.Began; !began.IsZero() {
		return max(0, time.Since(began))
	}
	return s.clock()
}

// setWindow sets how many transactions may be in flight.
func (s *Session) setWindow(n int) {
	s.window = n
	s.reckon()
}

// room is how many callers may be there for the window: a quarter more, so that the next is in line when one
// is done.
func (s *Session) room() int {
	switch {
	case !s.pipelined || s.window == 1:
		return 1
	case !s.chunks:
		return 3 // one whose content is sent, one whose commands go along, one in line
	case s.cfg.NoReset:
		return 2
	}
	return s.window + s.window/4
}

// widens reports whether the window opens while messages are taken.
func (s *Session) widens() bool { return s.chunks && s.pipelined && !s.cfg.NoReset && s.window > 1 }

// Usable reports whether another transaction may be begun: not after a failure of the connection, not
// after a 421, not once the peer was out of step, not after as many as the peer takes in a session (RFC
// 9422), not after Close or Quit. A peer whose replies are odd gets one transaction: its verdicts can be
// told, but not that the next one would be in step.
func (s *Session) Usable() bool { return s.inStep() && !s.full.Load() }

// inStep reports whether the peer can be talked to.
func (s *Session) inStep() bool { return !s.broken.Load() && !s.killed.Load() }

// Capacity is how many calls of Send the session serves at once now, at least 1. It changes with what the
// peer proves able to bear.
func (s *Session) Capacity() int { return int(s.capacity.Load()) }

// Comfort is how many calls of Send the session serves at once before a new connection would serve the next
// one sooner: from 1 to Capacity. A peer works its pipeline one by one, so that each call waits for those
// ahead of it; it is worth its place in line while these take less than it costs to open a session, dialing
// included (see Config.Began). Both are measured, here and in the other sessions of the config's Peer; until
// something was, and where messages cannot be pipelined, it is 1. It is as cheap as Capacity, and changes
// with every message.
func (s *Session) Comfort() int { return int(min(s.comfort.Load(), s.capacity.Load())) }

// Transcript returns the last lines of the dialogue, oldest first, "C: " before ours and "S: " before
// the peer's.
func (s *Session) Transcript() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.lines()
}

// errClosedIdle is what Idle says of a peer that has gone.
var errClosedIdle = errors.New("the peer closed the idle connection")

// Idle looks whether the peer has closed the connection or said anything while nobody was listening. It
// does not wait and does not read. With an error the session must not be used again; what the peer said
// is in it where it can be read. A connection that cannot be looked at counts as fine: one that is
// neither a socket on a Unix system nor has a method Peek([]byte) (int, error), which returns at once
// what a read would, takes nothing, and says 0 and no error where nothing has arrived.
func (s *Session) Idle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight.head != nil || s.queue.head != nil {
		return nil // the reader is looking
	}
	var buf [256]byte
	n, err := s.peek(buf[:])
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", errClosedIdle, err)
	case n == 0:
		return nil
	case s.tls != nil:
		err = errors.New("the peer spoke on the idle connection, or is closing it")
	default:
		err = fmt.Errorf("the peer spoke on the idle connection: %s", firstLine(buf[:n]))
	}
	s.stop()
	return err
}

// Quit ends the session in an orderly way: it waits for what is under way, sends QUIT and waits for the
// reply, both within timeout (0: the config's), then closes the connection. On a session that is not
// usable it only closes.
func (s *Session) Quit(timeout time.Duration) {
	if timeout <= 0 {
		timeout = s.timeouts.Quit
	}
	s.mu.Lock()
	if s.writing || s.reading {
		quiet := make(chan struct{})
		s.quiet = quiet
		s.mu.Unlock()
		<-quiet
		s.mu.Lock()
	}
	polite := s.inStep()
	s.stop()
	s.mu.Unlock()
	if polite {
		s.borrow()
		s.sayQuit(timeout)
		s.giveBack()
	}
	s.Close()
}

func (s *Session) sayQuit(timeout time.Duration) {
	s.command("QUIT")
	if _, err := s.flush(timeout); err != nil {
		return
	}
	if _, err := s.readReply(timeout); err != nil {
		return
	}
	if t, ok := s.conn.(*tls.Conn); ok {
		t.Close() // says close_notify; the reply was read, so nothing holds that up
	}
}

// Close cuts the connection. It may be called at any time, from any goroutine and more than once; a
// Send that is under way returns with Kind Killed.
func (s *Session) Close() error {
	if err := s.kill(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// peeker looks at what has arrived on a connection without taking it and without waiting: 0 and no error
// where nothing has, io.EOF where the peer has closed.
type peeker interface{ Peek([]byte) (int, error) }

// newPeeker returns nil for a connection that cannot be looked at.
func newPeeker(nc net.Conn) peeker {
	if p, ok := nc.(peeker); ok {
		return p
	}
	if p := newSocketPeeker(nc); p != nil {
		return p
	}
	return nil
}

// peek looks at the connection; one that cannot be looked at is silent. The lock is held.
func (s *Session) peek(buf []byte) (int, error) {
	if s.peeker == nil {
		return 0, nil
	}
	return s.peeker.Peek(buf)
}

// borrow lends the session what it needs to hold a dialogue step by step.
func (s *Session) borrow() {
	s.borrowIn()
	s.borrowOut()
}

// giveBack ends the loan. It reports whether everything that was received has been read.
func (s *Session) giveBack() (clean bool) {
	s.giveBackOut()
	clean = s.giveBackIn()
	s.log.giveBack()
	return clean
}

// Broken reports whether the session has failed or the peer has left, as opposed to having served as many
// messages as the peer takes.
func (s *Session) Broken() bool { return !s.inStep() }
