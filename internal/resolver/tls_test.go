package resolver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

const tlsZone = "*.test. A 192.0.2.1\nsilent.test. A 192.0.2.1\n"

// secured is a client that asks s over TLS within the process, and counts its connections.
type secured struct {
	*Client
	server *dnstest.Server
	dials  atomic.Int32
}

func newSecured(t *testing.T, s *dnstest.Server) *secured {
	t.Helper()
	ca := smtptest.CA(t)
	c := &secured{Client: &Client{Servers: []string{"tls://192.0.2.1#dns.test"}, RootCAs: ca.Pool}, server: s}
	dial := s.DialTLS(ca.Server(t, "dns.test", "192.0.2.1", "2001:db8::1"))
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" || address != "192.0.2.1:853" && address != "[2001:db8::1]:853" {
			t.Errorf("dialled %s %s", network, address)
		}
		c.dials.Add(1)
		return dial(ctx, network, address)
	}
	return c
}

// expect asks for a new name and wants an answer.
func (c *secured) expect(t *testing.T, name string) {
	t.Helper()
	if got := c.Lookup(t.Context(), name, TypeA); got.Result != Records || got.Err != nil {
		t.Errorf("%s: %+v", name, got)
	}
}

func (c *secured) dialled(t *testing.T, want int32) {
	t.Helper()
	if n := c.dials.Load(); n != want {
		t.Errorf("%d connections, want %d", n, want)
	}
}

func TestTLSVerifiesTheServer(t *testing.T) {
	var wrongName x509.HostnameError
	var unknown x509.UnknownAuthorityError
	for _, test := range []struct {
		server string
		roots  bool
		want   any // an error to be found; nil: it works
	}{
		{"tls://192.0.2.1#dns.test", true, nil},
		{"tls://192.0.2.1:853#DNS.test.", true, nil},
		{"tls://192.0.2.1", true, nil},
		{"tls://[2001:db8::1]:853", true, nil},
		{"tls://192.0.2.1#2001:db8::1", true, nil},
		{"tls://192.0.2.1#other.test", true, &wrongName},
		{"tls://192.0.2.1#sub.dns.test", true, &wrongName},
		{"tls://192.0.2.1#192.0.2.2", true, &wrongName},
		{"tls://192.0.2.1#dns.test", false, &unknown},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, tlsZone, dnstest.Secure())
			c := newSecured(t, s)
			defer c.Close()
			c.Servers, c.TrustAD = []string{test.server}, true
			if !test.roots {
				c.RootCAs = smtptest.CA(t).Pool
			}
			got := c.Lookup(t.Context(), "a.test", TypeA)
			if test.want == nil {
				if got.Result != Records || !got.Secure || s.QueriesOver("tls", "a.test", "A") != 1 || s.Total() != 1 {
					t.Errorf("%s: %+v", test.server, got)
				}
				return
			}
			if got.Result != TempFail || !errors.As(got.Err, test.want) || s.Total() != 0 {
				t.Errorf("%s: %+v after %d queries", test.server, got, s.Total())
			}
		})
	}
}

// An encrypted way does not make a server trusted.
func TestTLSIsNotTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSecured(t, newServer(t, tlsZone, dnstest.Secure()))
		defer c.Close()
		if got := c.Lookup(t.Context(), "a.test", TypeA); got.Result != Records || got.Secure {
			t.Errorf("%+v", got)
		}
	})
}

func TestTLSConnectionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, tlsZone)
		c := newSecured(t, s)
		for i := range 20 {
			c.expect(t, fmt.Sprintf("one-by-one%d.test", i))
			time.Sleep(idleTime - time.Second)
		}
		c.dialled(t, 1)

		// Many at once, of which each has its own answer whatever the order.
		late := []time.Duration{5 * time.Millisecond, time.Millisecond, 3 * time.Millisecond}
		s.Set(dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
			time.Sleep(late[query.Id%3])
			return [][]byte{dnstest.Pack(answer)}
		}))
		var callers sync.WaitGroup
		begin := time.Now()
		for i := range 500 {
			callers.Go(func() { c.expect(t, fmt.Sprintf("at-once%d.test", i)) })
		}
		callers.Wait()
		c.dialled(t, 1)
		if d := time.Since(begin); d > 20*time.Millisecond {
			t.Errorf("500 queries took %v", d)
		}

		time.Sleep(idleTime)
		synctest.Wait()
		if n := len(c.links.all); n != 0 {
			t.Errorf("%d connections after all have been idle", n)
		}
		c.expect(t, "afterwards.test")
		c.dialled(t, 2)
		c.Close()
	})
}

func TestTLSManyWaitForOneHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSecured(t, newServer(t, tlsZone))
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(time.Second)
			return dial(ctx, network, address)
		}
		var callers sync.WaitGroup
		impatient, cancel := context.WithCancel(t.Context())
		go c.Lookup(impatient, "impatient.test", TypeA) // who dials
		synctest.Wait()
		for i := range 50 {
			callers.Go(func() { c.expect(t, fmt.Sprintf("d%d.test", i)) })
		}
		synctest.Wait()
		cancel()
		callers.Wait()
		c.dialled(t, 1)
		c.Close()
	})
}

// A server may close its connections when it likes, as long as it does something on each.
func TestTLSServerHangsUp(t *testing.T) {
	for _, after := range []int{1, 2, 7} {
		synctest.Test(t, func(t *testing.T) {
			c := newSecured(t, newServer(t, tlsZone, dnstest.HangUp(after)))
			defer c.Close()
			for i := range 10 {
				c.expect(t, fmt.Sprintf("one-by-one%d.test", i))
			}
			c.dialled(t, int32((10+after-1)/after))
			var callers sync.WaitGroup
			for i := range 60 {
				callers.Go(func() { c.expect(t, fmt.Sprintf("at-once%d.test", i)) })
			}
			callers.Wait()
		})
	}
}

// A connection that was idle is replaced once; a new one that ends without an answer is a failure.
func TestTLSDeadConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSecured(t, newServer(t, tlsZone))
		defer c.Close()
		c.Attempts = 1
		c.expect(t, "a.test")
		dial, ends := c.Dial, 0
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			ends++
			conn, err := dial(ctx, network, address)
			conn.Close()
			return conn, err
		}
		c.links.all[server{"192.0.2.1:853", "dns.test"}].conn.NetConn().(*smtptest.PipeConn).Reset()
		if got := c.Lookup(t.Context(), "b.test", TypeA); got.Result != TempFail || ends != 1 {
			t.Errorf("%+v after %d new connections", got, ends)
		}
		c.Dial = dial
		c.expect(t, "c.test")
	})
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, tlsZone)
		c := newSecured(t, s)
		defer c.Close()
		c.Attempts = 1
		c.expect(t, "a.test")
		s.Set(dnstest.Intercept(func(_ string, _, _ *dns.Msg) [][]byte { return [][]byte{{}} }), dnstest.HangUp(1))
		if got := c.Lookup(t.Context(), "b.test", TypeA); got.Result != TempFail || !errors.Is(got.Err, errLink) {
			t.Errorf("%+v", got)
		}
	})
}

// A path that has died without a word is found out, by those whose time ends and by those who leave
// earlier; haste alone proves nothing.
func TestTLSSilentConnections(t *testing.T) {
	for _, test := range []struct {
		wait  time.Duration
		dials int32
	}{{time.Millisecond, 1}, {999 * time.Millisecond, 1}, {time.Second, 2}, {time.Hour, 3}} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, tlsZone)
			c := newSecured(t, s)
			defer c.Close()
			c.expect(t, "a.test")
			s.Set(dnstest.Silent())
			ctx, cancel := withTimeout(t, test.wait)
			defer cancel()
			if got := c.Lookup(ctx, "b.test", TypeA); got.Result != TempFail {
				t.Errorf("%+v", got)
			}
			synctest.Wait()
			if open := len(c.links.all) == 1; open != (test.dials == 1) {
				t.Errorf("after %v: open %v", test.wait, open)
			}
			s.Reset()
			c.expect(t, "c.test")
			c.dialled(t, test.dials)
		})
	}
	// One question that is not answered, among others that are, leaves the connection.
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, tlsZone, dnstest.Silent("silent.test"))
		c := newSecured(t, s)
		defer c.Close()
		go c.Lookup(t.Context(), "silent.test", TypeA)
		for i := range 12 {
			time.Sleep(time.Second)
			c.expect(t, fmt.Sprintf("d%d.test", i))
		}
		c.dialled(t, 1)
	})
}

func TestTLSHandshakeStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := newServer(t, "*.test. A 192.0.2.2")
		c := client(second, second)
		c.Servers[0] = "tls://192.0.2.1#dns.test"
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "192.0.2.1:853" {
				conn, _ := smtptest.Pipe() // nobody reads the other end
				return conn, nil
			}
			return dial(ctx, network, address)
		}
		begin := time.Now()
		got := c.Lookup(t.Context(), "a.test", TypeA)
		if got.Result != Records || time.Since(begin) != 5*time.Second {
			t.Errorf("%+v after %v", got, time.Since(begin))
		}
		if got := c.Lookup(t.Context(), "b.test", TypeA); got.Result != Records || time.Since(begin) != 5*time.Second {
			t.Errorf("%+v after %v", got, time.Since(begin))
		}
		c.Close()
	})
}

// Close ends connections that are idle, in use, and being opened.
func TestTLSClose(t *testing.T) {
	for _, state := range []string{"idle", "in use", "handshake"} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, tlsZone, dnstest.Silent("silent.test"))
			c := newSecured(t, s)
			if state != "handshake" {
				c.expect(t, "a.test")
			} else {
				c.Dial = func(context.Context, string, string) (net.Conn, error) {
					conn, _ := smtptest.Pipe()
					return conn, nil
				}
			}
			var caller sync.WaitGroup
			if state != "idle" {
				caller.Go(func() {
					if got := c.Lookup(t.Context(), "silent.test", TypeA); !errors.Is(got.Err, ErrClosed) {
						t.Errorf("%s: %+v", state, got)
					}
				})
			}
			synctest.Wait()
			begin := time.Now()
			c.Close()
			caller.Wait()
			if d := time.Since(begin); d != 0 || len(c.links.all) != 0 {
				t.Errorf("%s: Close took %v and left %d connections", state, d, len(c.links.all))
			}
		})
	}
}

func TestTLSResponsesAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, tlsZone, dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
			return append(forgeries(query), dnstest.Pack(answer))
		}))
		c := newSecured(t, s)
		defer c.Close()
		got := c.Lookup(t.Context(), "a.test", TypeA)
		if got.Result != Records || len(got.Addrs) != 1 || got.Addrs[0] != addrs("192.0.2.1")[0] {
			t.Errorf("%+v", got)
		}
		s.Set(dnstest.Intercept(func(_ string, _, answer *dns.Msg) [][]byte {
			answer.Truncated = true
			return [][]byte{dnstest.Pack(answer)}
		}))
		if got := c.Lookup(t.Context(), "b.test", TypeA); got.Result != TempFail || !errors.Is(got.Err, errMalformed) {
			t.Errorf("truncated: %+v", got)
		}
		s.Reset(dnstest.NoEDNS())
		c.expect(t, "c.test")
	})
}

func TestTLSQueriesArePadded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		s := newServer(t, tlsZone, dnstest.Intercept(func(_ string, query, answer *dns.Msg) [][]byte {
			sizes = append(sizes, len(dnstest.Pack(query)))
			return [][]byte{dnstest.Pack(answer)}
		}))
		c := newSecured(t, s)
		defer c.Close()
		name := "test"
		for range 120 {
			name = "a." + name
			c.expect(t, name)
		}
		for i, size := range sizes {
			if size%128 != 0 || size > 384 {
				t.Errorf("query %d has %d bytes", i, size)
			}
		}
	})
}

// Ids that are in use are not given again.
func TestTLSIDs(t *testing.T) {
	l := &link{pending: make(map[uint16]*inquiry), conn: tls.Client(closedConn(), nil)}
	seen := make(map[uint16]bool)
	for range maxPending {
		query := newQuery(question{"a.test", TypeA}, false)
		query.Id %= 1 << 15 // so that many are equal
		mine, err := l.enter(query)
		if err != nil || seen[mine.query.Id] {
			t.Fatalf("%v, seen %v", err, seen[mine.query.Id])
		}
		seen[mine.query.Id] = true
	}
	if _, err := l.enter(newQuery(question{"a.test", TypeA}, false)); err == nil {
		t.Error("more than there is room for")
	}
}

func closedConn() net.Conn {
	conn, _ := smtptest.Pipe()
	conn.Close()
	return conn
}

// The same over sockets.
func TestTLSOverSockets(t *testing.T) {
	ca := smtptest.CA(t)
	s := dnstest.Start(t, tlsZone)
	address, err := s.ListenTLS(ca.Server(t, "dns.test"))
	if err != nil {
		t.Fatal(err)
	}
	c := Client{Servers: []string{"tls://" + address + "#dns.test"}, RootCAs: ca.Pool, CacheSize: -1}
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			for j := range 20 {
				ctx, cancel := context.WithCancel(t.Context())
				if i == 0 {
					go cancel()
				}
				got := c.Lookup(ctx, fmt.Sprintf("d%d-%d.test", i, j), TypeA)
				cancel()
				if got.Result != Records && i > 0 {
					t.Errorf("%+v", got)
				}
			}
		})
	}
	callers.Wait()
	c.Close()
	if n := s.QueriesOver("udp", "d1-1.test", "A"); n != 0 {
		t.Errorf("%d queries in clear", n)
	}
}
