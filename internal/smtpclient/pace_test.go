package smtpclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// sendFrom has so many callers send n messages of a size.
func sendFrom(t *testing.T, s *Session, callers, n int, content *Content) {
	t.Helper()
	if err := content.Inspect(t.Context()); err != nil {
		t.Fatal(err)
	}
	claim := claimFrom(int64(n))
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for claim(1) > 0 {
				if tx := s.Send(context.Background(), oneTo("rcpt@example.com"), content); !tx.Results[0].Accepted {
					t.Errorf("%s, %v", describe(&tx.Results[0]), tx.Err)
				}
			}
		})
	}
	all.Wait()
}

// TestComfort: to open a session costs a round trip each for the connect, the greeting and EHLO, and three
// more with TLS. As many calls stand in line as the peer works off in that time, and one is served.
func TestComfort(t *testing.T) {
	ca := smtptest.CA(t)
	const ms = time.Millisecond
	tests := []struct {
		name     string
		rtt      time.Duration
		service  time.Duration // of a message
		mode     string
		tls      bool
		undialed bool // Began is not given
		want     int  // 0: Capacity
	}{
		{"near and slow", 1 * ms, 500 * ms, chunking, false, false, 1},
		{"far and fast", 100 * ms, 1 * ms, chunking, false, false, 0},
		{"in between", 100 * ms, 70 * ms, chunking, false, false, 5},
		{"in between, slower", 100 * ms, 99 * ms, chunking, false, false, 4},
		{"far and slow", 100 * ms, 301 * ms, chunking, false, false, 1},
		{"not dialed here", 100 * ms, 70 * ms, chunking, false, true, 3},
		{"with TLS", 100 * ms, 70 * ms, chunking, true, false, 9},
		{"no time at all", 0, 0, chunking, false, false, 0},
		{"no distance", 0, 1 * ms, chunking, false, false, 1},
		// With DATA the next message waits a round trip longer.
		{"DATA, near and slow", 1 * ms, 500 * ms, pipelining, false, false, 1},
		{"DATA, far and fast", 100 * ms, 1 * ms, pipelining, false, false, 0},
		{"DATA, in between", 100 * ms, 60 * ms, pipelining, false, false, 2},
		{"DATA, no time at all", 0, 0, pipelining, false, false, 0},
		{"lockstep", 100 * ms, 1 * ms, lockstep, false, false, 1},
	}
	for _, test := range tests {
		for _, callers := range []int{1, 3, 40} {
			for _, content := range []*Content{BytesContent(benchContent(4 << 10)), streamOf(benchContent(4 << 10))} {
				t.Run(fmt.Sprintf("%s/%d", test.name, callers), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						sink := &smtptest.Sink{CountOnly: true, Delay: test.service}
						defer sink.Close()
						cfg := &Config{Host: "sink.example", LocalName: "c", Peer: &Peer{},
							DisableChunking: test.mode != chunking, DisablePipelining: test.mode == lockstep}
						if test.tls {
							sink.TLS = ca.Server(t, "sink.example")
							cfg.TLSConfig = &tls.Config{RootCAs: ca.Pool}
						}
						open := func() *Session {
							if !test.undialed {
								cfg.Began = time.Now()
							}
							conn := smtptest.Link{Latency: test.rtt / 2}.Dial(sink.ServeConn)
							s, err := Open(t.Context(), conn, cfg)
							if err != nil {
								t.Fatal(err)
							}
							return s
						}
						s := open()
						defer s.Close()
						if n := s.Comfort(); n != 1 {
							t.Errorf("%d before anything was measured", n)
						}
						sendFrom(t, s, 1, 1, content)
						checkComfort(t, s, "after one message", test.want)
						sendFrom(t, s, callers, 120, content)
						synctest.Wait()
						checkComfort(t, s, "in the end", test.want)
						next := open()
						defer next.Close()
						checkComfort(t, next, "in the next session", test.want)
						time.Sleep(10 * time.Minute)
						sendFrom(t, s, 1, 1, content)
						synctest.Wait()
						checkComfort(t, s, "after a pause", test.want)
					})
				})
			}
		}
	}
}

// checkComfort: want is 0 for all that the session has room for, and never more than that.
func checkComfort(t *testing.T, s *Session, when string, want int) {
	t.Helper()
	if want == 0 {
		want = s.Capacity()
	}
	if got, want := s.Comfort(), min(want, s.Capacity()); got != want {
		t.Errorf("%s: comfort %d, want %d; capacity %d", when, got, want, s.Capacity())
	}
}

func streamOf(content []byte) *Content {
	return StreamContent(int64(len(content)), func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(content))), nil
	})
}

// slowBody takes its time at every read.
type slowBody struct {
	io.Reader
	each time.Duration
}

func (b slowBody) Read(p []byte) (int, error) {
	time.Sleep(b.each)
	return b.Reader.Read(p)
}

// TestComfortOfContents: what the body takes to be read is not the peer's time; where a content waits for
// its recipients' replies, the next message waits for that too. The connect, the greeting and EHLO take
// 300 ms, a message 70 ms at the peer.
func TestComfortOfContents(t *testing.T) {
	slow := func(size int) *Content {
		return StreamContent(int64(size), func() (io.ReadCloser, error) {
			return io.NopCloser(slowBody{strings.NewReader(strings.Repeat("12345678901234\r\n", size/16)), 50 * time.Millisecond}), nil
		})
	}
	tests := []struct {
		name    string
		mode    string
		content *Content
		want    int
	}{
		{"slow body", chunking, slow(16 << 10), 5},
		{"slow body over several writes", chunking, slow(112 << 10), 5},
		{"slow body, DATA", pipelining, slow(16 << 10), 2},
		{"large", chunking, BytesContent(benchContent(200 << 10)), 2},
		{"large and slow body", chunking, slow(208 << 10), 2},
		{"large, DATA", pipelining, BytesContent(benchContent(200 << 10)), 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &smtptest.Sink{CountOnly: true, Delay: 70 * time.Millisecond}
				defer sink.Close()
				cfg := &Config{LocalName: "c", Began: time.Now(), DisableChunking: test.mode != chunking}
				conn := smtptest.Link{Latency: 50 * time.Millisecond, Buffer: 4 << 20}.Dial(sink.ServeConn)
				s, err := Open(t.Context(), conn, cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				sendFrom(t, s, 1, 2, test.content)
				checkComfort(t, s, "one by one", test.want)
				sendFrom(t, s, 3, 30, test.content)
				synctest.Wait()
				checkComfort(t, s, "in line", test.want)
			})
		})
	}
}

// TestComfortAdapts: a peer whose pace changes is believed soon, and a session that rested learns what the
// others have measured meanwhile.
func TestComfortAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		service := time.Millisecond
		cfg := &Config{Peer: &Peer{}}
		open := func() *Session {
			cfg.Began = time.Now()
			time.Sleep(100 * time.Millisecond) // the connect
			return openTo(t, smtptest.Link{Latency: 50 * time.Millisecond}, &linePeer{reply: func(line string) string {
				if strings.HasPrefix(line, "BDAT") {
					mu.Lock()
					d := service
					mu.Unlock()
					time.Sleep(d)
				}
				return "250 ok"
			}}, cfg)
		}
		become := func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			service = d
		}
		content := BytesContent([]byte("hello\r\n"))
		busy, resting := open(), open()
		sendFrom(t, busy, 10, 500, content)
		sendFrom(t, resting, 10, 50, content)
		checkComfort(t, busy, "fast", 0)
		checkComfort(t, resting, "fast", 0)

		become(time.Second)
		sendFrom(t, busy, 1, 30, content)
		checkComfort(t, busy, "slow now", 1)
		checkComfort(t, resting, "it has not heard of that", 0)
		sendFrom(t, resting, 1, 1, content)
		checkComfort(t, resting, "it has", 1)

		become(time.Millisecond)
		time.Sleep(10 * time.Minute)
		sendFrom(t, busy, 1, 30, content)
		checkComfort(t, busy, "fast again, and what was before is long ago", 0)
	})
}

// TestComfortOfGroups: a peer that answers what came together in one go is as slow as all of it was, not as
// slow as the first and infinitely fast then.
func TestComfortOfGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &smtptest.Sink{CountOnly: true, Refuse: func(string) string {
			time.Sleep(45 * time.Millisecond) // which, unlike Delay, holds up the replies to those before
			return ""
		}}
		defer sink.Close()
		client, server := smtptest.Link{Latency: 50 * time.Millisecond}.Pipe()
		sink.ServeConn(server)
		s, err := Open(t.Context(), client, &Config{LocalName: "c", Peer: &Peer{proven: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 10 {
			sendFrom(t, s, 16, 16, BytesContent([]byte("hello\r\n")))
			synctest.Wait()
			checkComfort(t, s, "in groups", 4) // 150 ms to open, 45 ms each
		}
	})
}
