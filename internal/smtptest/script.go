package smtptest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Play plays the server's side of a dialogue on conn, in a goroutine, and reports every departure from
// it as an error of t. It closes conn at the end. The dialogue is text, a line each:
//
//	S: 220 mx.example ESMTP     send this line
//	C: EHLO client.example      the client must send exactly this line
//	C~ EHLO .*                  or one that this pattern matches from end to end
//	! raw "250 half"            send these bytes, a Go string
//	! sleep 5m                  wait
//	! starttls                  be the server of a TLS handshake
//	! closed                    the client must send nothing more and close
//	! stall                     say nothing more and read nothing, until the client closes
//	! drain                     say nothing more, but read until the client closes
//	! close                     close
//	! reset                     close as a reset does
//	# a comment
//
// Empty lines are passed over. Before it says anything the peer checks that the client has not sent more
// than the lines before that, so that consecutive C: lines are a pipelined group. A dialogue that ends
// without a directive ends with "closed".
func Play(t testing.TB, conn net.Conn, dialogue string, config *tls.Config) *Player {
	t.Helper()
	p := &Player{conn: conn, raw: conn, tls: config, in: bufio.NewReader(conn), done: make(chan struct{})}
	steps, err := parseDialogue(dialogue)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		defer conn.Close()
		for _, s := range steps {
			if err := p.play(s); err != nil {
				t.Errorf("dialogue line %d (%s): %v", s.line, s.text, err)
				return
			}
		}
	}()
	t.Cleanup(p.Wait)
	return p
}

// Player is a peer that plays a dialogue.
type Player struct {
	raw  net.Conn
	conn net.Conn
	in   *bufio.Reader
	tls  *tls.Config
	done chan struct{}
}

// Wait waits until the dialogue is over.
func (p *Player) Wait() { <-p.done }

type dialogueStep struct {
	line    int
	text    string
	do      string // "S", "C", "C~", or the directive
	arg     string
	pattern *regexp.Regexp
}

func parseDialogue(text string) ([]dialogueStep, error) {
	var steps []dialogueStep
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimLeft(line, " \t")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("dialogue line %d: %q: %w", i+1, line, err)
		}
		s.line = i + 1
		steps = append(steps, s)
	}
	if len(steps) == 0 || strings.HasPrefix(steps[len(steps)-1].text, "S:") || strings.HasPrefix(steps[len(steps)-1].text, "C") {
		steps = append(steps, dialogueStep{text: "! closed", do: "closed"})
	}
	return steps, nil
}

func parseStep(line string) (s dialogueStep, err error) {
	s.text = line
	head, rest := line[:min(2, len(line))], strings.TrimPrefix(line[min(2, len(line)):], " ")
	switch head {
	case "S:", "C:":
		s.do, s.arg = head[:1], rest
		return s, nil
	case "C~":
		s.do = head
		s.pattern, err = regexp.Compile("^(?:" + rest + ")$")
		return s, err
	case "! ":
		s.do, s.arg, _ = strings.Cut(strings.TrimSpace(rest), " ")
	}
	switch s.do {
	case "raw":
		s.arg, err = strconv.Unquote(s.arg)
	case "sleep":
		_, err = time.ParseDuration(s.arg)
	case "starttls", "closed", "stall", "drain", "close", "reset":
	default:
		err = errors.New("not a line of a dialogue")
	}
	return s, err
}

func (p *Player) play(s dialogueStep) error {
	switch s.do {
	case "C", "C~":
		return p.expect(s)
	case "S":
		return p.say(s.arg + "\r\n")
	case "raw":
		return p.say(s.arg)
	case "sleep":
		d, err := time.ParseDuration(s.arg)
		time.Sleep(d)
		return err
	case "starttls":
		return p.handshake()
	case "closed":
		return p.expectEnd()
	case "stall":
		return p.stall()
	case "drain":
		_, err := io.Copy(io.Discard, p.in)
		return ignoreEnd(err)
	case "close":
		return p.conn.Close()
	case "reset":
		reset(p.raw)
	}
	return nil
}

func (p *Player) expect(s dialogueStep) error {
	got, err := p.in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("got %q, then %w", got, err)
	}
	line, ok := strings.CutSuffix(got, "\r\n")
	if !ok || s.pattern == nil && line != s.arg || s.pattern != nil && !s.pattern.MatchString(line) {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

func (p *Player) say(text string) error {
	if n := p.in.Buffered(); n > 0 {
		early, _ := p.in.Peek(n)
		return fmt.Errorf("the client has already sent %q", early)
	}
	_, err := io.WriteString(p.conn, text)
	return ignoreEnd(err)
}

func (p *Player) handshake() error {
	if p.tls == nil {
		return errors.New("the test has given no TLS config")
	}
	conn := tls.Server(p.raw, p.tls)
	p.conn, p.in = conn, bufio.NewReader(conn)
	// What becomes of the handshake shows at the client, and in the lines that follow here.
	conn.Handshake()
	return nil
}

func (p *Player) expectEnd() error {
	rest, err := io.ReadAll(p.in)
	if len(rest) > 0 {
		return fmt.Errorf("got %q", rest)
	}
	return ignoreEnd(err)
}

// stall waits for the client to go, which a peer that does not read can see only in memory.
func (p *Player) stall() error {
	c, ok := p.raw.(*PipeConn)
	if !ok {
		return errors.New("stall needs a Pipe")
	}
	c.in.waitEnd()
	return nil
}

func reset(conn net.Conn) {
	switch c := conn.(type) {
	case *PipeConn:
		c.Reset()
	case *net.TCPConn:
		c.SetLinger(0)
		c.Close()
	default:
		c.Close()
	}
}

// ignoreEnd: that the client has gone is no departure; what it should have said before would have been.
func ignoreEnd(err error) error {
	var alert tls.AlertError
	var op *net.OpError
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &alert) || errors.As(err, &op) || isBroken(err) {
		return nil
	}
	return err
}
