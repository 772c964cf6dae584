package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

func header(server string) string {
	return fmt.Sprintf(`"ha_proxy_server": %q, "ha_proxy_source_address": %q, `, server, ours())
}

func socks(server string) string { return fmt.Sprintf(`"socks5_proxy_server": %q, `, server) }

func socksFrom(server, source string) string {
	return socks(server) + fmt.Sprintf(`"socks5_proxy_source_address": %q, `, source)
}

func login(username, password string) string {
	return fmt.Sprintf(`"socks5_proxy_username": %q, "socks5_proxy_password": {"key_data": %q}, `, username, password)
}

// through is a protocol whose only source is "out".
func (s *stage) through(source string, hosts ...string) Protocol {
	s.Helper()
	s.pool, s.sources = []string{"out"}, map[string]string{"out": source}
	return s.over("pool", hosts...)
}

// wantThrough checks a result and the way that the message went.
func (s *stage) wantThrough(r Result, proxy, local, remote string) {
	s.Helper()
	s.wantDelivered(r)
	if r.Session == nil || r.Session.Proxy != proxy || r.Session.LocalAddr != local || r.Session.RemoteAddr != remote || r.Session.Source != "out" {
		s.Errorf("the session is %+v\nwant it through %q from %q to %q", r.Session, proxy, local, remote)
	}
}

// wantUnreached checks a result for which no host could be reached, and that its text says so.
func (s *stage) wantUnreached(r Result, text string) {
	s.Helper()
	s.want(r, Transient, 400, "")
	if want := "delivery: failed to connect to any candidate hosts: " + text; r.Response.Text != want {
		s.Errorf("the text is %s\nwant %s", r.Response.Text, want)
	}
}

// TestUpstreamProxies has those scenarios of KumoMTA's integration tests that concern proxies, each under its
// name there.
func TestUpstreamProxies(t *testing.T) {
	for _, scenario := range []struct {
		name string
		play func(*stage)
	}{
		{"proxy_end_to_end_noauth", func(s *stage) { s.throughSOCKS(&gateway{}, "") }},
		{"proxy_end_to_end_auth_positive", func(s *stage) {
			s.throughSOCKS(&gateway{username: "testuser", password: "testpass", strict: true}, login("testuser", "testpass"))
		}},
		{"proxy_end_to_end_auth_negative", func(s *stage) {
			s.notThroughSOCKS(&gateway{username: "testuser", password: "testpass", strict: true}, login("wronguser", "wrongpass"),
				"SOCKS5 auth: the proxy did not authenticate us: wrong user name or password (status 1)")
		}},
		{"proxy_require_auth_rejects_noauth_client", func(s *stage) {
			s.notThroughSOCKS(&gateway{username: "testuser", password: "testpass", strict: true}, "",
				"SOCKS5 method: the proxy did not authenticate us: it wants authentication, and there is no user name")
		}},
		{"proxy_optional_auth_client_offers_auth", func(s *stage) {
			s.throughSOCKS(&gateway{username: "testuser", password: "testpass"}, login("testuser", "testpass"))
		}},
		{"proxy_socks5_hostname", proxySOCKS5Hostname},
		{"proxy_end_to_end_unplumbed", proxyUnplumbed},
		{"proxy_protocol_switch_from_addr", proxyProtocolSwitchFromAddr},
		{"proxy_protocol_hostname", proxyProtocolHostname},
		{"proxy_protocol_hostname_failover", proxyProtocolHostnameFailover},
		{"proxy_protocol_hostname_all_fail", proxyProtocolHostnameAllFail},
		{"proxy_protocol_hostname_family_mismatch", proxyProtocolHostnameFamilyMismatch},
		{"proxy_protocol_broken_proxy", proxyProtocolBrokenProxy},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			s := &stage{T: t, rt: newRuntime(t)}
			s.rt.Logger = slog.New(slog.DiscardHandler)
			s.rt.Egress = s
			scenario.play(s)
		})
	}
}

// throughSOCKS sends two messages through a proxy: over one connection, that comes from where it was told.
func (s *stage) throughSOCKS(g *gateway, credentials string) {
	s.Helper()
	sink, addr := s.sink(&smtptest.Sink{})
	server := g.listen(s.T)
	p := s.through(socksFrom(server, ours())+credentials, addr)
	for range 2 {
		r := s.send(p, "user")[0]
		s.wantThrough(r, server, g.lastFrom(), addr)
	}
	want := "BIND " + ours() + ":0, CONNECT " + addr
	if g.username != "" {
		want = "auth, " + want
	}
	if g.heard() != want || !strings.HasPrefix(g.lastFrom(), ours()+":") || len(sink.Messages()) != 2 {
		s.Errorf("the proxy was asked %s, and connected from %s; %d messages", g.heard(), g.lastFrom(), len(sink.Messages()))
	}
}

func (s *stage) notThroughSOCKS(g *gateway, credentials, says string) {
	s.Helper()
	sink, addr := s.sink(&smtptest.Sink{})
	server := g.listen(s.T)
	r := s.send(s.through(socksFrom(server, ours())+credentials, addr), "user")[0]
	s.wantUnreached(r, fmt.Sprintf("the proxy cannot be used: host-1.test (%s): proxy %s: %s", addr, server, says))
	if strings.Contains(g.heard(), "CONNECT") || len(sink.Messages()) != 0 {
		s.Errorf("the proxy was asked %s; %d messages", g.heard(), len(sink.Messages()))
	}
}

// dials is a host's dialer that remembers what it is asked for. Addresses that it has an error for fail.
type dials struct {
	mu    sync.Mutex
	asked []DialRequest
	fail  map[string]error
}

func (d *dials) dial(ctx context.Context, to DialRequest) (net.Conn, error) {
	d.mu.Lock()
	d.asked = append(d.asked, to)
	err := d.fail[to.Address]
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, to.Network, to.Address)
}

// want checks what was asked for.
func (d *dials) want(t *testing.T, want ...DialRequest) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.asked, want) {
		t.Errorf("asked for %+v\nwant %+v", d.asked, want)
	}
}

// port is that of an address.
func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func proxySOCKS5Hostname(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	g := &gateway{}
	server, dialer := g.listen(s.T), &dials{}
	s.rt.Dial = dialer.dial
	s.rt.Resolver = zone{"socks5.proxy.test A": addrs("127.0.0.1")}
	r := s.send(s.through(socksFrom("socks5.proxy.test:"+port(server), ours()), addr), "user")[0]
	s.wantThrough(r, server, g.lastFrom(), addr)
	dialer.want(s.T, DialRequest{Network: "tcp", Address: server, Host: "socks5.proxy.test", Beyond: addr})
}

func proxyUnplumbed(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	g := &gateway{}
	server := g.listen(s.T)
	r := s.send(s.through(socksFrom(server, "192.0.2.1"), addr), "user")[0]
	s.wantUnreached(r, fmt.Sprintf("the proxy cannot use the source address that it is told to: host-1.test (%s): proxy %s: "+
		"SOCKS5 bind: the proxy did not bind the source address 192.0.2.1: general failure (code 1)", addr, server))
	if g.heard() != "BIND 192.0.2.1:0" {
		s.Errorf("the proxy was asked %s", g.heard())
	}
}

func proxyProtocolSwitchFromAddr(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	g := &gateway{headers: true}
	server := g.listen(s.T)
	p := s.through(header(server), addr)
	for range 2 {
		s.wantThrough(s.send(p, "user")[0], server, ours()+":0", addr)
	}
	if g.heard() != "PROXY "+ours()+":0 "+addr || !strings.HasPrefix(g.lastFrom(), ours()+":") {
		s.Errorf("the proxy was told %s, and connected from %s", g.heard(), g.lastFrom())
	}
}

func proxyProtocolHostname(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	g := &gateway{headers: true}
	server := g.listen(s.T)
	s.rt.Resolver = zone{"proxy.test A": addrs("127.0.0.1")}
	s.wantThrough(s.send(s.through(header("proxy.test:"+port(server)), addr), "user")[0], server, ours()+":0", addr)
}

func proxyProtocolHostnameFailover(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	g := &gateway{headers: true}
	server := g.listen(s.T)
	dead := "255.255.255.255:" + port(server)
	dialer := &dials{fail: map[string]error{dead: syscall.ENETUNREACH}}
	s.rt.Dial = dialer.dial
	s.rt.Resolver = zone{"proxy.test A": addrs("255.255.255.255", "127.0.0.1")}
	s.wantThrough(s.send(s.through(header("proxy.test:"+port(server)), addr), "user")[0], server, ours()+":0", addr)
	dialer.want(s.T,
		DialRequest{Network: "tcp", Address: dead, Host: "proxy.test", Beyond: addr},
		DialRequest{Network: "tcp", Address: server, Host: "proxy.test", Beyond: addr})
}

func proxyProtocolHostnameAllFail(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.rt.Dial = (&dials{fail: map[string]error{
		"255.255.255.255:1": errors.New("network is unreachable"), "127.0.0.99:1": errors.New("connection refused")}}).dial
	s.rt.Resolver = zone{"proxy.test A": addrs("255.255.255.255", "127.0.0.99")}
	r := s.send(s.through(header("proxy.test:1"), addr), "user")[0]
	s.wantUnreached(r, fmt.Sprintf("the proxy cannot be used: host-1.test (%s): proxy 255.255.255.255:1: network is unreachable, "+
		"proxy 127.0.0.99:1: connection refused", addr))
}

func proxyProtocolHostnameFamilyMismatch(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	dialer := &dials{}
	s.rt.Dial = dialer.dial
	s.rt.Resolver = zone{"proxy.test AAAA": addrs("::1")}
	r := s.send(s.through(header("proxy.test:1")+`"source_address": "127.0.0.1", `, addr), "user")[0]
	s.wantUnreached(r, fmt.Sprintf("host-1.test (%s): source_address 127.0.0.1 is of another address family than the proxy's ::1", addr))
	dialer.want(s.T)
}

func proxyProtocolBrokenProxy(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	const server = "127.0.0.1:1" // nobody is given this port by chance
	r := s.send(s.through(header(server), addr), "user")[0]
	s.want(r, Transient, 400, "")
	if want := fmt.Sprintf("the proxy cannot be used: host-1.test (%s): proxy %s: dial tcp", addr, server); !strings.Contains(r.Response.Text, want) {
		s.Errorf("the text is %s, want %s", r.Response.Text, want)
	}
}

// TestPlainCONNECT: without an address to bind, a SOCKS5 proxy is asked to connect and no more. It may keep to
// itself from where.
func TestPlainCONNECT(t *testing.T) {
	for _, untold := range []bool{false, true} {
		s := &stage{T: t, rt: newRuntime(t)}
		s.rt.Egress = s
		_, addr := s.sink(&smtptest.Sink{})
		g := &gateway{untold: untold}
		server := g.listen(t)
		r := s.send(s.through(socks(server), addr), "user")[0]
		local := g.lastFrom()
		if untold {
			local = ""
		}
		s.wantThrough(r, server, local, addr)
		if g.heard() != "CONNECT "+addr {
			t.Errorf("the proxy was asked %s", g.heard())
		}
	}
}

// TestProxyDialRequests: a host's dialer gets addresses that were resolved, those of the proxy, with our own
// address for the way there; and the hosts of the plan are tried in order through the same proxy.
func TestProxyDialRequests(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t)}
	s.rt.Logger = slog.New(slog.DiscardHandler)
	s.rt.Egress = s
	_, addr := s.sink(&smtptest.Sink{})
	g := &gateway{}
	server, dialer := g.listen(t), &dials{}
	s.rt.Dial = dialer.dial
	var traced []DialRequest
	s.rt.Trace = &Trace{Dialing: func(_ string, to DialRequest) { traced = append(traced, to) }}
	s.rt.Resolver = zone{"proxy.test A": addrs("127.0.0.1"), "x.test MX": mx(MXRecord{10, "mx1.x.test"}, MXRecord{20, "mx2.x.test"}),
		"mx1.x.test A": addrs("127.0.0.1"), "mx2.x.test A": addrs("127.0.0.1")}
	s.path = fmt.Sprintf(`"smtp_port": %s, `, port(addr))
	s.pool, s.sources = []string{"out"}, map[string]string{"out": socks("proxy.test:"+port(server)) + `"source_address": "127.0.0.1", `}
	r := s.send(protocolOf(t, s.rt, `{"egress_pool": "pool"}`), "user")[0]
	s.wantThrough(r, server, g.lastFrom(), addr)
	if r.Session.Peer != "mx1.x.test" {
		t.Errorf("delivered to %s", r.Session.Peer)
	}
	want := DialRequest{Network: "tcp", Address: server, Host: "proxy.test", Source: netip.MustParseAddr("127.0.0.1"), Beyond: addr}
	dialer.want(t, want)
	if !slices.Equal(traced, []DialRequest{want}) {
		t.Errorf("traced %+v", traced)
	}
	s.path = ""
	refusing := (&gateway{refuse: 5}).listen(t)
	s.sources["other"] = socks(refusing)
	s.pool = []string{"other"}
	r = s.send(s.over("others", "192.0.2.7:25", "192.0.2.8:25"), "user")[0]
	s.wantUnreached(r, fmt.Sprintf("host-1.test (192.0.2.7:25): proxy %[1]s: SOCKS5 connect: the proxy did not connect to the destination 192.0.2.7:25: connection refused (code 5), "+
		"host-2.test (192.0.2.8:25): proxy %[1]s: SOCKS5 connect: the proxy did not connect to the destination 192.0.2.8:25: connection refused (code 5)", refusing))
	dialer.want(t, want,
		DialRequest{Network: "tcp", Address: refusing, Host: "127.0.0.1", Beyond: "192.0.2.7:25"},
		DialRequest{Network: "tcp", Address: refusing, Host: "127.0.0.1", Beyond: "192.0.2.8:25"})
}

// TestProxyIsGivenConnectTimeout: the way to the proxy, its dialogue and the way beyond have one timeout.
func TestProxyIsGivenConnectTimeout(t *testing.T) {
	virtualProxy(t, &gateway{mute: true}, "", func(s *stage, g *gateway) {
		start := time.Now()
		s.path = `"connect_timeout": "7s", `
		r := s.send(s.through(socks("192.0.2.9:1080"), "192.0.2.7:25"), "user")[0]
		s.wantUnreached(r, "host-1.test (192.0.2.7:25): proxy 192.0.2.9:1080: SOCKS5 connect: context deadline exceeded")
		if took := time.Since(start); took != 7*time.Second {
			s.Errorf("it took %v", took)
		}
	})
}

// virtualProxy plays a story in virtual time: whatever is dialed is the gateway if there is something beyond,
// else the sink; and so is whatever the gateway dials.
func virtualProxy(t *testing.T, g *gateway, path string, play func(*stage, *gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, rt: newRuntime(t), path: path}
		s.rt.Logger = slog.New(slog.DiscardHandler)
		s.rt.Egress = s
		sink := &smtptest.Sink{}
		defer sink.Close()
		defer g.close()
		g.dial = func(netip.Addr, string) (net.Conn, error) { return smtptest.Link{}.Dial(sink.ServeConn), nil }
		s.rt.Dial = func(_ context.Context, to DialRequest) (net.Conn, error) {
			if to.Beyond != "" {
				return smtptest.Link{}.Dial(g.serve), nil
			}
			return smtptest.Link{}.Dial(sink.ServeConn), nil
		}
		play(s, g)
		if err := s.rt.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// TestProxiesAreSuspended: a source is passed over when its proxy cannot be used, and not for what the
// destination does.
func TestProxiesAreSuspended(t *testing.T) {
	refused := errors.New("connection refused")
	for _, test := range []struct {
		name      string
		gateway   *gateway
		source    string
		dial      error // of the way to the proxy
		suspended bool
	}{
		{"the proxy is not there", &gateway{}, socks("192.0.2.9:1080"), refused, true},
		{"the proxy is not there, headers", &gateway{}, header("192.0.2.9:1080"), refused, true},
		{"the proxy has no address", &gateway{}, socks("nowhere.test:1080"), nil, true},
		{"the proxy does not let us in", &gateway{strict: true}, socks("192.0.2.9:1080"), nil, true},
		{"the proxy is none", &gateway{headers: true}, socks("192.0.2.9:1080"), nil, true},
		{"the proxy cannot use its source", &gateway{}, socksFrom("192.0.2.9:1080", "192.0.2.1"), nil, true},
		{"no ports are left for the way to the proxy", &gateway{}, socks("192.0.2.9:1080"), syscall.EADDRNOTAVAIL, true},
		{"the destination refuses", &gateway{refuse: 5}, socks("192.0.2.9:1080"), nil, false},
		{"the proxy may not", &gateway{refuse: 2}, socks("192.0.2.9:1080"), nil, false},
		{"the proxy says no more", &gateway{refuse: 1}, socks("192.0.2.9:1080"), nil, false},
		{"the destination does not answer", &gateway{mute: true}, socks("192.0.2.9:1080"), nil, false},
		{"the destination refuses, headers", &gateway{headers: true, refuse: 5}, header("192.0.2.9:1080"), nil, false},
		{"our address is of another family", &gateway{}, `"source_address": "2001:db8::1", ` + socks("192.0.2.9:1080"), nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtualProxy(t, test.gateway, "", func(s *stage, g *gateway) {
				s.rt.Resolver = zone{"x.test A": addrs("192.0.2.7")}
				if test.dial != nil {
					s.rt.Dial = func(context.Context, DialRequest) (net.Conn, error) { return nil, test.dial }
				}
				if g.refuse != 0 {
					g.dial = func(netip.Addr, string) (net.Conn, error) { return nil, refused }
				}
				p := s.through(test.source+`"suspend_when_proxy_unhealthy": {"trigger": "Immediate", "duration": "1h"}, `+
					`"suspend_when_unplumbed": {"trigger": "Immediate", "duration": "2h"}, `, "192.0.2.7:25")
				s.want(s.send(p, "user")[0], Transient, 400, "")
				again := s.send(p, "user")[0]
				if suspended := again.Response.Code == 451; suspended != test.suspended {
					s.Errorf("then: %s", again.Response)
				}
				time.Sleep(time.Hour)
				if r := s.send(p, "user")[0]; r.Response.Code != 400 {
					s.Errorf("after an hour: %s", r.Response)
				}
			})
		})
	}
}

// TestWhoGivesUpBlamesNobody: a caller whose context ends while a proxy is slow says nothing about the proxy.
func TestWhoGivesUpBlamesNobody(t *testing.T) {
	virtualProxy(t, &gateway{}, "", func(s *stage, g *gateway) {
		dial := s.rt.Dial
		s.rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
			if err := sleep(ctx, 5*time.Second); err != nil {
				return nil, err
			}
			return dial(ctx, to)
		}
		p := s.through(socks("192.0.2.9:1080")+`"suspend_when_proxy_unhealthy": {"trigger": "Immediate", "duration": "1h"}, `, "192.0.2.7:25")
		ctx, cancel := context.WithTimeout(s.Context(), time.Second)
		defer cancel()
		if r := p.Deliver(ctx, messageTo("user@x.test")).Results[0]; r.Status != Unsent {
			s.Errorf("%s %v", r.Status, r.Err)
		}
		s.wantDelivered(s.send(p, "user")...)
	})
}

// TestNoAddressToBindIsMissing: EADDRNOTAVAIL is about source_address only where there is one.
func TestNoAddressToBindIsMissing(t *testing.T) {
	virtualProxy(t, &gateway{}, "", func(s *stage, g *gateway) {
		s.rt.Dial = func(context.Context, DialRequest) (net.Conn, error) { return nil, syscall.EADDRNOTAVAIL }
		p := s.through(`"suspend_when_unplumbed": {"trigger": "Immediate", "duration": "1h"}, `, "192.0.2.7:25")
		for range 2 {
			s.wantUnreached(s.send(p, "user")[0], "host-1.test (192.0.2.7:25): "+syscall.EADDRNOTAVAIL.Error())
		}
	})
}

// TestAddressToBindIsMissing: on the way to a proxy, too.
func TestAddressToBindIsMissing(t *testing.T) {
	virtualProxy(t, &gateway{}, "", func(s *stage, g *gateway) {
		s.rt.Dial = func(context.Context, DialRequest) (net.Conn, error) { return nil, syscall.EADDRNOTAVAIL }
		p := s.through(`"source_address": "192.0.2.1", "suspend_when_unplumbed": {"duration": "1h"}, `+socks("192.0.2.9:1080"), "192.0.2.7:25")
		s.wantUnreached(s.send(p, "user")[0], "source_address is no address of this machine: "+
			"host-1.test (192.0.2.7:25): proxy 192.0.2.9:1080: "+syscall.EADDRNOTAVAIL.Error())
		s.want(s.send(p, "user")[0], Transient, 451, "")
	})
}

// TestUnixSocketsNeedNoProxy: what is reached without one does not say otherwise.
func TestUnixSocketsNeedNoProxy(t *testing.T) {
	virtualProxy(t, &gateway{}, "", func(s *stage, g *gateway) {
		s.through(socks("192.0.2.9:1080"))
		r := s.send(protocolOf(s.T, s.rt, `{"egress_pool": "pool", "protocol": {"smtp": {"mx_list": ["/run/lmtp.sock"]}}}`), "user")[0]
		s.wantDelivered(r)
		if r.Session.Proxy != "" || g.heard() != "" {
			s.Errorf("through %q, which was asked %s", r.Session.Proxy, g.heard())
		}
	})
}

// TestProxiedSessionsAreNotShared: neither with a source beside that has no proxy or another one, nor with what
// the source was before.
func TestProxiedSessionsAreNotShared(t *testing.T) {
	g := &gateway{username: "user", password: "secret"}
	virtualProxy(t, g, `"idle_timeout": "1h", `, func(s *stage, g *gateway) {
		var dialed []DialRequest
		dial := s.rt.Dial
		s.rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
			dialed = append(dialed, to)
			return dial(ctx, to)
		}
		direct := ""
		p := s.through(direct, "192.0.2.7:25")
		ids := map[string]string{}
		for _, source := range []string{
			direct,
			socks("192.0.2.9:1080"),
			socks("192.0.2.8:1080"),
			socks("192.0.2.9:1080") + login("user", "secret"),
			socks("192.0.2.9:1080") + login("user", "secret") + `"source_address": "192.0.2.1", `,
			socksFrom("192.0.2.9:1080", "127.0.0.1"),
			`"ha_proxy_server": "192.0.2.9:1080", "ha_proxy_source_address": "127.0.0.1", `,
			`"ha_proxy_server": "192.0.2.9:1080", "ha_proxy_source_address": "127.0.0.3", `,
			direct,
		} {
			g.headers = strings.Contains(source, "ha_proxy")
			s.sources["out"] = source
			time.Sleep(2 * time.Minute) // which is longer than a definition holds
			dialed = nil
			first, second := s.send(p, "user")[0], s.send(p, "user")[0]
			s.wantDelivered(first, second)
			if first.Session.ID != second.Session.ID || len(dialed) != 1 || (dialed[0].Beyond != "") != (source != direct) {
				s.Errorf("%s: sessions %s and %s, dialed %+v", source, first.Session.ID, second.Session.ID, dialed)
			}
			if was, used := ids[first.Session.ID]; used {
				s.Errorf("%s: over a session of %s", source, was)
			}
			ids[first.Session.ID] = cmp.Or(source, "no proxy")
		}
		s.pool = []string{"out", "in"}
		s.sources = map[string]string{"out": socks("192.0.2.9:1080"), "in": direct}
		g.headers = false
		time.Sleep(2 * time.Minute)
		both := s.over("both", "192.0.2.7:25")
		for range 10 {
			r := s.send(both, "user")[0]
			s.wantDelivered(r)
			if (r.Session.Proxy != "") != (r.Session.Source == "out") {
				s.Errorf("sent from %s through %q", r.Session.Source, r.Session.Proxy)
			}
		}
	})
}

// TestProxyCredentialsAreKept: to ourselves, whatever is traced, logged, counted or reported.
func TestProxyCredentialsAreKept(t *testing.T) {
	for _, test := range []struct {
		name    string
		gateway *gateway
		code    int
	}{
		{"right", &gateway{username: "marigold", password: "buttercup", strict: true}, 250},
		{"not wanted", &gateway{}, 250},
		{"wrong", &gateway{username: "marigold", password: "cowslip", strict: true}, 400},
		{"no proxy", &gateway{headers: true}, 400},
		{"the destination refuses", &gateway{username: "marigold", password: "buttercup", refuse: 5}, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtualProxy(t, test.gateway, `"enable_pipelining": false, `, func(s *stage, g *gateway) {
				var told record
				tell := func(format string, args ...any) { fmt.Fprintf(&told, format+"\n", args...) }
				s.rt.Logger = slog.New(slog.NewTextHandler(&told, &slog.HandlerOptions{Level: slog.LevelDebug}))
				s.rt.Trace = &Trace{
					Resolved:  func(q QueueName, plan Plan, err error) { tell("%v %+v %v", q, plan, err) },
					Throttled: func(ready string, wait time.Duration, err error) { tell("%s %v %v", ready, wait, err) },
					Dialing:   func(ready string, to DialRequest) { tell("%s %+v", ready, to) },
					Dialed:    func(ready string, to DialRequest, err error) { tell("%s %+v %v", ready, to, err) },
					Stage: func(s *Session, stage string, took time.Duration, err error) {
						tell("%+v %s %v", s, stage, err)
					},
					Opened:      func(s *Session) { tell("%+v", s) },
					Reused:      func(s *Session) { tell("%+v", s) },
					Sent:        func(s *Session, line string) { tell("%+v %s", s, line) },
					Received:    func(s *Session, line string) { tell("%+v %s", s, line) },
					Reply:       func(s *Session, r Response, took time.Duration) { tell("%+v %+v", s, r) },
					Transaction: func(s *Session, tx TransactionTrace) { tell("%+v %+v", s, tx) },
					Closed:      func(s *Session, why string) { tell("%+v %s", s, why) },
				}
				p := s.through(socks("192.0.2.9:1080")+login("marigold", "buttercup")+
					`"suspend_when_proxy_unhealthy": {"trigger": "Immediate", "duration": "1m"}, `, "192.0.2.7:25")
				plan, err := p.Plan(s.Context(), messageTo("user@x.test"))
				tell("%+v %v", plan, err)
				for _, r := range s.send(p, "user", "permfail") {
					if r.Recipient == "user@x.test" && r.Response.Code != test.code {
						s.Errorf("%s", r.Response)
					}
					tell("%+v %+v %v %#v", r, r.Session, r.Err, r.Err)
				}
				tell("%+v", s.rt.Stats())
				for _, secret := range []string{"marigold", "buttercup", "6d617269676f6c64", "6275747465726375"} {
					if at := strings.Index(told.String(), secret); at >= 0 {
						s.Errorf("told %q: %s", secret, told.String()[max(0, at-200):at+20])
					}
				}
				if !strings.Contains(told.String(), "192.0.2.9:1080") {
					s.Errorf("nothing of the proxy was told: %s", told.String())
				}
			})
		})
	}
}

// TestProxyPasswordFile: one that cannot be read is named, and connects nowhere.
func TestProxyPasswordFile(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t)}
	s.rt.Egress = s
	dialer := &dials{}
	s.rt.Dial = dialer.dial
	file := filepath.Join(t.TempDir(), "password")
	source := fmt.Sprintf(`"socks5_proxy_server": "127.0.0.1:1", "socks5_proxy_username": "u", "socks5_proxy_password": %q, `, file)
	r := s.send(s.through(source, "127.0.0.1:25"), "user")[0]
	s.want(r, Transient, 400, "")
	if !strings.Contains(r.Response.Text, "socks5_proxy_password: open "+file) {
		t.Errorf("%s", r.Response)
	}
	dialer.want(t)
}
