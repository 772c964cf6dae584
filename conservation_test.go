package delivery

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

var conservationSeeds = flag.Int("conservation.seeds", 24, "how many seeds TestNothingIsLostOrDoubled runs")

// TestNothingIsLostOrDoubled sends to hosts whose connections break at any byte, refuse, crowd and stall. What
// the hosts have must be what the results say: delivered is there once, failed is not there, and what may have
// been delivered is there at most once.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for seed := range *conservationSeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { conserve(t, rand.New(rand.NewPCG(uint64(seed), 4))) })
		})
	}
}

func conserve(t *testing.T, rng *rand.Rand) {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	path := fmt.Sprintf(`"connection_limit": %d, "max_recipients_per_batch": %d, "max_deliveries_per_connection": %d, `+
		`"try_next_host_on_transport_error": %v, "reconnect_strategy": %q, "enable_chunking": %v, "max_message_rate": %q, "max_connection_rate": %q, `+
		`"idle_timeout": %q, `,
		1+rng.IntN(5), 1+rng.IntN(4), 1+rng.IntN(20), rng.IntN(2) == 0, pick("ConnectNextHost", "ReconnectSameHost", "TerminateSession"),
		rng.IntN(2) == 0, pick("1000/s", "50/s,max_burst=1"), pick("1000/s", "10/s,max_burst=1"), pick("50ms", "1s", "20s"))
	rt := newRuntime(t)
	rt.Egress = loopback(path)
	sinks := map[string]*smtptest.Sink{}
	for i := range 3 {
		sinks[fmt.Sprintf("127.0.0.%d:25", i+1)] = &smtptest.Sink{Delay: time.Duration(rng.IntN(3)) * 10 * time.Millisecond}
	}
	trouble := rng.IntN(4) // 0: none
	var mu sync.Mutex
	fates := rand.New(rand.NewPCG(rng.Uint64(), 5))
	rt.Dial = func(_ context.Context, to DialRequest) (net.Conn, error) {
		mu.Lock()
		fate, up, down := fates.IntN(10), fates.IntN(4000), fates.IntN(2000)
		latency := time.Duration(fates.IntN(20)) * time.Millisecond
		mu.Unlock()
		if fate == 0 && trouble > 1 {
			return nil, fmt.Errorf("%s: connection refused", to.Address)
		}
		conn := smtptest.Link{Latency: latency}.Dial(sinks[to.Address].ServeConn)
		if fate < 2*trouble {
			conn = &fragile{PipeConn: conn.(*smtptest.PipeConn), up: up, down: down}
		}
		return conn, nil
	}
	p := smtpTo(t, rt, "127.0.0.1", "127.0.0.2", "127.0.0.3")

	type sent struct {
		id      string
		results []Result
	}
	messages := make([]sent, 60)
	var callers sync.WaitGroup
	for i := range messages {
		m := &messages[i]
		m.id = fmt.Sprintf("message-%d.", i)
		var to []string
		for j := range 1 + rng.IntN(5) {
			to = append(to, fmt.Sprintf("%s%d-%d@x.test", pick("user", "user", "user", "user", "tempfail", "permfail", "full", "421"), i, j))
		}
		msg := messageTo(to...)
		msg.Body = Bytes("Subject: " + m.id + "\r\n\r\n" + strings.Repeat("x", rng.IntN(1000)) + "\r\n")
		pause := time.Duration(rng.IntN(3000)) * time.Millisecond
		callers.Go(func() {
			time.Sleep(pause)
			m.results = p.Deliver(context.Background(), msg).Results
		})
	}
	callers.Wait()
	if err := rt.Close(context.Background()); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Minute) // what is on its way arrives
	has := map[string]int{}
	for _, sink := range sinks {
		for _, got := range sink.Messages() {
			id, _, _ := strings.Cut(strings.TrimPrefix(string(got.Data), "Subject: "), "\r\n")
			for _, rcpt := range got.Rcpts {
				has[id+rcpt]++
			}
		}
		sink.Close()
	}
	became := map[string]int{}
	defer func() { t.Log(became) }()
	for _, m := range messages {
		for _, r := range m.results {
			became[fmt.Sprint(r.Status, map[bool]string{true: ", maybe delivered"}[r.MaybeDelivered])]++
			n := has[m.id+r.Recipient]
			switch {
			case r.Status == Delivered && n == 1:
			case r.MaybeDelivered && r.Status == Transient && n <= 1:
			case r.Status != Delivered && n == 0:
			default:
				t.Errorf("%s%s is %s (%s, maybe %v, %v), and there %d times; path %s", m.id, r.Recipient, r.Status, r.Response, r.MaybeDelivered, r.Err, n, path)
			}
		}
	}
}

// fragile breaks after so many bytes in either direction.
type fragile struct {
	*smtptest.PipeConn
	mu       sync.Mutex
	up, down int
}

func (f *fragile) Write(b []byte) (int, error) {
	f.mu.Lock()
	left := f.up
	f.up -= len(b)
	f.mu.Unlock()
	if left >= len(b) {
		return f.PipeConn.Write(b)
	}
	n, err := f.PipeConn.Write(b[:max(left, 0)])
	if err == nil {
		f.Reset()
		_, err = f.PipeConn.Write(b[n:])
	}
	return n, err
}

func (f *fragile) Read(b []byte) (int, error) {
	n, err := f.PipeConn.Read(b)
	f.mu.Lock()
	f.down -= n
	broken := f.down < 0
	f.mu.Unlock()
	if broken && err == nil {
		f.Reset()
	}
	return n, err
}
