package smtptest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Sink is an SMTP or LMTP server that takes mail. Its options must be set before Listen, Serve or
// ServeConn; its zero value offers everything it knows but TLS and AUTH, and keeps messages.
//
// What it answers to a recipient follows the local part: "tempfail..." 450 4.2.0, "permfail..." 550
// 5.1.1, "full..." a bare 452, "421..." 421 and the end of the connection, and three digits before a
// "-" that code. The same holds of senders. Everybody else is accepted. With LMTP
// "datatemp..." and "dataperm..." are refused only after the data (451, 554).
type Sink struct {
	Name      string      // greeted with; default "sink.example"
	LMTP      bool        // LHLO, and a reply to the data for each recipient
	Hide      []string    // extensions not offered: PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN, ENHANCEDSTATUSCODES
	MaxSize   int64       // offered with SIZE; 0: no limit
	TLS       *tls.Config // offer STARTTLS
	Username  string      // offer AUTH PLAIN, for this user with this password
	Password  string
	Delay     time.Duration // before the reply to each end of data
	CountOnly bool          // count messages, and do not keep them
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

// Message is what a Sink has taken.
type Message struct {
	From  string // without angle brackets
	Rcpts []string
	// MailParams and RcptParams are what stood behind the addresses.
	MailParams string
	RcptParams []string
	Data       []byte // dots removed
	TLS        bool
	User       string // who was authenticated
	EHLO       string
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
		(&sinkSession{sink: s, conn: conn, raw: conn, in: bufio.NewReaderSize(conn, 32<<10)}).serve()
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

// Counts says how many messages and recipients were accepted, and how many command lines came.
func (s *Sink) Counts() (messages, rcpts, commands int64) {
	return s.messages.Load(), s.rcpts.Load(), s.commands.Load()
}

// Sessions says how many connections there were, and the most at one time.
func (s *Sink) Sessions() (total, most int64) { return s.sessions.Load(), s.most.Load() }

func (s *Sink) offers(extension string) bool { return !slices.Contains(s.Hide, extension) }

// verdict is the reply to an address, "" where it is accepted.
func (s *Sink) verdict(address string) string {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	if s.Refuse != nil {
		return s.Refuse(local)
	}
	switch {
	case strings.HasPrefix(local, "tempfail"):
		return "450 4.2.0 " + local + " is not available now"
	case strings.HasPrefix(local, "permfail"):
		return "550 5.1.1 " + local + " is not known"
	case strings.HasPrefix(local, "full"):
		return "452 too many recipients"
	case strings.HasPrefix(local, "421"):
		return "421 4.3.2 closing"
	case len(local) > 3 && local[3] == '-' && local[0] >= '4' && local[0] <= '5' && isDigits(local[:3]):
		return local[:3] + " as asked"
	}
	return ""
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// sinkSession is one connection of a Sink.
type sinkSession struct {
	sink *Sink
	raw  net.Conn
	conn net.Conn
	in   *bufio.Reader
	out  []byte

	message Message
	mail    bool
	secure  bool
	user    string
	ehlo    string
	data    []byte
}

var errHangUp = errors.New("hang up")

func (c *sinkSession) serve() {
	name := c.sink.Name
	if name == "" {
		name = "sink.example"
	}
	c.reply("220 " + name + " ready")
	for {
		// Replies wait until all that has arrived is answered: a pipelined group gets one write.
		if c.in.Buffered() == 0 && c.flush() != nil {
			return
		}
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return
		}
		c.sink.commands.Add(1)
		if err := c.command(string(bytes.TrimRight(line, "\r\n"))); err != nil {
			c.flush()
			return
		}
	}
}

func (c *sinkSession) reply(lines ...string) {
	for _, line := range lines {
		c.out = append(append(c.out, line...), '\r', '\n')
	}
}

func (c *sinkSession) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *sinkSession) command(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "LHLO":
		c.hello(verb, arg)
	case "HELO":
		c.ehlo = arg
		c.reply("250 sink.example")
	case "MAIL":
		return c.mailFrom(arg)
	case "RCPT":
		return c.rcptTo(arg)
	case "DATA":
		return c.takeData()
	case "RSET":
		c.clear()
		c.reply("250 2.0.0 reset")
	case "NOOP":
		c.reply("250 2.0.0 ok")
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		c.auth(arg)
	case "QUIT":
		c.reply("221 2.0.0 bye")
		return errHangUp
	default:
		c.reply("500 5.5.2 not known here")
	}
	return nil
}

func (c *sinkSession) clear() {
	c.mail = false
	c.message = Message{}
}

func (c *sinkSession) hello(verb, arg string) {
	if strings.EqualFold(verb, "LHLO") != c.sink.LMTP {
		c.reply("500 5.5.1 the other hello, please")
		return
	}
	c.ehlo = arg
	c.clear()
	lines := []string{"sink.example greets " + arg}
	for _, e := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"} {
		if c.sink.offers(e) {
			lines = append(lines, e)
		}
	}
	if c.sink.offers("SIZE") {
		lines = append(lines, fmt.Sprintf("SIZE %d", c.sink.MaxSize))
	}
	if c.sink.TLS != nil && !c.secure {
		lines = append(lines, "STARTTLS")
	}
	if c.sink.Username != "" {
		lines = append(lines, "AUTH PLAIN")
	}
	for i, line := range lines {
		if i < len(lines)-1 {
			c.reply("250-" + line)
		} else {
			c.reply("250 " + line)
		}
	}
}

// path reads "FROM:<address> params" and "TO:<address> params"; quotes may hold angle brackets.
func path(arg, prefix string) (address, params string, ok bool) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return "", "", false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(arg[len(prefix):], " "), "<")
	if !ok {
		return "", "", false
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && quoted:
			i++
		case rest[i] == '"':
			quoted = !quoted
		case rest[i] == '>' && !quoted:
			return rest[:i], strings.TrimSpace(rest[i+1:]), true
		}
	}
	return "", "", false
}

func (c *sinkSession) mailFrom(arg string) error {
	address, params, ok := path(arg, "FROM:")
	switch refusal := c.sink.verdict(address); {
	case !ok:
		c.reply("501 5.5.4 syntax")
	case c.mail:
		c.reply("503 5.5.1 there is a transaction already")
	case c.sink.Username != "" && c.user == "":
		c.reply("530 5.7.0 authenticate first")
	case refusal != "" && c.sink.Refuse == nil:
		return c.refuse(refusal)
	default:
		c.clear()
		c.mail = true
		c.message.From, c.message.MailParams = address, params
		c.reply("250 2.1.0 ok")
	}
	return nil
}

func (c *sinkSession) refuse(reply string) error {
	c.reply(reply)
	if strings.HasPrefix(reply, "421") {
		return errHangUp
	}
	return nil
}

func (c *sinkSession) rcptTo(arg string) error {
	address, params, ok := path(arg, "TO:")
	switch refusal := c.sink.verdict(address); {
	case !ok:
		c.reply("501 5.5.4 syntax")
	case !c.mail:
		c.reply("503 5.5.1 MAIL first")
	case refusal != "":
		return c.refuse(refusal)
	default:
		c.message.Rcpts = append(c.message.Rcpts, address)
		c.message.RcptParams = append(c.message.RcptParams, params)
		c.reply("250 2.1.5 ok")
	}
	return nil
}

func (c *sinkSession) takeData() error {
	if len(c.message.Rcpts) == 0 {
		c.reply("503 5.5.1 RCPT first")
		return nil
	}
	c.reply("354 go ahead")
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.readData(); err != nil {
		return err
	}
	if c.sink.Delay > 0 {
		time.Sleep(c.sink.Delay)
	}
	c.verdicts()
	c.keep()
	c.clear()
	return nil
}

// readData reads up to the lone dot. Only CRLF ends a line: whoever sends anything else as the end of the
// data waits for ever.
func (c *sinkSession) readData() error {
	c.data = c.data[:0]
	lineStart := true
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		if lineStart && string(line) == ".\r\n" {
			return nil
		}
		whole := bytes.HasSuffix(line, []byte("\r\n"))
		if lineStart && line[0] == '.' {
			line = line[1:]
		}
		c.data = append(c.data, line...)
		lineStart = whole
	}
}

func (c *sinkSession) verdicts() {
	if !c.sink.LMTP {
		c.reply("250 2.0.0 taken")
		return
	}
	for _, r := range c.message.Rcpts {
		switch {
		case strings.HasPrefix(r, "datatemp"):
			c.reply("451 4.3.0 " + r)
		case strings.HasPrefix(r, "dataperm"):
			c.reply("554 5.6.0 " + r)
		default:
			c.reply("250 2.0.0 " + r)
		}
	}
}

func (c *sinkSession) keep() {
	s := c.sink
	s.messages.Add(1)
	s.rcpts.Add(int64(len(c.message.Rcpts)))
	if s.CountOnly {
		return
	}
	m := c.message
	m.Data, m.TLS, m.User, m.EHLO = bytes.Clone(c.data), c.secure, c.user, c.ehlo
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, m)
}

func (c *sinkSession) startTLS() error {
	if c.sink.TLS == nil || c.secure {
		c.reply("502 5.5.1 not offered")
		return nil
	}
	c.reply("220 2.0.0 go ahead")
	if err := c.flush(); err != nil {
		return err
	}
	conn := tls.Server(c.raw, c.sink.TLS)
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.in = conn, bufio.NewReaderSize(conn, 32<<10)
	c.secure = true
	return nil
}

func (c *sinkSession) auth(arg string) {
	mechanism, initial, _ := strings.Cut(arg, " ")
	given, err := base64.StdEncoding.DecodeString(initial)
	want := "\x00" + c.sink.Username + "\x00" + c.sink.Password
	switch {
	case c.sink.Username == "" || !strings.EqualFold(mechanism, "PLAIN"):
		c.reply("504 5.5.4 mechanism")
	case err != nil || string(given) != want:
		c.reply("535 5.7.8 no")
	default:
		c.user = c.sink.Username
		c.reply("235 2.7.0 welcome")
	}
}

func isBroken(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
