package mtasts

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

const (
	enforce = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"
	report  = "version: STSv1\r\nmode: testing\r\nmx: mx.example.com\r\nmax_age: 604800\r\n"
	none    = "version: STSv1\r\nmode: none\r\nmax_age: 604800\r\n"
)

// world is the network as a cache sees it: the DNS, and one policy host that has every name. It is in
// memory, so that time can be virtual.
type world struct {
	ca *smtptest.Authority

	mu      sync.Mutex
	answer  resolver.Answer     // to every TXT question
	asking  time.Duration       // that an answer takes
	config  *tls.Config         // of the policy host
	body    string              // of the policy
	serve   func(conn net.Conn) // instead of the policy, after the handshake
	down    error               // of every dial
	asked   map[string]int
	fetched map[string]int
	now     int // connections that are open
	most    int
	hosts   sync.WaitGroup
}

func newWorld(t testing.TB, id, body string) *world {
	w := &world{ca: smtptest.CA(t), body: body, asked: map[string]int{}, fetched: map[string]int{}}
	w.config = w.ca.Server(t, "mta-sts.example.com", "*.example.com", "*.example.net", "*.a.example.com")
	w.publish(id)
	return w
}

// publish sets the record; without an id there is none.
func (w *world) publish(id string) {
	answer := resolver.Answer{Result: resolver.NXDomain, TTL: 5 * time.Minute}
	if id != "" {
		answer = resolver.Answer{Result: resolver.Records, TTL: 5 * time.Minute, TXT: []string{"v=STSv1; id=" + id + ";"}}
	}
	w.set(func() { w.answer = answer })
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// counts returns how many records and policies were asked for.
func (w *world) counts() (asked, fetched int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.asked {
		asked += n
	}
	for _, n := range w.fetched {
		fetched += n
	}
	return asked, fetched
}

func (w *world) cache() *Cache {
	return &Cache{Lookup: w.lookup, DialContext: w.dial, RootCAs: w.ca.Pool}
}

func (w *world) lookup(ctx context.Context, name string) resolver.Answer {
	w.mu.Lock()
	w.asked[name]++
	answer, asking := w.answer, w.asking
	w.mu.Unlock()
	if err := sleep(ctx, asking); err != nil {
		return resolver.Answer{Err: err}
	}
	return answer
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *world) dial(_ context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetched[address]++
	if w.down != nil {
		return nil, w.down
	}
	client, server := smtptest.Pipe()
	w.now++
	w.most = max(w.most, w.now)
	w.hosts.Go(func() { w.host(server) })
	return &counted{Conn: client, w: w}, nil
}

// counted is a connection of the client's that the world counts until it is closed.
type counted struct {
	net.Conn
	w    *world
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.w.set(func() { c.w.now-- }) })
	return c.Conn.Close()
}

// host is the policy host on one connection, until the client has closed it.
func (w *world) host(raw net.Conn) {
	defer raw.Close()
	w.mu.Lock()
	config, body, serve := w.config, w.body, w.serve
	w.mu.Unlock()
	conn := tls.Server(raw, config)
	if conn.Handshake() != nil {
		return
	}
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	switch {
	case serve != nil:
		serve(conn)
	case request.URL.Path != "/.well-known/mta-sts.txt" || request.Host != conn.ConnectionState().ServerName:
		fmt.Fprint(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	default:
		fmt.Fprint(conn, ok(body))
	}
	conn.Read(make([]byte, 1)) // until the client hangs up
}

// ok is an answer with a policy.
func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// saying is a policy host that gives this answer.
func saying(answer string) func(net.Conn) {
	return func(conn net.Conn) { fmt.Fprint(conn, answer) }
}

var errDown = errors.New("connection refused")

// stalls is a policy host that never answers.
func stalls(net.Conn) {}

func closed(t testing.TB, c *Cache) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// shelf is a Store in memory.
type shelf struct {
	mu      sync.Mutex
	entries map[string]Entry
	loads   int
	err     error // of every call
}

func (s *shelf) Load(_ context.Context, domain string) (Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	if s.err != nil {
		return Entry{}, s.err
	}
	entry, found := s.entries[domain]
	if !found {
		return Entry{}, fmt.Errorf("%s: %w", domain, ErrNotFound)
	}
	return entry, nil
}

func (s *shelf) Save(_ context.Context, domain string, entry Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.entries == nil {
		s.entries = map[string]Entry{}
	}
	s.entries[domain] = entry
	return nil
}
