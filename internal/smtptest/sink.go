package smtptest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Sink is an SMTP or LMTP server that takes mail. Its options must be set before Listen, Serve or
// ServeConn; its zero value offers everything it knows but TLS, AUTH and what Offer adds, and keeps
// messages.
//
// It is strict as a careful server is: lines end with CRLF, a parameter that was not offered is 555, a
// MAIL inside a transaction, a RCPT outside and a DATA without recipients are 503, and a BDAT that fails
// leaves the transaction dead (503 to all of it) until RSET or EHLO. It is also the measuring rod of benchmarks: with CountOnly a message costs no
// allocation, and what one read brought is answered with one write.
//
// What it answers to a recipient follows the local part: "tempfail..." 450 4.2.0, "permfail..." 550
// 5.1.1, "full..." a bare 452, "421..." 421 and the end of the connection, and three digits before a
// "-" that code. The same holds of senders. Everybody else is accepted. With LMTP
// "datatemp..." and "dataperm..." are refused only after the data (451, 554).
type Sink struct {
	Name     string      // greeted with; default "sink.example"
	LMTP     bool        // LHLO, and a reply to the data for each recipient
	Hide     []string    // extensions not offered, of those in [Extensions], and SIZE
	Offer    []string    // further lines of the reply to EHLO: "LIMITS RCPTMAX=10", "REQUIRETLS"
	MaxSize  int64       // offered with SIZE; 0: no limit
	TLS      *tls.Config // offer STARTTLS
	Username string      // offer AUTH, for this user with this password
	Password string
	// Mechanisms are those of AUTH: PLAIN, LOGIN. Nil is PLAIN alone.
	Mechanisms []string
	Delay      time.Duration // before the reply to each end of data
	CountOnly  bool          // count messages, and do not keep them
	// Refuse, if set, answers recipients (an empty string accepts) instead of the rules above.
	Refuse func(local string) (reply string)

	messages atomic.Int64
	rcpts    atomic.Int64
	commands atomic.Int64
	sessions atomic.Int64
	live     atomic.Int64
	most     atomic.Int64

	mu      sync.Mutex
	kept    []Message
	closed  bool
	open    map[io.Closer]struct{}
	serving sync.WaitGroup
}

// Extensions returns the keywords without parameters that a Sink offers unless told to hide them.
func Extensions() []string {
	return []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME"}
}

// Message is what a Sink has taken.
type Message struct {
	From  string // without angle brackets
	Rcpts []string
	// MailParams and RcptParams are what stood behind the addresses.
	MailParams string
	RcptParams []string
	Data       []byte // dots removed
	// Chunks is how many BDAT commands brought the content; 0: it came with DATA.
	Chunks int
	TLS    bool
	User   string // who was authenticated
	EHLO   string
}

// Listen serves on a free port of 127.0.0.1 and returns its address.
func (s *Sink) Listen() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.Serve(l)
	return l.Addr().String(), nil
}

// Serve serves the connections of a listener, which Close closes. It returns at once.
func (s *Sink) Serve(l net.Listener) {
	if !s.add(l) {
		l.Close()
		return
	}
	go func() {
		defer s.remove(l)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.ServeConn(conn)
		}
	}()
}

// ServeConn serves one connection. It returns at once.
func (s *Sink) ServeConn(conn net.Conn) {
	if !s.add(conn) {
		conn.Close()
		return
	}
	s.sessions.Add(1)
	now := s.live.Add(1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	go func() {
		defer s.remove(conn)
		defer s.live.Add(-1)
		newSinkSession(s, conn).serve()
	}()
}

func (s *Sink) add(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = map[io.Closer]struct{}{}
	}
	s.open[c] = struct{}{}
	s.serving.Add(1)
	return true
}

func (s *Sink) remove(c io.Closer) {
	c.Close()
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	s.serving.Done()
}

// Close closes listeners and connections and waits until nothing of the sink is running.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
	return nil
}

// Messages returns the messages taken so far, in the order in which their data ended.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

// Counts says how many messages and recipients were accepted, and how many command lines came. It has
// counted whatever was answered.
func (s *Sink) Counts() (messages, rcpts, commands int64) {
	return s.messages.Load(), s.rcpts.Load(), s.commands.Load()
}

// Sessions says how many connections there were, and the most at one time.
func (s *Sink) Sessions() (total, most int64) { return s.sessions.Load(), s.most.Load() }

func (s *Sink) offers(extension string) bool { return !slices.Contains(s.Hide, extension) }

func (s *Sink) mechanisms() []string {
	if s.Mechanisms == nil {
		return []string{"PLAIN"}
	}
	return s.Mechanisms
}

func isBroken(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
