package smtptest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		io.WriteString(a, "hello") // nobody reads yet
		buf := make([]byte, 10)
		if n, err := b.(*PipeConn).Peek(buf); string(buf[:n]) != "hello" || err != nil {
			t.Errorf("peek: %q, %v", buf[:n], err)
		}
		if n, err := b.Read(buf); string(buf[:n]) != "hello" || err != nil {
			t.Errorf("read: %q, %v", buf[:n], err)
		}

		start := time.Now()
		b.SetReadDeadline(start.Add(5 * time.Minute))
		if _, err := b.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 5*time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		b.SetReadDeadline(time.Time{})

		a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, pipeLimit+1))
		if n != pipeLimit || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d of a full pipe: %v", n, err)
		}

		a.Close()
		if got, err := io.ReadAll(b); len(got) != pipeLimit || err != nil {
			t.Errorf("%d bytes were on their way: %v", len(got), err)
		}
		if _, err := b.(*PipeConn).Peek(buf); err != io.EOF {
			t.Errorf("peek at the end: %v", err)
		}
		if _, err := b.Write(buf); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
		if _, err := a.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed end: %v", err)
		}
	})
}

func TestPipeReset(t *testing.T) {
	a, b := Pipe()
	io.WriteString(a, "lost")
	a.(*PipeConn).Reset()
	if n, err := b.Read(make([]byte, 10)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d, %v", n, err)
	}
}

// fakeT takes what a Player reports.
type fakeT struct {
	testing.TB
	errors []string
	ends   []func()
}

func (t *fakeT) Helper()          {}
func (t *fakeT) Cleanup(f func()) { t.ends = append(t.ends, f) }
func (t *fakeT) Errorf(format string, args ...any) {
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}
func (t *fakeT) Fatal(args ...any) { t.errors = append(t.errors, fmt.Sprint(args...)) }

func TestPlay(t *testing.T) {
	tests := []struct{ name, dialogue, sent, want string }{
		{"as written", "S: 220 hello\nC: QUIT\nS: 221 bye", "QUIT\r\n", ""},
		{"by pattern", "S: 220\nC~ EHLO .+", "EHLO x\r\n", ""},
		{"another line", "S: 220\nC: QUIT", "RSET\r\n", `line 2 (C: QUIT): got "RSET\r\n"`},
		{"bare LF", "S: 220\nC: QUIT", "QUIT\n", `line 2 (C: QUIT): got "QUIT\n"`},
		{"nothing", "S: 220\nC: QUIT", "", `got "", then EOF`},
		{"not the pattern", "S: 220\nC~ EHLO .+", "EHLO \r\n", `got "EHLO \r\n"`},
		{"too early", "S: 220\nC: A\nS: 250", "A\r\nB\r\n", `the client has already sent "B\r\n"`},
		{"too much", "S: 220\nC: A\nS: 250\n! closed", "A\r\n|B\r\n", `got "B\r\n"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client, server := Pipe()
			fake := &fakeT{TB: t}
			Play(fake, server, test.dialogue, nil)
			buf := make([]byte, 100)
			for part := range strings.SplitSeq(test.sent, "|") {
				client.Read(buf)
				io.WriteString(client, part)
			}
			client.Close()
			for _, end := range fake.ends {
				end()
			}
			got := strings.Join(fake.errors, "; ")
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestDialogueSyntax(t *testing.T) {
	for _, bad := range []string{"X: a", "! what", "! sleep long", `! raw "x`, "C~ (", "hello"} {
		if _, err := parseDialogue(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestSink has another client send to it.
func TestSink(t *testing.T) {
	ca := CA(t)
	sink := &Sink{TLS: ca.Server(t, "127.0.0.1"), Username: "u", Password: "p"}
	address, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	c, err := smtp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	config := ca.Server(t)
	config.RootCAs, config.ServerName = ca.Pool, "127.0.0.1"
	steps := []struct {
		name string
		err  error
		want string
	}{
		{"starttls", c.StartTLS(config), ""},
		{"mail before auth", c.Mail("a@b"), "530"},
		{"auth", c.Auth(smtp.PlainAuth("", "u", "p", "127.0.0.1")), ""},
		{"mail", c.Mail("a@b"), ""},
		{"permfail", c.Rcpt("permfail@b"), "550"},
		{"tempfail", c.Rcpt("tempfail.x@b"), "450"},
		{"full", c.Rcpt("full@b"), "452"},
		{"code", c.Rcpt("555-x@b"), "555"},
		{"rcpt", c.Rcpt("c@d"), ""},
	}
	for _, s := range steps {
		if got := fmt.Sprint(s.err); s.want == "" && s.err != nil || !strings.HasPrefix(got, s.want) {
			t.Errorf("%s: %v, want %q", s.name, s.err, s.want)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, ".x\r\n..\r\ny\r\n")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	sink.Close()
	if messages, rcpts, _ := sink.Counts(); messages != 1 || rcpts != 1 {
		t.Errorf("%d messages, %d recipients", messages, rcpts)
	}
	m := sink.Messages()[0]
	if m.From != "a@b" || strings.Join(m.Rcpts, ",") != "c@d" || !m.TLS || m.User != "u" || !bytes.Equal(m.Data, []byte(".x\r\n..\r\ny\r\n")) {
		t.Errorf("%+v", m)
	}
	if total, most := sink.Sessions(); total != 1 || most != 1 {
		t.Errorf("%d sessions, %d at once", total, most)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("it still listens")
	}
}
