package smtpclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

func dial(t testing.TB, address string, cfg *Config) *Session {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.LocalName = "client.example"
	s, err := Open(context.Background(), conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recorder is a backend of go-smtp's server that writes down what it gets.
type recorder struct{ got chan string }

func (r *recorder) NewSession(*smtp.Conn) (smtp.Session, error) { return r, nil }
func (r *recorder) Reset()                                      {}
func (r *recorder) Logout() error                               { return nil }
func (r *recorder) Mail(from string, o *smtp.MailOptions) error {
	r.got <- fmt.Sprintf("%s %s %d %q %s utf8=%v", from, o.Body, o.Size, o.EnvelopeID, o.Return, o.UTF8)
	return nil
}
func (r *recorder) Rcpt(to string, o *smtp.RcptOptions) error {
	r.got <- fmt.Sprintf("%s %v %s %s", to, o.Notify, o.OriginalRecipientType, o.OriginalRecipient)
	return nil
}
func (r *recorder) Data(in io.Reader) error {
	b, err := io.ReadAll(in)
	r.got <- string(b)
	return err
}

func oneTo(rcpt string) *Envelope {
	return &Envelope{From: "sender@example.org", Rcpts: []Rcpt{{Address: rcpt}}}
}

// sendAgain sends a message again where Send asks for that, once.
func sendAgain(s *Session, env *Envelope, c *Content) *Transaction {
	tx := s.Send(context.Background(), env, c)
	if tx.Again {
		tx = s.Send(context.Background(), env, c)
	}
	return tx
}

// TestBytesInBytesOut sends contents of many shapes and sizes over TCP, in clear and under TLS, as
// bytes and as a stream, with and without PIPELINING.
func TestBytesInBytesOut(t *testing.T) {
	ca := smtptest.CA(t)
	line := []byte("The quick brown fox jumps over the lazy dog.\r\n")
	contents := map[string][]byte{
		"empty":      nil,
		"small":      line,
		"4 KiB":      bytes.Repeat(line, 90),
		"30 KiB":     bytes.Repeat(line, 700),
		"1 MiB":      bytes.Repeat(line, 23_000),
		"dots":       bytes.Repeat([]byte(".\r\n"), 30_000),
		"Unix":       bytes.Repeat([]byte(".a\n"), 30_000),
		"one line":   bytes.Repeat([]byte("x"), 10<<20),
		"CRs":        bytes.Repeat([]byte("\r"), 100_000),
		"block ends": append(bytes.Repeat([]byte("x"), blockSize-1), "\r\n.\r\n.\n\r"...),
		"8-bit":      bytes.Repeat([]byte("\xe4\xff\r\n"), 5_000),
	}
	for _, sink := range []*smtptest.Sink{{}, {Hide: []string{"PIPELINING"}}, {TLS: ca.Server(t, "127.0.0.1")}} {
		address, err := sink.Listen()
		if err != nil {
			t.Fatal(err)
		}
		s := dial(t, address, &Config{Host: "127.0.0.1", TLSConfig: &tls.Config{RootCAs: ca.Pool}})
		for name, content := range contents {
			stream := StreamContent(int64(len(content)), func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(content)), nil
			})
			for _, c := range []*Content{BytesContent(content), stream} {
				tx := s.Send(context.Background(), oneTo("rcpt@example.com"), c)
				if !tx.Results[0].Accepted {
					t.Fatalf("%s: %s, %v", name, describe(&tx.Results[0]), tx.Err)
				}
				messages := sink.Messages()
				if got := messages[len(messages)-1].Data; !bytes.Equal(got, normal(content)) {
					t.Errorf("%s: %d bytes arrived instead of %d", name, len(got), len(normal(content)))
				}
				if got, want := messages[len(messages)-1].MailParams, fmt.Sprintf("SIZE=%d", len(normal(content))); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
		}
		s.Quit(0)
		sink.Close()
	}
}

// TestBrokenBody: no end of data for a body that does not keep its promise.
func TestBrokenBody(t *testing.T) {
	boom := errors.New("boom")
	line := strings.Repeat("x", 76) + "\r\n"
	text := strings.Repeat(line, 5000)
	readers := map[string]io.Reader{
		"fails":     io.MultiReader(strings.NewReader(text[:200_000]), errReader{boom}),
		"fails now": errReader{boom},
		"short":     strings.NewReader(text[:len(text)-1]),
		"long":      strings.NewReader(text + "x"),
		"differs":   strings.NewReader(text[:len(text)-3] + "\n\n\n"),
	}
	for name, second := range readers {
		synctest.Test(t, func(t *testing.T) {
			sink := &smtptest.Sink{}
			client, server := smtptest.Pipe()
			sink.ServeConn(server)
			s, err := Open(t.Context(), client, &Config{LocalName: "c"})
			if err != nil {
				t.Fatal(err)
			}
			first := true
			c := StreamContent(int64(len(text)), func() (io.ReadCloser, error) {
				if first {
					first = false
					return io.NopCloser(strings.NewReader(text)), nil
				}
				return io.NopCloser(second), nil
			})
			tx := s.Send(context.Background(), &Envelope{Rcpts: []Rcpt{{Address: "a@b"}, {Address: "permfail@b"}}}, c)
			if r := tx.Results[0]; r.Err == nil || r.MaybeDelivered || tx.Err.Kind != Body || tx.Err.Command != "BDAT" {
				t.Errorf("%s: %+v, %+v", name, r, tx.Err)
			}
			if strings.HasPrefix(name, "fails") && !errors.Is(tx.Err, boom) {
				t.Errorf("%s: %v does not wrap the cause", name, tx.Err)
			}
			if tx.ContentBegan == (name == "fails now") {
				t.Errorf("%s: content began is %v", name, tx.ContentBegan)
			}
			if r := tx.Results[1]; r.Reply.Code != 550 {
				t.Errorf("%s: the refused recipient has %+v", name, r)
			}
			if s.Usable() {
				t.Errorf("%s: usable", name)
			}
			sink.Close()
			if n, _, _ := sink.Counts(); n > 0 {
				t.Errorf("%s: the peer took the message", name)
			}
		})
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestClose cuts a session at every point at which it can block.
func TestClose(t *testing.T) {
	tests := []struct {
		name, dialogue string
		command        string
		maybe          bool
	}{
		{"MAIL", "! stall", "MAIL", false},
		{"RCPT", "C: MAIL FROM:<>\nC: RCPT TO:<a@b>\nC: DATA\nS: 250 ok\n! stall", "RCPT", false},
		{"DATA", "C: MAIL FROM:<>\nC: RCPT TO:<a@b>\nC: DATA\nS: 250 ok\nS: 250 ok\n! stall", "DATA", false},
		{"content", "C: MAIL FROM:<>\nC: RCPT TO:<a@b>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n! stall", ".", false},
		{"dot", "C: MAIL FROM:<>\nC: RCPT TO:<a@b>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n! drain", ".", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := smtptest.Pipe()
				smtptest.Play(t, server, "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 PIPELINING\n"+test.dialogue, nil)
				s, err := Open(t.Context(), client, &Config{LocalName: "c"})
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(time.Second)
					s.Close()
					s.Close()
				}()
				tx := s.Send(context.Background(), &Envelope{Rcpts: []Rcpt{{Address: "a@b"}}}, BytesContent(bytes.Repeat([]byte("x\r\n"), 100_000)))
				r := tx.Results[0]
				if tx.Err == nil || tx.Err.Kind != Killed || tx.Err.Command != test.command || !errors.Is(tx.Err, net.ErrClosed) {
					t.Errorf("%+v", tx.Err)
				}
				if r.Err == nil || r.MaybeDelivered != test.maybe {
					t.Errorf("%+v", r)
				}
				if s.Usable() {
					t.Error("usable")
				}
				tx = s.Send(context.Background(), oneTo("a@b"), BytesContent(nil))
				if tx.Err == nil || tx.Err.Kind != Unsent || tx.ContentBegan || tx.Results[0].Err == nil {
					t.Errorf("sent on a closed session: %+v", tx)
				}
				s.Quit(0) // says nothing, and does not wait
			})
		})
	}
}

// TestOpenCancelled ends the context at every stage of opening.
func TestOpenCancelled(t *testing.T) {
	ca := smtptest.CA(t)
	boom := errors.New("boom")
	hello := "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n"
	for _, dialogue := range []string{"! stall", "S: 220 mx\n! stall", hello + "! stall", hello + "S: 220 go\n! stall",
		hello + "S: 220 go\n! starttls\n! stall"} {
		synctest.Test(t, func(t *testing.T) {
			client, server := smtptest.Pipe()
			smtptest.Play(t, server, dialogue, ca.Server(t, "mx"))
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(time.Second, func() { cancel(boom) })
			start := time.Now()
			_, err := Open(ctx, client, &Config{LocalName: "c", Host: "mx", TLSConfig: &tls.Config{RootCAs: ca.Pool}})
			var oe *OpenError
			if !errors.As(err, &oe) || !errors.Is(err, boom) {
				t.Errorf("%q: %v", dialogue, err)
			}
			if d := time.Since(start); d != time.Second {
				t.Errorf("%q: after %v", dialogue, d)
			}
		})
	}
}

// TestOpenCancelledBefore: a context that has ended opens nothing.
func TestOpenCancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	client, server := smtptest.Pipe()
	defer server.Close()
	io.WriteString(server, "220 mx\r\n250 mx\r\n")
	if _, err := Open(ctx, client, &Config{LocalName: "c"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := client.Write([]byte("x")); err == nil {
		t.Error("the connection is open")
	}
}

func TestIdle(t *testing.T) {
	for _, kind := range []string{"pipe", "tcp", "unix"} {
		t.Run(kind, func(t *testing.T) {
			s, server := openOver(t, kind)
			if err := s.Idle(); err != nil {
				t.Fatalf("quiet: %v", err)
			}
			io.WriteString(server, "421 4.4.2 idle for too long\r\n")
			waitFor(t, func() bool { return s.Idle() != nil })
			if err := s.Idle(); !strings.Contains(err.Error(), "421 4.4.2 idle for too long") {
				t.Errorf("spoke: %v", err)
			}
			if s.Usable() {
				t.Error("usable after it spoke")
			}
			s.Close()
			if err := s.Idle(); err == nil {
				t.Error("closed by us: no error")
			}

			s, server = openOver(t, kind)
			server.Close()
			waitFor(t, func() bool { return s.Idle() != nil })
			if err := s.Idle(); !errors.Is(err, io.EOF) {
				t.Errorf("closed: %v", err)
			}
			s.Close()
		})
	}
}

// waitFor waits for something that the kernel is about to do.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for range 10_000_000 {
		if done() {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("it does not come")
}

// openOver opens a session over a kind of connection and returns the server's end.
func openOver(t *testing.T, kind string) (*Session, net.Conn) {
	t.Helper()
	client, server := smtptest.Pipe()
	if kind != "pipe" {
		address := "127.0.0.1:0"
		if kind == "unix" {
			address = t.TempDir() + "/s"
		}
		l, err := net.Listen(kind, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if client, err = net.Dial(kind, l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if server, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { server.Close() })
	// The replies wait for their commands: more than one at a time would be unasked for.
	go func() {
		io.WriteString(server, "220 mx\r\n")
		io.ReadFull(server, make([]byte, len("EHLO c\r\n")))
		io.WriteString(server, "250 mx\r\n")
	}()
	s, err := Open(t.Context(), client, &Config{LocalName: "c"})
	if err != nil {
		t.Fatal(err)
	}
	return s, server
}

// TestSlowReader: a peer that takes a block each two minutes is not cut off.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := smtptest.Pipe()
		var peers sync.WaitGroup
		peers.Go(func() {
			defer server.Close()
			buf := make([]byte, 40<<10)
			say := func(text string) { io.WriteString(server, text) }
			say("220 mx\r\n")
			server.Read(buf)
			say("250-mx\r\n250 PIPELINING\r\n")
			server.Read(buf)
			say("250 ok\r\n250 ok\r\n354 go\r\n")
			for total := 0; total < 1<<20+len(".\r\n"); {
				time.Sleep(2 * time.Minute)
				n, err := server.Read(buf)
				if err != nil {
					t.Error(err)
					return
				}
				total += n
			}
			say("250 ok\r\n")
		})
		s, err := Open(t.Context(), client, &Config{LocalName: "c"})
		if err != nil {
			t.Fatal(err)
		}
		tx := s.Send(context.Background(), oneTo("a@b"), BytesContent(bytes.Repeat([]byte("0123456789abcd\r\n"), 1<<16)))
		if !tx.Results[0].Accepted {
			t.Errorf("%s: %v", describe(&tx.Results[0]), tx.Err)
		}
		s.Close()
		peers.Wait()
	})
}

// TestManyRecipients: many more than fit a window of commands, to a peer that answers each with as much
// as it can, over a connection that holds little.
func TestManyRecipients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &smtptest.Sink{Refuse: func(local string) string {
			if strings.HasSuffix(local, "7") {
				return "550 5.1.1 " + strings.Repeat("no ", 300)
			}
			return ""
		}}
		client, server := smtptest.Pipe()
		sink.ServeConn(server)
		s, err := Open(t.Context(), client, &Config{LocalName: "c"})
		if err != nil {
			t.Fatal(err)
		}
		env := &Envelope{From: "a@b"}
		for i := range 20_000 {
			env.Rcpts = append(env.Rcpts, Rcpt{Address: fmt.Sprintf("rcpt%d@example.com", i)})
		}
		tx := s.Send(context.Background(), env, BytesContent([]byte("x\r\n")))
		for i, r := range tx.Results {
			if r.Accepted == (i%10 == 7) {
				t.Fatalf("recipient %d: %s", i, describe(&r))
			}
		}
		s.Quit(0)
		sink.Close()
		if got := len(sink.Messages()[0].Rcpts); got != 18_000 {
			t.Errorf("%d recipients arrived", got)
		}
	})
}

// TestTrace: what hooks and transcript show, and what they do not.
func TestTrace(t *testing.T) {
	ca := smtptest.CA(t)
	sink := &smtptest.Sink{TLS: ca.Server(t, "127.0.0.1"), Username: "user", Password: "secret"}
	address, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	var lines []string
	trace := &Trace{
		Sent:     func(line string) { lines = append(lines, "C: "+line) },
		Received: func(line string) { lines = append(lines, "S: "+line) },
		TLS:      func(state tls.ConnectionState) { lines = append(lines, "TLS") },
	}
	s := dial(t, address, &Config{Host: "127.0.0.1", TLSConfig: &tls.Config{RootCAs: ca.Pool}, Trace: trace,
		Auth: &Auth{Username: "user", Password: "secret"}, Transcript: 1000})
	tx := s.Send(context.Background(), oneTo("a@b"), BytesContent([]byte("hush hush")))
	if !tx.Results[0].Accepted {
		t.Error(describe(&tx.Results[0]))
	}
	info := s.Info()
	if !info.Verified || info.TLS == nil || !info.PipeliningUsed || info.RemoteAddr != address || info.LocalAddr == "" {
		t.Errorf("%+v", info)
	}
	if _, ok := info.Extensions["8BITMIME"]; !ok {
		t.Errorf("%+v", info.Extensions)
	}
	s.Quit(0)
	all := strings.Join(lines, "\n")
	for _, want := range []string{"C: EHLO client.example", "C: AUTH PLAIN ***", "TLS", "C: MAIL FROM:<sender@example.org> SIZE=11",
		"C: BDAT 11 LAST", "C: [11 bytes of content]", "S: 250 2.0.0 taken", "C: QUIT", "S: 221 2.0.0 bye"} {
		if !strings.Contains(all+"\n", want+"\n") {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
	if strings.Contains(all, "hush") || strings.Contains(all, "AHVzZXIAc2VjcmV0") {
		t.Errorf("a secret in:\n%s", all)
	}
	// Of a session at rest the last lines remain.
	if got := strings.Join(s.Transcript(), "\n"); len(got) < 200 || !strings.HasSuffix("\n"+removeLine(all, "TLS"), "\n"+got+"\n") {
		t.Errorf("transcript:\n%s\ntrace:\n%s", got, all)
	}
}

func removeLine(text, line string) string {
	return strings.Replace(text+"\n", "\n"+line+"\n", "\n", 1)
}

// TestClientCertificate: refused by the peer after our side of the handshake is complete.
func TestClientCertificate(t *testing.T) {
	ca, other := smtptest.CA(t), smtptest.CA(t)
	server := ca.Server(t, "127.0.0.1")
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
	sink := &smtptest.Sink{TLS: server}
	address, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	config := &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{ca.Certificate(t, "client")}}
	dial(t, address, &Config{Host: "127.0.0.1", TLSConfig: config}).Quit(0)

	config.Certificates = []tls.Certificate{other.Certificate(t, "client")}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), conn, &Config{Host: "127.0.0.1", LocalName: "c", TLSConfig: config})
	var oe *OpenError
	if !errors.As(err, &oe) || oe.Stage != StageTLS && oe.Stage != StageEHLO {
		t.Errorf("%v", err)
	}
}

func TestTLSName(t *testing.T) {
	for in, want := range map[string]string{"MX.Example.": "mx.example", "[192.0.2.1]": "192.0.2.1", "[::1]": "::1",
		"[IPv6:::1]": "::1", "mx_1.example": "mx_1.example", "": ""} {
		if got := tlsName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestNoGoroutines: sessions leave nothing behind, and what Send starts ends by itself.
func TestNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left in the bubble
		sink := &smtptest.Sink{}
		for range 10 {
			client, server := smtptest.Pipe()
			sink.ServeConn(server)
			s, err := Open(t.Context(), client, &Config{LocalName: "c"})
			if err != nil {
				t.Fatal(err)
			}
			s.Send(context.Background(), oneTo("a@b"), BytesContent([]byte("x")))
			synctest.Wait() // the reader tells its caller before it ends
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("smtpclient.(*Session)")) {
				t.Errorf("somebody is still working on the session:\n%s", stacks)
			}
			s.Quit(0)
		}
		sink.Close()
	})
}

// TestLMTP: over a unix socket, with verdicts that differ behind the data, the same address twice.
func TestLMTP(t *testing.T) {
	sink := &smtptest.Sink{LMTP: true}
	l, err := net.Listen("unix", t.TempDir()+"/lmtp")
	if err != nil {
		t.Fatal(err)
	}
	sink.Serve(l)
	defer sink.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), conn, &Config{LocalName: "c", LMTP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Quit(0)
	env := &Envelope{}
	for _, rcpt := range []string{"a@b", "datatemp@b", "permfail@b", "a@b", "dataperm@b"} {
		env.Rcpts = append(env.Rcpts, Rcpt{Address: rcpt})
	}
	for range 3 {
		tx := s.Send(context.Background(), env, BytesContent([]byte("x")))
		var got []string
		for _, r := range tx.Results {
			got = append(got, fmt.Sprintf("%s%d %v", r.Command, r.Reply.Code, r.Accepted))
		}
		want := "[BDAT250 true BDAT451 false RCPT550 false BDAT250 true BDAT554 false]"
		if fmt.Sprint(got) != want || tx.Err != nil || !s.Usable() {
			t.Errorf("got %v, want %s, %v", got, want, tx.Err)
		}
	}
}

// TestMailMax: a peer that takes so many messages in a session (RFC 9422) gets no more; those that come
// later are told at once to go elsewhere, and QUIT is said all the same.
func TestMailMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &smtptest.Sink{Offer: []string{"LIMITS MAILMAX=3"}}
		client, server := smtptest.Pipe()
		sink.ServeConn(server)
		s, err := Open(t.Context(), client, &Config{LocalName: "c"})
		if err != nil {
			t.Fatal(err)
		}
		var accepted, again atomic.Int32
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() {
				switch tx := s.Send(context.Background(), oneTo("a@b"), BytesContent([]byte("x\r\n"))); {
				case tx.Results[0].Accepted:
					accepted.Add(1)
				case tx.Again && tx.Err.Kind == Unsent:
					again.Add(1)
				default:
					t.Errorf("%+v", tx.Results[0])
				}
			})
		}
		callers.Wait()
		if accepted.Load() != 3 || again.Load() != 2 || s.Usable() {
			t.Errorf("%d accepted, %d to send again, usable %v", accepted.Load(), again.Load(), s.Usable())
		}
		s.Quit(0)
		if lines := s.Transcript(); lines[len(lines)-1] != "S: 221 2.0.0 bye" {
			t.Errorf("no goodbye: %q", lines)
		}
		sink.Close()
	})
}
