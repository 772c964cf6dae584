package smtptest

import (
	"bytes"
	"strings"
	"time"
)

// transaction is the mail transaction of a session.
type transaction struct {
	mail    bool // MAIL was accepted
	dead    bool // a BDAT failed: nothing of it counts until RSET, RFC 3030 section 2
	binary  bool // BODY=BINARYMIME
	chunks  int  // BDAT commands
	rcpt    int  // recipients accepted
	message Message
	data    []byte // with its dots, and the CRLF before it, where it came with DATA
}

func (t *transaction) clear() {
	t.mail, t.dead, t.binary, t.chunks, t.rcpt = false, false, false, 0, 0
	if t.message.Rcpts != nil || t.message.From != "" {
		t.message = Message{}
	}
	t.data = t.data[:0]
}

// notes reports whether addresses and content have to be noted.
func (c *sinkSession) notes() bool { return !c.sink.CountOnly || c.sink.LMTP }

func (c *sinkSession) mailFrom(arg []byte) error {
	address, params, ok := path(arg, "FROM:")
	switch {
	case !ok:
		c.reply("501 5.5.4 syntax")
	case c.mail || c.dead:
		c.reply("503 5.5.1 there is a transaction already")
	case c.sink.Username != "" && c.user == "":
		c.reply("530 5.7.0 authenticate first")
	case !c.offered(params, c.mailExtension):
		c.reply("555 5.5.4 a parameter of MAIL that was not offered")
	case c.limits.mails > 0 && c.begun >= c.limits.mails:
		return c.refuse("421 4.7.0 no more transactions in this session")
	default:
		if c.sink.Refuse == nil {
			if refusal := ruled(address); refusal != "" {
				return c.refuse(refusal)
			}
		}
		c.clear()
		c.mail = true
		c.begun++
		c.binary = has(params, "BODY=BINARYMIME")
		if c.notes() {
			c.message.From, c.message.MailParams = string(address), string(params)
		}
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

func (c *sinkSession) rcptTo(arg []byte) error {
	address, params, ok := path(arg, "TO:")
	switch {
	case !ok:
		c.reply("501 5.5.4 syntax")
		return nil
	case !c.mail || c.dead || c.chunks > 0:
		c.reply("503 5.5.1 MAIL first")
		return nil
	case !c.offered(params, rcptExtension):
		c.reply("555 5.5.4 a parameter of RCPT that was not offered")
		return nil
	}
	if refusal := c.sink.verdict(address); refusal != "" {
		return c.refuse(refusal)
	}
	if c.limits.rcpts > 0 && c.rcpt >= c.limits.rcpts {
		c.reply("452 4.5.3 too many recipients")
		return nil
	}
	c.rcpt++
	if c.notes() {
		c.message.Rcpts = append(c.message.Rcpts, string(address))
		c.message.RcptParams = append(c.message.RcptParams, string(params))
	}
	c.reply("250 2.1.5 ok")
	return nil
}

func (c *sinkSession) takeData() error {
	switch {
	case c.dead, c.chunks > 0:
		c.dead = true // RFC 3030 section 2: no DATA after BDAT
		c.reply("503 5.5.1 RSET first")
		return nil
	case c.rcpt == 0:
		c.reply("503 5.5.1 RCPT first")
		return nil
	case c.binary:
		c.dead = true
		c.reply("501 5.5.4 BINARYMIME needs BDAT") // RFC 3030 section 3
		return nil
	}
	c.reply("354 go ahead")
	if err := c.in.untilDot(c.taker()); err != nil {
		return err
	}
	if !c.sink.CountOnly {
		c.data = undouble(c.data)
	}
	return c.taken()
}

// takeChunk takes "BDAT size [LAST]". Whatever it answers, the content is read first, RFC 3030 section 2;
// where the size cannot be read there is no telling content from commands.
func (c *sinkSession) takeChunk(arg []byte) error {
	size, last, ok := chunk(arg)
	switch {
	case !c.sink.offers("CHUNKING"):
		c.reply("500 5.5.1 not offered")
		return errHangUp
	case !ok:
		c.reply("501 5.5.4 syntax")
		return errHangUp
	}
	if c.dead || c.rcpt == 0 {
		c.dead = true
		if err := c.in.skip(size, nil); err != nil {
			return err
		}
		c.reply("503 5.5.1 no recipient takes this")
		return nil
	}
	c.chunks++
	if err := c.in.skip(size, c.taker()); err != nil {
		return err
	}
	if !last {
		c.reply("250 2.0.0 chunk taken")
		return nil
	}
	return c.taken()
}

// taker is what content is given to: nil where it is not kept.
func (c *sinkSession) taker() func([]byte) {
	if c.sink.CountOnly {
		return nil
	}
	return func(b []byte) { c.data = append(c.data, b...) }
}

// taken ends a transaction whose content is complete.
func (c *sinkSession) taken() error {
	if c.sink.Delay > 0 {
		if err := c.flush(); err != nil {
			return err
		}
		time.Sleep(c.sink.Delay)
	}
	c.verdicts()
	c.keep()
	c.clear()
	return nil
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
	c.messages++
	c.rcpts += int64(c.rcpt)
	if c.sink.CountOnly {
		return
	}
	m := c.message
	m.Data, m.Chunks, m.TLS, m.User, m.EHLO = bytes.Clone(c.data), c.chunks, c.secure, c.user, c.ehlo
	s := c.sink
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, m)
}

// chunk reads "size" or "size LAST".
func chunk(arg []byte) (size int64, last, ok bool) {
	digits, rest, more := bytes.Cut(arg, []byte(" "))
	if more && !bytes.EqualFold(rest, []byte("LAST")) || len(digits) == 0 || len(digits) > 18 {
		return 0, false, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false, false
		}
		size = size*10 + int64(d-'0')
	}
	return size, more, true
}

// path reads "FROM:<address> params" and "TO:<address> params"; quotes may hold angle brackets.
func path(arg []byte, prefix string) (address, params []byte, ok bool) {
	if len(arg) < len(prefix) || !bytes.EqualFold(arg[:len(prefix)], []byte(prefix)) {
		return nil, nil, false
	}
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(arg[len(prefix):], " "), []byte("<"))
	if !ok {
		return nil, nil, false
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && quoted:
			i++
		case rest[i] == '"':
			quoted = !quoted
		case rest[i] == '>' && !quoted:
			return rest[:i], bytes.TrimSpace(rest[i+1:]), true
		}
	}
	return nil, nil, false
}
