package smtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// recording is a trace that writes down what it is shown. It has no lock of its own: the trace of a session
// needs none.
type recording struct{ lines []string }

func (r *recording) add(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *recording) trace() *Trace {
	return &Trace{
		Sent:     func(line string) { r.add("C: %s", line) },
		Received: func(line string) { r.add("S: %s", line) },
		TLS:      func(tls.ConnectionState) { r.add("handshake") },
		Stage: func(stage Stage, took time.Duration, err error) {
			if err != nil {
				r.add("%s after %v: %v", stage, took, err)
			} else {
				r.add("%s after %v", stage, took)
			}
		},
		Reply: func(command string, reply Reply, took time.Duration) {
			r.add("%s after %v: %s", command, took, reply)
		},
	}
}

// TestTraceOfADialogue: a dialogue over 100 ms, with a peer that takes 30 ms for a recipient, is told in its order and
// with its times. Each reply has the time for which it was the next one due.
func TestTraceOfADialogue(t *testing.T) {
	ca := smtptest.CA(t)
	synctest.Test(t, func(t *testing.T) {
		client, server := smtptest.Link{Latency: 50 * time.Millisecond}.Pipe()
		player := smtptest.Play(t, server, `
			! sleep 10ms
			S: 220 mx
			C: EHLO c
			S: 250-mx
			S: 250 STARTTLS
			C: STARTTLS
			S: 220 go ahead
			! starttls
			C: EHLO c
			S: 250-mx
			S: 250-PIPELINING
			S: 250 AUTH PLAIN
			C: AUTH PLAIN AHUAcA==
			! sleep 20ms
			S: 235 welcome
			C: MAIL FROM:<sender@example.org>
			C: RCPT TO:<a@example.com>
			C: RCPT TO:<b@example.com>
			C: DATA
			S: 250 ok
			! sleep 30ms
			S: 250 ok
			! sleep 30ms
			S: 550-5.1.1 not
			S: 550 5.1.1 here
			S: 354 go ahead
			C: hello
			C: .
			S: 250 taken
			C: QUIT
			S: 221 bye
		`, ca.Server(t, "mx.example"))
		var got recording
		s, err := Open(t.Context(), client, &Config{Host: "mx.example", LocalName: "c", Trace: got.trace(),
			TLSConfig: &tls.Config{RootCAs: ca.Pool}, Auth: &Auth{Username: "u", Password: "p"}})
		if err != nil {
			t.Fatal(err)
		}
		env := &Envelope{From: "sender@example.org", Rcpts: []Rcpt{{Address: "a@example.com"}, {Address: "b@example.com"}}}
		s.Send(context.Background(), env, BytesContent([]byte("hello\r\n")))
		s.Quit(0)
		player.Wait()
		want := `
S: 220 mx
banner after 60ms
C: EHLO c
S: 250-mx
S: 250 STARTTLS
EHLO after 100ms
C: STARTTLS
S: 220 go ahead
STARTTLS after 100ms
handshake
TLS after 100ms
C: EHLO c
S: 250-mx
S: 250-PIPELINING
S: 250 AUTH PLAIN
EHLO after 100ms
C: AUTH PLAIN ***
S: 235 welcome
AUTH after 120ms
C: MAIL FROM:<sender@example.org>
C: RCPT TO:<a@example.com>
C: RCPT TO:<b@example.com>
C: DATA
S: 250 ok
MAIL after 100ms: 250 ok
S: 250 ok
RCPT after 30ms: 250 ok
S: 550-5.1.1 not
S: 550 5.1.1 here
RCPT after 30ms: 550 5.1.1 not here
S: 354 go ahead
DATA after 0s: 354 go ahead
C: [7 bytes of content]
C: .
S: 250 taken
. after 100ms: 250 taken
C: QUIT
S: 221 bye
`
		if got := "\n" + strings.Join(got.lines, "\n") + "\n"; got != want {
			t.Errorf("got:%swant:%s", got, want)
		}
	})
}

// TestTraceOfManyCalls: whoever calls, the trace is told one thing after the other, each reply right behind its
// line and under its command.
func TestTraceOfManyCalls(t *testing.T) {
	for _, mode := range []string{chunking, pipelining} {
		sink := &smtptest.Sink{CountOnly: true}
		client, server := smtptest.Pipe()
		sink.ServeConn(server)
		var got recording
		s, err := Open(t.Context(), client, &Config{LocalName: "c", Trace: got.trace(), DisableChunking: mode != chunking})
		if err != nil {
			t.Fatal(err)
		}
		const messages = 200
		sendFrom(t, s, 40, messages, BytesContent([]byte("hello\r\n")))
		s.Quit(0)
		sink.Close()
		var asked []string // verbs without an answer
		ended := 0
		opened := slices.IndexFunc(got.lines, func(line string) bool { return strings.HasPrefix(line, "EHLO after ") })
		for i, line := range got.lines[opened+1:] {
			verb, _, _ := strings.Cut(strings.TrimPrefix(line, "C: "), " ")
			switch {
			case strings.HasPrefix(line, "C: [") || verb == "QUIT":
			case strings.HasPrefix(line, "C: "):
				asked = append(asked, verb)
			case !strings.HasPrefix(line, "S: "):
				if len(asked) == 0 || asked[0] != verb {
					t.Fatalf("%s, line %d: %q, and %q were asked", mode, i, line, asked)
				}
				asked = asked[1:]
				if verb == "BDAT" || verb == "." {
					ended++
				}
			}
		}
		if ended != messages || len(asked) > 0 {
			t.Errorf("%s: %d ends, and without a reply: %q", mode, ended, asked)
		}
	}
}

// TestTraceOfFailures: a stage that fails is told last, once, with Open's error and without the time of the
// goodbye.
func TestTraceOfFailures(t *testing.T) {
	ca, other := smtptest.CA(t), smtptest.CA(t)
	tests := []struct {
		name, dialogue string
		cfg            Config
		want           string
	}{
		{"banner", "! sleep 3s\nS: 554 no", Config{}, "banner after 3s: the peer greeted with 554 no"},
		{"silence", "S: 220 mx\nC: EHLO c\n! drain", Config{Timeouts: Timeouts{EHLO: 7 * time.Second}}, "EHLO after 7s: "},
		{"EHLO", "! sleep 1s\nS: 220 mx\nC: EHLO c\n! sleep 2s\nS: 550 no\nC: QUIT\n! sleep 1s\nS: 221 bye", Config{},
			"EHLO after 2s: the peer answered EHLO with 550 no"},
		{"no TLS", "S: 220 mx\nC: EHLO c\nS: 250 mx\nC: QUIT\nS: 221 bye", Config{TLS: TLSRequired},
			"STARTTLS after 0s: TLS is required, and the peer does not offer STARTTLS"},
		{"handshake", "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n! starttls",
			Config{Host: "mx.example", TLSConfig: &tls.Config{RootCAs: other.Pool}}, "TLS after 0s: the TLS handshake failed: "},
		{"AUTH", "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 AUTH PLAIN\nC~ AUTH.*\n! sleep 4s\nS: 535 no\nC: QUIT\n! drain",
			Config{Auth: &Auth{Username: "u", Password: "p", AllowWithoutTLS: true}}, "AUTH after 4s: the peer answered AUTH with 535 no"},
		{"context", "! drain", Config{}, "banner after 1m0s: the caller has gone"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := smtptest.Pipe()
				player := smtptest.Play(t, server, test.dialogue, ca.Server(t, "mx.example"))
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the caller has gone"))
				defer cancel()
				var got recording
				var told error
				test.cfg.LocalName, test.cfg.Trace = "c", got.trace()
				show := test.cfg.Trace.Stage
				test.cfg.Trace.Stage = func(stage Stage, took time.Duration, err error) {
					show(stage, took, err)
					told = err
				}
				_, err := Open(ctx, client, &test.cfg)
				if err == nil || err != told {
					t.Errorf("Open returns %v, the trace was told %v", err, told)
				}
				player.Wait()
				last := got.lines[len(got.lines)-1]
				if !strings.HasPrefix(last, test.want) {
					t.Errorf("got  %s\nwant %s", last, test.want)
				}
				for _, line := range got.lines[:len(got.lines)-1] {
					if stage, _, _ := strings.Cut(test.want, " "); strings.HasPrefix(line, stage+" after ") {
						t.Errorf("%s, and then %s", line, last)
					}
				}
			})
		})
	}
}

// TestNoTraceIsFree: what nobody listens to is not rendered.
func TestNoTraceIsFree(t *testing.T) {
	s := &Session{}
	s.log.limit = -1
	tr := newTransfer(oneTo("rcpt@example.com"), BytesContent(nil))
	tr.sent = tr.stepDot()
	s.flight.push(tr)
	r := &reply{code: 250, text: []byte("a text that would have to be copied")}
	refusal := &OpenError{Stage: StageAuth, Reply: &Reply{Code: 535}}
	allocs := testing.AllocsPerRun(100, func() {
		tr.due, tr.accepted, tr.rcpts[0] = stepMail, 0, rcptOpen
		if err := errors.Join(s.take(r), s.take(r)); err != nil {
			t.Fatal(err)
		}
		s.log.received([]byte("250 ok\n"))
		s.stageEnded(StageAuth, refusal)
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
