package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// flawedConn is a connection with faults of its own.
type flawedConn struct {
	net.Conn
	deadlineErr error
	writeErr    error // of each write
}

func (c *flawedConn) SetDeadline(t time.Time) error {
	if c.deadlineErr != nil {
		return c.deadlineErr
	}
	return c.Conn.SetDeadline(t)
}

func (c *flawedConn) Write(b []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return c.Conn.Write(b)
}

// TestNoDeadlines: a connection on which no wait would end is given back at once.
func TestNoDeadlines(t *testing.T) {
	client, server := smtptest.Pipe()
	io.WriteString(server, "220 mx\r\n")
	_, err := Open(t.Context(), &flawedConn{Conn: client, deadlineErr: os.ErrNoDeadline}, &Config{LocalName: "c"})
	var oe *OpenError
	if !errors.As(err, &oe) || oe.Stage != StageBanner || !errors.Is(err, os.ErrNoDeadline) || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("%v", err)
	}
	if said, err := io.ReadAll(server); len(said) > 0 || err != nil {
		t.Errorf("not closed: %q, %v", said, err)
	}
}

func TestLocalNameIsOneWord(t *testing.T) {
	for _, name := range []string{"a b", "a\r\nRSET", "a\x00", "\x7f"} {
		client, server := smtptest.Pipe()
		io.WriteString(server, "220 mx\r\n")
		_, err := Open(t.Context(), client, &Config{LocalName: name})
		var oe *OpenError
		if !errors.As(err, &oe) || oe.Stage != StageEHLO || !strings.Contains(err.Error(), "LocalName") {
			t.Errorf("%q: %v", name, err)
		}
		if said, _ := io.ReadAll(server); len(said) > 0 {
			t.Errorf("%q: sent %q", name, said)
		}
	}
}

// TestWriteFails: what the peer said before it stopped reading is the verdict; where it said nothing, the
// error tells how long the write was given, not how long the last word was waited for.
func TestWriteFails(t *testing.T) {
	tests := []struct {
		name, said string
		writeErr   error
		want       string
		after      time.Duration
	}{
		{"a last word", "220 mx\r\n421 4.3.2 too busy\r\n", syscall.EPIPE, "the peer answered EHLO with 421 4.3.2 too busy", 0},
		{"silence", "220 mx\r\n", syscall.EPIPE, "sending EHLO failed: broken pipe", farewell},
		{"no room", "220 mx\r\n", os.ErrDeadlineExceeded, "Timed Out waiting 7m to write EHLO", farewell},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			client, server := smtptest.Pipe()
			defer server.Close()
			conn := &flawedConn{Conn: client, writeErr: test.writeErr}
			greeting, rest, _ := strings.Cut(test.said, "\n")
			io.WriteString(server, greeting+"\n")
			go func() {
				time.Sleep(time.Nanosecond) // after the greeting was read
				io.WriteString(server, rest)
			}()
			start := time.Now()
			_, err := Open(context.Background(), conn, &Config{LocalName: "c", Timeouts: Timeouts{EHLO: 7 * time.Minute}})
			if err == nil || err.Error() != test.want {
				t.Errorf("%s: %v, want %s", test.name, err, test.want)
			}
			if took := time.Since(start).Truncate(time.Second); took != test.after {
				t.Errorf("%s: took %v", test.name, took)
			}
		})
	}
}

// TestGroupIsNotTaken: where the peer does not read a group of commands, the error names all of them.
func TestGroupIsNotTaken(t *testing.T) {
	tests := []struct {
		offer   string
		timeout time.Duration
		want    string
	}{
		{"S: 250 PIPELINING", 90 * time.Second, "Timed Out waiting 1m 30s to write MAIL,RCPT,DATA"},
		{"S: 250-PIPELINING\nS: 250 CHUNKING", 300 * time.Millisecond, "Timed Out waiting 300ms to write MAIL,RCPT,BDAT"},
		{"S: 250 8BITMIME", time.Hour, "Timed Out waiting 1h to write MAIL"},
	}
	env := &Envelope{From: strings.Repeat("a", 60) + "@example.org"}
	for i := range 5 {
		env.Rcpts = append(env.Rcpts, Rcpt{Address: fmt.Sprintf("rcpt%d@example.com", i)})
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			client, server := smtptest.Link{Buffer: 64}.Pipe()
			player := smtptest.Play(t, server, "S: 220 mx\nC: EHLO c\nS: 250-mx\n"+test.offer+"\n! stall", nil)
			s, err := Open(t.Context(), client, &Config{LocalName: "c", Timeouts: Timeouts{Data: test.timeout}})
			if err != nil {
				t.Fatal(err)
			}
			tx := s.Send(context.Background(), env, BytesContent([]byte("hello\r\n")))
			s.Close()
			player.Wait()
			if tx.Err == nil || tx.Err.Error() != test.want || tx.Err.Kind != Timeout || tx.Err.Command != "MAIL" {
				t.Errorf("got  %v\nwant %s", tx.Err, test.want)
			}
			var netErr net.Error
			if !errors.Is(tx.Err, os.ErrDeadlineExceeded) || !errors.As(error(tx.Err), &netErr) || !netErr.Timeout() {
				t.Errorf("not a timeout: %#v", tx.Err)
			}
		})
	}
}

// TestLoginIsSecret: neither user name nor password is shown.
func TestLoginIsSecret(t *testing.T) {
	client, server := smtptest.Pipe()
	player := smtptest.Play(t, server, `
		S: 220 mx
		C: EHLO c
		S: 250-mx
		S: 250 AUTH LOGIN
		C: AUTH LOGIN
		S: 334 VXNlcm5hbWU6
		C: dXNlcg==
		S: 334 UGFzc3dvcmQ6
		C: c2VjcmV0
		S: 235 ok
		C: QUIT
		S: 221 bye
	`, nil)
	var lines []string
	show := func(line string) { lines = append(lines, line) }
	s, err := Open(t.Context(), client, &Config{LocalName: "c", Trace: &Trace{Sent: show, Received: show},
		Auth: &Auth{Username: "user", Password: "secret", AllowWithoutTLS: true}})
	if err != nil {
		t.Fatal(err)
	}
	s.Quit(0)
	player.Wait()
	shown := strings.Join(append(lines, s.Transcript()...), "\n")
	if strings.Contains(shown, "dXNlcg") || strings.Contains(shown, "c2VjcmV0") || strings.Count(shown, "***") != 4 {
		t.Errorf("shown:\n%s", shown)
	}
}
