package smtpclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"
)

// Session is an open SMTP or LMTP session. One caller at a time uses it; only Close may be called at
// any time from anywhere.
type Session struct {
	wire
	cfg      *Config
	timeouts Timeouts
	ext      extensions
	tls      *tls.ConnectionState
	verified bool
	// paramsWithRcpt: the peer reads BY and MT-PRIORITY at RCPT instead of at MAIL.
	paramsWithRcpt bool

	used   bool // a transaction was begun
	turn   chan struct{}
	open   bool // the last transaction may still be open at the peer
	broken bool // no further transaction may be begun
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
	// LocalAddr and RemoteAddr are the ends of the connection, "192.0.2.1:25".
	LocalAddr, RemoteAddr string
	// PipeliningUsed: the commands of a transaction go out in one group.
	PipeliningUsed bool
	// MaxRcpts, MaxMails and MaxRcptDomains are what the peer takes by its own word (RFC 9422): recipients
	// in a transaction, transactions in a session, domains of recipients in a transaction. 0 means that it
	// has named no limit. Send does not look at them: dividing a message is the caller's.
	MaxRcpts, MaxMails, MaxRcptDomains int
}

// Info returns what is known of the session.
func (s *Session) Info() Info {
	return Info{
		Extensions:     maps.Clone(s.ext),
		TLS:            s.tls,
		Verified:       s.verified,
		LocalAddr:      addrText(s.raw.LocalAddr()),
		RemoteAddr:     addrText(s.raw.RemoteAddr()),
		PipeliningUsed: s.pipelines(),
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

func (s *Session) pipelines() bool { return s.ext.has("PIPELINING") && !s.cfg.DisablePipelining }

// Usable reports whether another transaction may be begun: not after a failure of the connection, not
// after a 421, not once the peer was out of step, not after Close or Quit. A peer whose replies are odd
// gets one transaction: its verdicts can be told, but not that the next one would be in step.
func (s *Session) Usable() bool {
	return !s.broken && !s.killed.Load() && (s.odd == nil || !s.used)
}

// Capacity is how many calls of Send the session serves at once now, at least 1. It changes with what the
// peer proves able to bear.
func (s *Session) Capacity() int { return 1 }

// Transcript returns the last lines of the dialogue, oldest first, "C: " before ours and "S: " before
// the peer's.
func (s *Session) Transcript() []string { return s.log.text() }

// errClosedIdle is what Idle says of a peer that has gone.
var errClosedIdle = errors.New("the peer closed the idle connection")

// Idle looks whether the peer has closed the connection or said anything while nobody was listening. It
// does not wait and does not read. With an error the session must not be used again; what the peer said
// is in it where it can be read. A connection that cannot be looked at counts as fine: one that is
// neither a socket on a Unix system nor has a method Peek([]byte) (int, error), which returns at once
// what a read would, takes nothing, and says 0 and no error where nothing has arrived.
func (s *Session) Idle() error {
	var buf [256]byte
	n, err := peek(s.raw, buf[:])
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
	s.broken = true
	return err
}

// Quit ends the session in an orderly way: it sends QUIT and waits for the reply, both within timeout
// (0: the config's), then closes the connection. On a session that is not usable it only closes.
func (s *Session) Quit(timeout time.Duration) {
	if timeout <= 0 {
		timeout = s.timeouts.Quit
	}
	if s.Usable() {
		s.borrow()
		s.sayQuit(timeout)
		s.giveBack()
	}
	s.broken = true
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

// peek looks at what has arrived on a connection without taking it and without waiting: 0 and no error
// where nothing has, io.EOF where the peer has closed.
func peek(nc net.Conn, buf []byte) (int, error) {
	if p, ok := nc.(interface{ Peek([]byte) (int, error) }); ok {
		return p.Peek(buf)
	}
	return peekSocket(nc, buf)
}
