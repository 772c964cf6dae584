package smtpclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// The link of the round trips, and what is sent over it.
const (
	oneWay        = 25 * time.Millisecond
	roundTrip     = 2 * oneWay
	sceneMessages = 50
)

// scene is something whose round trips are counted.
type scene struct {
	kind   string // "warm": messages over a connection that has proved itself; "new": one over a new one; "new-starttls"
	mode   string
	client string
}

func (sc scene) String() string { return sc.kind + "/" + sc.mode + "/" + sc.client }

func sceneOf(name string) (scene, error) {
	part := strings.SplitN(name, "/", 3)
	if len(part) != 3 {
		return scene{}, fmt.Errorf("%q is no scene", name)
	}
	return scene{part[0], part[1], part[2]}, nil
}

// messages is how many messages the time of a scene is for.
func (sc scene) messages() int {
	if sc.kind == "warm" {
		return sceneMessages
	}
	return 1
}

// measure plays the scene in virtual time, so that what passes is the link's latency and nothing else.
// A new connection counts from before it is opened to the reply to its message.
func (sc scene) measure(t *testing.T) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		sink := &smtptest.Sink{CountOnly: true}
		defer sink.Close()
		spec := &clientSpec{client: sc.client, mode: sc.mode, content: benchContent(4 << 10), peer: &Peer{}}
		if sc.kind == "new-starttls" {
			ca := smtptest.CA(t)
			sink.TLS = ca.Server(t, "sink.example")
			spec.tls = &tls.Config{RootCAs: ca.Pool, ServerName: "sink.example"}
		}
		start := time.Now()
		conn := smtptest.Link{Latency: oneWay, Buffer: 4 << 20}.Dial(sink.ServeConn)
		defer conn.Close()
		if sc.kind == "warm" {
			send := opened(t, spec, conn)
			send(2 * sceneMessages)
			start = time.Now()
			send(sceneMessages)
		} else {
			opened(t, spec, conn)(1)
		}
		took = time.Since(start)
	})
	return took
}

// opened opens a client and returns what sends messages with it: by as many callers as there are
// messages in a scene where the client lets us, else one after the other.
func opened(t *testing.T, spec *clientSpec, conn net.Conn) (send func(messages int64)) {
	if spec.client == "raw" {
		raw, err := openRaw(conn, spec, sceneMessages)
		if err != nil {
			t.Fatal(err)
		}
		return func(messages int64) {
			if err := raw.run(claimFrom(messages)); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := spec.open(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	callers := 1
	if spec.concurrent() {
		callers = sceneMessages
	}
	return func(messages int64) {
		claim := claimFrom(messages)
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for claim(1) > 0 {
					if err := c.send(context.Background()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

// BenchmarkRoundTrips counts round trips for each message (rt/msg), 50 ms each, exactly: virtual time
// runs in a process of its own. A connect counts as one. The raw client is the floor, see BenchmarkWork,
// with all messages on their way at once.
//
//	go test ./internal/smtpclient -run '^$' -bench RoundTrips
func BenchmarkRoundTrips(b *testing.B) {
	for _, kind := range []string{"warm", "new", "new-starttls"} {
		for _, mode := range []string{chunking, pipelining, lockstep} {
			for _, client := range []string{"delivery", "go-smtp", "net/smtp", "raw"} {
				sc := scene{kind, mode, client}
				if client == "raw" && (kind != "warm" || mode == lockstep) {
					continue
				}
				took := sync.OnceValues(func() (time.Duration, error) { return playScene(b, sc) })
				b.Run(fmt.Sprintf("%s/%s/client=%s", kind, mode, client), func(b *testing.B) {
					d, err := took()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(d)/float64(roundTrip)/float64(sc.messages()), "rt/msg")
					b.ReportMetric(0, "ns/op") // it is not this process's time
				})
			}
		}
	}
}

// playScene has the scene played by another process: testing/synctest wants a test.
func playScene(b *testing.B, sc scene) (took time.Duration, err error) {
	out, err := benchCommand(b, sc.String(), time.Minute).Output()
	if err != nil {
		return 0, fmt.Errorf("%v: %w\n%s", sc, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if n, _ := fmt.Sscanf(line, "took %d", &took); n == 1 {
			return took, nil
		}
	}
	return 0, fmt.Errorf("%v: no result in %q", sc, out)
}
