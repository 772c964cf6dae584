package smtptest

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestLink: bytes, the end and a reset travel for the latency, no more and no less.
func TestLink(t *testing.T) {
	const latency = 25 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		a, b := Link{Latency: latency}.Pipe()
		start := time.Now()
		after := func(want time.Duration) {
			t.Helper()
			if got := time.Since(start); got != want {
				t.Errorf("at %v, want %v", got, want)
			}
		}
		for range 1000 {
			io.WriteString(a, "a")
		}
		if n := len(b.(*PipeConn).in.legs); n != 1 {
			t.Errorf("%d legs for what was written at one time", n)
		}
		time.Sleep(10 * time.Millisecond)
		io.WriteString(a, "bb")
		a.(*PipeConn).CloseWrite()
		buf := make([]byte, 2000)
		if n, err := b.(*PipeConn).Peek(buf); n > 0 || err != nil {
			t.Errorf("peek: %d, %v", n, err)
		}
		b.SetReadDeadline(start.Add(20 * time.Millisecond))
		if _, err := b.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read before the deadline: %v", err)
		}
		after(20 * time.Millisecond)
		b.SetReadDeadline(time.Time{})
		if n, err := b.Read(buf); n != 1000 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		after(latency)
		io.WriteString(b, "back")
		if n, err := b.Read(buf); string(buf[:n]) != "bb" || err != nil {
			t.Errorf("read %q, %v", buf[:n], err)
		}
		after(latency + 10*time.Millisecond)
		if n, err := b.(*PipeConn).Peek(buf); n > 0 || err != io.EOF {
			t.Errorf("peek at the end: %d, %v", n, err)
		}
		if _, err := b.Read(buf); err != io.EOF {
			t.Errorf("read at the end: %v", err)
		}
		after(latency + 10*time.Millisecond)
		if n, err := a.Read(buf); string(buf[:n]) != "back" || err != nil {
			t.Errorf("read %q, %v", buf[:n], err)
		}
		after(2 * latency)
	})
}

// TestLinkEnds: the other end learns a latency later.
func TestLinkEnds(t *testing.T) {
	const latency = time.Second
	buf := make([]byte, 10)
	tests := []struct {
		name      string
		end       func(a *PipeConn)
		got       string
		read      error
		writeThen error
	}{
		{"close", func(a *PipeConn) { a.Close() }, "hello", io.EOF, syscall.EPIPE},
		{"half close", func(a *PipeConn) { a.CloseWrite() }, "hello", io.EOF, nil},
		{"reset", (*PipeConn).Reset, "", syscall.ECONNRESET, syscall.EPIPE},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Link{Latency: latency}.Pipe()
				start := time.Now()
				io.WriteString(a, "hello")
				test.end(a.(*PipeConn))
				if _, err := b.Write(buf); err != nil {
					t.Errorf("write before it is known: %v", err)
				}
				got, err := io.ReadAll(b)
				if string(got) != test.got || err != test.read && test.read != io.EOF || time.Since(start) != latency {
					t.Errorf("after %v: %q, %v", time.Since(start), got, err)
				}
				if _, err := b.Write(buf); err != test.writeThen {
					t.Errorf("write: %v", err)
				}
			})
		})
	}
}

// TestLinkBuffer: a write waits for room.
func TestLinkBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Link{Latency: time.Second, Buffer: 10}.Pipe()
		start := time.Now()
		go func() {
			io.WriteString(a, strings.Repeat("x", 25))
			a.Close()
		}()
		got, err := io.ReadAll(b)
		if len(got) != 25 || err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %d bytes, %v", time.Since(start), len(got), err)
		}

		a, _ = Link{Buffer: 1}.Pipe()
		a.SetDeadline(time.Now().Add(time.Second))
		if n, err := a.Write([]byte("xy")); n != 1 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// TestLinkDial: the client's end is there after one round trip, and a server that speaks first is heard
// after two.
func TestLinkDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := Link{Latency: time.Second}.Dial(func(server net.Conn) {
			io.WriteString(server, "hello")
			server.Close()
		})
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("connected after %v", got)
		}
		got, err := io.ReadAll(c)
		if string(got) != "hello" || err != nil || time.Since(start) != 4*time.Second {
			t.Errorf("after %v: %q, %v", time.Since(start), got, err)
		}
	})
}

// TestLinkInRealTime: the same without a bubble, where only order and content are certain.
func TestLinkInRealTime(t *testing.T) {
	a, b := Link{Latency: time.Millisecond, Buffer: 1000}.Pipe()
	want := strings.Repeat("0123456789", 1000)
	go func() {
		for i := 0; i < len(want); i += 7 {
			io.WriteString(a, want[i:min(i+7, len(want))])
		}
		a.Close()
	}()
	got, err := io.ReadAll(b)
	if string(got) != want || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestArrivalBetweenLooks: what arrives between a reader's look and its sleep wakes it.
func TestArrivalBetweenLooks(t *testing.T) {
	for _, what := range []string{"bytes", "end"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStream(Link{Latency: time.Second})
			if what == "bytes" {
				s.write([]byte("x"))
			} else {
				s.closeWrite(io.EOF)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.arrive()
			time.Sleep(time.Second) // time goes on
			s.expect()
			s.changed.Wait() // the bubble is stuck where nobody wakes it
		})
	}
}
