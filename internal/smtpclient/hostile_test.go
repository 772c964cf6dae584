package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// linePeer answers each command line with what reply returns; "" says nothing. A BDAT's content is read before
// its reply, unless early says otherwise.
type linePeer struct {
	conn  net.Conn
	in    *bufio.Reader
	hello string
	reply func(line string) string
	early bool // BDAT is answered before its content is read, which then is taken for commands
	mu    sync.Mutex
	lines []string
	got   [][]byte
}

func (p *linePeer) serve() {
	defer p.conn.Close()
	p.in = bufio.NewReader(p.conn)
	io.WriteString(p.conn, "220 mx\r\n")
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		p.mu.Lock()
		p.lines = append(p.lines, line)
		p.mu.Unlock()
		var answer string
		switch {
		case strings.HasPrefix(line, "EHLO"), strings.HasPrefix(line, "LHLO"):
			answer = p.hello
		case strings.HasPrefix(line, "BDAT ") && !p.early:
			n, _ := strconv.Atoi(strings.Fields(line)[1])
			b := make([]byte, n)
			if _, err := io.ReadFull(p.in, b); err != nil {
				return
			}
			p.mu.Lock()
			p.got = append(p.got, b)
			p.mu.Unlock()
			answer = p.reply(line)
		default:
			answer = p.reply(line)
		}
		if answer == "close" {
			return
		}
		if answer != "" {
			if _, err := io.WriteString(p.conn, answer+"\r\n"); err != nil {
				return
			}
		}
	}
}

const chunkingHello = "250-mx\r\n250-PIPELINING\r\n250 CHUNKING"

func openTo(t *testing.T, link smtptest.Link, p *linePeer, cfg *Config) *Session {
	t.Helper()
	client, server := link.Pipe()
	p.conn = server
	if p.hello == "" {
		p.hello = chunkingHello
	}
	if p.reply == nil {
		p.reply = func(string) string { return "250 ok" }
	}
	var served sync.WaitGroup
	served.Go(p.serve)
	t.Cleanup(served.Wait)
	cfg.LocalName = "c"
	s, err := Open(context.Background(), client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestBodyThatGrows: a body whose wire form has become longer than it was when it was inspected (bare LFs
// where there were none) must not complete the chunk that was declared.
func TestBodyThatGrows(t *testing.T) {
	for _, size := range []int{70_000, 300_000} {
		synctest.Test(t, func(t *testing.T) {
			p := &linePeer{}
			s := openTo(t, smtptest.Link{}, p, &Config{})
			reads := 0
			c := StreamContent(int64(size), func() (io.ReadCloser, error) {
				reads++
				if reads == 1 {
					return io.NopCloser(strings.NewReader(strings.Repeat("x", size))), nil
				}
				return io.NopCloser(strings.NewReader(strings.Repeat("\n", size-50_000) + strings.Repeat("NOOP\n", 10_000))), nil
			})
			tx := s.Send(context.Background(), oneTo("a@b"), c)
			r := tx.Results[0]
			s.Close()
			synctest.Wait()
			if len(p.got) > 0 {
				t.Errorf("%d: the peer took a message of %d bytes", size, len(p.got[0]))
			}
			for _, line := range p.lines {
				if line == "NOOP" || line == "" {
					t.Fatalf("%d: content was read as commands", size)
				}
			}
			if r.Err == nil || tx.Err.Kind != Body {
				t.Errorf("%d: %+v", size, r)
			}
		})
	}
}

// TestBDATThatIsNotKnown: a peer that offers CHUNKING and does not know BDAT is recognised by a large message too.
func TestBDATThatIsNotKnown(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, size := range []int{100, 60_000, 100_000, 1 << 20} {
			synctest.Test(t, func(t *testing.T) {
				p := &linePeer{early: true}
				p.reply = func(line string) string {
					switch strings.Fields(line + " x")[0] {
					case "MAIL", "RCPT", "RSET":
						return "250 ok"
					}
					return "502 5.5.2 command not recognized"
				}
				s := openTo(t, smtptest.Link{}, p, &Config{})
				text := bytes.Repeat([]byte("0123456789abcd\r\n"), size/16)
				c := BytesContent(text)
				if stream {
					c = StreamContent(int64(len(text)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
				}
				tx := s.Send(context.Background(), oneTo("a@b"), c)
				if r := tx.Results[0]; r.Err == nil || !tx.Again {
					t.Errorf("%d: %s, again %v, %+v", size, describe(&r), tx.Again, tx.Err)
				}
			})
		}
	}
}

// TestMovedParametersOfMany: two messages on their way whose MAIL is refused for parameters that the peer reads at
// RCPT: both are to be sent again, none is refused.
func TestMovedParametersOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &linePeer{hello: "250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 MT-PRIORITY"}
		mailed := false
		p.reply = func(line string) string {
			switch {
			case strings.HasPrefix(line, "RSET"):
				mailed = false
			case strings.HasPrefix(line, "MAIL"):
				if strings.Contains(line, "MT-PRIORITY") {
					return "555 5.5.4 MT-PRIORITY is not known"
				}
				mailed = true
			case !mailed:
				return "503 5.5.1 MAIL first"
			case strings.HasPrefix(line, "BDAT"):
				mailed = false
			}
			return "250 ok"
		}
		s := openTo(t, smtptest.Link{}, p, &Config{})
		priority := 3
		var callers sync.WaitGroup
		for i := range 4 {
			callers.Go(func() {
				env := oneTo(fmt.Sprintf("a%d@b", i))
				env.Rcpts[0].Options = &smtp.RcptOptions{MTPriority: &priority}
				tx := s.Send(context.Background(), env, BytesContent([]byte("x\r\n")))
				if r := tx.Results[0]; !r.Accepted && !tx.Again {
					t.Errorf("%d: %s", i, describe(&r))
				}
			})
		}
		callers.Wait()
		s.Close()
		synctest.Wait()
	})
}

// TestBodyThatBlocks: a body that blocks holds up nobody but its own call when the session ends.
func TestBodyThatBlocks(t *testing.T) {
	for _, end := range []string{"Close", "peer closes", "peer silent"} {
		synctest.Test(t, func(t *testing.T) {
			p := &linePeer{}
			p.reply = func(line string) string {
				if strings.HasPrefix(line, "BDAT") {
					return "" // never
				}
				return "250 ok"
			}
			s := openTo(t, smtptest.Link{}, p, &Config{})
			release := make(chan struct{})
			inBody := make(chan struct{})
			reads := 0
			c := StreamContent(3, func() (io.ReadCloser, error) {
				if reads++; reads == 2 {
					close(inBody)
					<-release
				}
				return io.NopCloser(strings.NewReader("x\r\n")), nil
			})
			var callers, blocked sync.WaitGroup
			for range 2 {
				callers.Go(func() { s.Send(context.Background(), oneTo("a@b"), BytesContent([]byte("x\r\n"))) })
				synctest.Wait()
			}
			blocked.Go(func() { s.Send(context.Background(), oneTo("blocked@b"), c) })
			<-inBody
			callers.Go(func() { s.Send(context.Background(), oneTo("c@b"), BytesContent([]byte("x\r\n"))) })
			synctest.Wait()
			switch end {
			case "Close":
				s.Close()
			case "peer closes":
				p.conn.Close()
			}
			done := make(chan struct{})
			go func() { callers.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(time.Hour):
				t.Errorf("%s: the neighbours wait for a body that is not theirs", end)
			}
			close(release)
			blocked.Wait()
			callers.Wait()
		})
	}
}
