package smtptest

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
)

// sinkSession is one connection of a Sink.
type sinkSession struct {
	sink *Sink
	raw  net.Conn
	conn net.Conn
	in   sinkInput
	out  []byte

	commands, messages, rcpts int64 // not added to the sink's yet

	transaction
	begun  int // transactions
	limits limits
	secure bool
	user   string
	ehlo   string
}

func newSinkSession(s *Sink, conn net.Conn) *sinkSession {
	c := &sinkSession{sink: s, conn: conn, raw: conn, limits: limitsOf(s.Offer)}
	c.in = sinkInput{buf: make([]byte, smallInput), from: conn, before: c.flush}
	return c
}

var errHangUp = errors.New("hang up")

func (c *sinkSession) serve() {
	name := c.sink.Name
	if name == "" {
		name = "sink.example"
	}
	c.reply("220 " + name + " ready")
	for {
		line, err := c.in.line()
		if err == nil {
			c.commands++
			err = c.command(line)
		}
		if err != nil {
			c.flush()
			return
		}
	}
}

func (c *sinkSession) reply(line string) { c.out = append(append(c.out, line...), '\r', '\n') }

// flush writes the replies. It is called only where the session is going to wait: what arrived in one
// piece is answered in one.
func (c *sinkSession) flush() error {
	c.count()
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *sinkSession) count() {
	if c.commands == 0 && c.messages == 0 {
		return
	}
	c.sink.commands.Add(c.commands)
	c.sink.messages.Add(c.messages)
	c.sink.rcpts.Add(c.rcpts)
	c.commands, c.messages, c.rcpts = 0, 0, 0
}

// command acts on one line. Its verb is looked up without a copy: this is the hot path of benchmarks.
func (c *sinkSession) command(line []byte) error {
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.IndexByte(line, '\r') >= 0 {
		c.reply("500 5.5.2 a line ends with CRLF, and is not longer than mine")
		return nil
	}
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	var upper [8]byte
	switch string(upperOf(upper[:], verb)) {
	case "MAIL":
		return c.mailFrom(arg)
	case "RCPT":
		return c.rcptTo(arg)
	case "DATA":
		return c.takeData()
	case "BDAT":
		return c.takeChunk(arg)
	case "RSET":
		c.clear()
		c.reply("250 2.0.0 reset")
	case "EHLO", "LHLO":
		c.hello(string(verb), string(arg))
	case "HELO":
		c.ehlo = string(arg)
		c.clear()
		c.reply("250 sink.example")
	case "NOOP":
		c.reply("250 2.0.0 ok")
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		return c.auth(string(arg))
	case "QUIT":
		c.reply("221 2.0.0 bye")
		return errHangUp
	default:
		c.reply("500 5.5.2 not known here")
	}
	return nil
}

func (c *sinkSession) hello(verb, arg string) {
	if strings.EqualFold(verb, "LHLO") != c.sink.LMTP {
		c.reply("500 5.5.1 the other hello, please")
		return
	}
	c.ehlo = arg
	c.clear()
	lines := []string{"sink.example greets " + arg}
	for _, e := range Extensions() {
		if c.sink.offers(e) {
			lines = append(lines, e)
		}
	}
	if c.sink.offers("SIZE") {
		lines = append(lines, "SIZE "+strconv.FormatInt(c.sink.MaxSize, 10))
	}
	if c.sink.TLS != nil && !c.secure {
		lines = append(lines, "STARTTLS")
	}
	if c.sink.Username != "" {
		lines = append(lines, "AUTH "+strings.Join(c.sink.mechanisms(), " "))
	}
	lines = append(lines, c.sink.Offer...)
	for i, line := range lines {
		if i < len(lines)-1 {
			c.reply("250-" + line)
		} else {
			c.reply("250 " + line)
		}
	}
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
	c.conn = conn
	c.in.reset(conn) // what came in clear is forgotten, RFC 3207 section 4.2
	c.ehlo = ""
	c.clear()
	c.secure = true
	return nil
}

func (c *sinkSession) auth(arg string) error {
	mechanism, initial, hasInitial := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	if c.sink.Username == "" || !slices.Contains(c.sink.mechanisms(), mechanism) {
		c.reply("504 5.5.4 mechanism")
		return nil
	}
	if c.user != "" || c.mail {
		c.reply("503 5.5.1 not now")
		return nil
	}
	var ok bool
	var err error
	switch mechanism {
	case "PLAIN":
		ok, err = c.authPlain(initial, hasInitial)
	case "LOGIN":
		ok, err = c.authLogin(initial, hasInitial)
	}
	switch {
	case err != nil:
		return err
	case !ok:
		c.reply("535 5.7.8 no")
	default:
		c.user = c.sink.Username
		c.reply("235 2.7.0 welcome")
	}
	return nil
}

// authPlain: RFC 4616, with an initial response or after an empty challenge.
func (c *sinkSession) authPlain(initial string, hasInitial bool) (ok bool, err error) {
	if !hasInitial {
		if initial, err = c.challenge(""); err != nil {
			return false, err
		}
	}
	return isBase64(initial, "\x00"+c.sink.Username+"\x00"+c.sink.Password), nil
}

// authLogin asks for the name, unless that came with the command, and for the password.
func (c *sinkSession) authLogin(name string, hasName bool) (ok bool, err error) {
	if !hasName {
		if name, err = c.challenge("VXNlcm5hbWU6"); err != nil {
			return false, err
		}
	}
	password, err := c.challenge("UGFzc3dvcmQ6")
	if err != nil {
		return false, err
	}
	return isBase64(name, c.sink.Username) && isBase64(password, c.sink.Password), nil
}

// challenge sends a challenge of AUTH and returns the line that answers it.
func (c *sinkSession) challenge(text string) (string, error) {
	c.reply("334 " + text)
	line, err := c.in.line()
	return string(bytes.TrimRight(line, "\r\n")), err
}

func isBase64(given, want string) bool {
	b, err := base64.StdEncoding.DecodeString(given)
	return err == nil && string(b) == want
}
