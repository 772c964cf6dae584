package smtpclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	netsmtp "net/smtp"
	"strings"
	"sync/atomic"

	"github.com/emersion/go-smtp"
)

// The ways a client may speak in benchmarks. Other clients have one of their own, whatever is asked.
const (
	chunking   = "chunking"
	pipelining = "pipelining" // but no CHUNKING
	lockstep   = "lockstep"   // neither
)

const benchFrom, benchTo = "sender@example.org", "rcpt@example.com"

// benchContent is text of so many bytes.
func benchContent(size int) []byte {
	line := "The quick brown fox jumps over the lazy dog, as it has done all day long.\r\n"
	return []byte(strings.Repeat(line, size/len(line)+1)[:size-2] + "\r\n")
}

// A benchClient sends one and the same message again and again over one connection.
type benchClient interface {
	send(ctx context.Context) error
	close()
}

// clientSpec says which client, and how it is to speak.
type clientSpec struct {
	client  string // "delivery", "go-smtp", "net/smtp"
	mode    string // for delivery
	stream  bool   // for delivery: the content comes from a reader
	content []byte
	tls     *tls.Config // STARTTLS where set
	peer    *Peer
}

// concurrent reports whether many callers may use one connection.
func (spec *clientSpec) concurrent() bool { return spec.client == "delivery" }

// open makes a client of a connection; it has said its EHLO.
func (spec *clientSpec) open(ctx context.Context, conn net.Conn) (benchClient, error) {
	switch spec.client {
	case "delivery":
		return openDelivery(ctx, conn, spec)
	case "go-smtp":
		return openGoSMTP(conn, spec)
	case "net/smtp":
		return openNetSMTP(conn, spec)
	}
	return nil, fmt.Errorf("no client is called %q", spec.client)
}

type deliveryClient struct {
	*clientSpec
	s   *Session
	env *Envelope
}

func openDelivery(ctx context.Context, conn net.Conn, spec *clientSpec) (benchClient, error) {
	cfg := &Config{
		Host: "sink.example", LocalName: "client.example", TLS: TLSDisabled, Peer: spec.peer,
		DisableChunking:   spec.mode != chunking,
		DisablePipelining: spec.mode == lockstep,
	}
	if spec.tls != nil {
		cfg.TLS, cfg.TLSConfig = TLSRequired, spec.tls
	}
	s, err := Open(ctx, conn, cfg)
	if err != nil {
		return nil, err
	}
	return &deliveryClient{spec, s, &Envelope{From: benchFrom, Rcpts: []Rcpt{{Address: benchTo}}}}, nil
}

func (c *deliveryClient) send(ctx context.Context) error {
	content := BytesContent(c.content)
	if c.stream {
		content = StreamContent(int64(len(c.content)), func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(c.content)), nil
		})
	}
	tx := c.s.Send(ctx, c.env, content)
	switch r := &tx.Results[0]; {
	case r.Accepted:
		return nil
	case r.Err != nil:
		return r.Err
	default:
		return fmt.Errorf("%s: %d %s", r.Command, r.Reply.Code, r.Reply.Text)
	}
}

func (c *deliveryClient) close() { c.s.Close() }

type goSMTPClient struct {
	*clientSpec
	c *smtp.Client
}

func openGoSMTP(conn net.Conn, spec *clientSpec) (benchClient, error) {
	if spec.tls != nil {
		c, err := smtp.NewClientStartTLS(conn, spec.tls)
		return &goSMTPClient{spec, c}, err
	}
	c := smtp.NewClient(conn)
	return &goSMTPClient{spec, c}, c.Hello("client.example")
}

func (c *goSMTPClient) send(context.Context) error {
	return c.c.SendMail(benchFrom, []string{benchTo}, bytes.NewReader(c.content))
}

func (c *goSMTPClient) close() { c.c.Close() }

type netSMTPClient struct {
	*clientSpec
	c *netsmtp.Client
}

func openNetSMTP(conn net.Conn, spec *clientSpec) (benchClient, error) {
	c, err := netsmtp.NewClient(conn, "sink.example")
	if err != nil {
		return nil, err
	}
	if err := c.Hello("client.example"); err != nil {
		return nil, err
	}
	if spec.tls != nil {
		err = c.StartTLS(spec.tls)
	}
	return &netSMTPClient{spec, c}, err
}

func (c *netSMTPClient) send(context.Context) error {
	if err := c.c.Mail(benchFrom); err != nil {
		return err
	}
	if err := c.c.Rcpt(benchTo); err != nil {
		return err
	}
	w, err := c.c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(c.content); err != nil {
		return err
	}
	return w.Close()
}

func (c *netSMTPClient) close() { c.c.Close() }

// rawClient is the floor that clients are compared with: it writes transactions that were rendered
// before, and counts replies.
type rawClient struct {
	conn   net.Conn
	window int    // transactions on their way
	group  []byte // window of them; with DATA the envelope of one
	size   int    // of a transaction
	data   []byte // content and the next envelope; nil with CHUNKING
	buf    [16 << 10]byte
}

func openRaw(conn net.Conn, spec *clientSpec, window int) (*rawClient, error) {
	envelope := fmt.Sprintf("MAIL FROM:<%s> SIZE=%d\r\nRCPT TO:<%s>\r\n", benchFrom, len(spec.content), benchTo)
	c := &rawClient{conn: conn, window: window}
	if spec.mode == chunking {
		one := fmt.Appendf(nil, "RSET\r\n%sBDAT %d LAST\r\n%s", envelope, len(spec.content), spec.content)
		c.group, c.size = bytes.Repeat(one, window), len(one)
	} else {
		c.group = []byte(envelope + "DATA\r\n")
		c.size = len(spec.content) + len(".\r\n")
		c.data = append(append(bytes.Clone(spec.content), ".\r\n"...), c.group...)
	}
	if _, err := io.WriteString(conn, "HELO client.example\r\n"); err != nil {
		return nil, err
	}
	return c, c.replies(2)
}

// replies waits for so many lines.
func (c *rawClient) replies(want int) error {
	for want > 0 {
		n, err := c.read()
		if err != nil {
			return err
		}
		want -= n
	}
	return nil
}

func (c *rawClient) read() (lines int, err error) {
	n, err := c.conn.Read(c.buf[:])
	return bytes.Count(c.buf[:n], []byte{'\n'}), err
}

// run sends what it can claim.
func (c *rawClient) run(claim func(want int) int) error {
	if c.data != nil {
		return c.runData(claim)
	}
	const each = 4 // replies: RSET, MAIL, RCPT, BDAT
	for waiting, lines := 0, 0; ; {
		n := claim(c.window - waiting)
		if n == 0 && waiting == 0 {
			return nil
		}
		if n > 0 {
			if _, err := c.conn.Write(c.group[:n*c.size]); err != nil {
				return err
			}
			waiting += n
		}
		got, err := c.read()
		if err != nil {
			return err
		}
		lines += got
		waiting -= lines / each
		lines %= each
	}
}

// runData overlaps: the content of one message and the envelope of the next go out together, RFC 2920
// section 3.1.
func (c *rawClient) runData(claim func(want int) int) error {
	if claim(1) == 0 {
		return nil
	}
	const each = 3 // replies: MAIL, RCPT, DATA
	if _, err := c.conn.Write(c.group); err != nil {
		return err
	}
	if err := c.replies(each); err != nil {
		return err
	}
	for more := true; more; {
		out, want := c.data, 1+each
		if more = claim(1) > 0; !more {
			out, want = c.data[:c.size], 1
		}
		if _, err := c.conn.Write(out); err != nil {
			return err
		}
		if err := c.replies(want); err != nil {
			return err
		}
	}
	return nil
}

// claimFrom hands out so many messages to whoever claims them first.
func claimFrom(messages int64) func(want int) int {
	var left atomic.Int64
	left.Store(messages)
	return func(want int) int {
		after := left.Add(-int64(want))
		return int(max(0, min(int64(want), after+int64(want))))
	}
}
