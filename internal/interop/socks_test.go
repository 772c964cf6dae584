//go:build interop && linux

package interop

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery"
)

// socks is a SOCKS5 server.
type socks struct {
	address string
	outside string // the address that it connects from
	source  delivery.EgressSource
}

// danteConf is a server that anybody may use.
const danteConf = `
logoutput: stdout
internal: 127.0.0.1 port = PORT
external: OUTSIDE
clientmethod: none
socksmethod: none
client pass {
	from: 127.0.0.0/8 to: 0.0.0.0/0
}
socks pass {
	from: 127.0.0.0/8 to: 127.0.0.0/8
	command: connect
}
`

// startDante starts a Dante for one test. It says which address it connects from.
func startDante(t *testing.T) *socks {
	t.Helper()
	port := mustFreePort(t)
	s := &socks{address: loopback(port), outside: "127.0.0.5"}
	s.source = delivery.EgressSource{Name: "dante", SOCKS5ProxyServer: s.address, SuspendWhenProxyUnhealthy: atOnce}
	conf := filepath.Join(lab.dir, fmt.Sprintf("dante-%d.conf", port))
	if err := writeFile(conf, strings.NewReplacer("PORT", fmt.Sprint(port), "OUTSIDE", s.outside).Replace(danteConf)); err != nil {
		t.Fatal(err)
	}
	serve(t, port, "/usr/sbin/danted", "-f", conf, "-p", "/dev/null")
	return s
}

// socksPassword is what startMicrosocks wants.
const socksPassword = "battery staple"

// startMicrosocks starts a microsocks for one test. It wants a password, and does not say which address it
// connects from.
func startMicrosocks(t *testing.T) *socks {
	t.Helper()
	port := mustFreePort(t)
	s := &socks{address: loopback(port), outside: "127.0.0.6"}
	s.source = delivery.EgressSource{Name: "microsocks", SOCKS5ProxyServer: s.address, SuspendWhenProxyUnhealthy: atOnce,
		SOCKS5ProxyUsername: "one", SOCKS5ProxyPassword: &delivery.KeySource{Data: socksPassword}}
	serve(t, port, "/usr/bin/microsocks", "-i", "127.0.0.1", "-p", fmt.Sprint(port), "-b", s.outside,
		"-u", "one", "-P", socksPassword)
	return s
}

// Postfix takes mail from the address that the proxy connects from. The result has the same one, to the port,
// where the proxy tells.
func TestSOCKSPostfix(t *testing.T) {
	for _, test := range []struct {
		name  string
		start func(*testing.T) *socks
		tells bool
	}{{"dante", startDante, true}, {"microsocks", startMicrosocks, false}} {
		t.Run(test.name, func(t *testing.T) {
			log := lab.postfix.log(t)
			proxy := test.start(t)
			var rt delivery.Runtime
			r := deliverOne(t, through(t, &rt, one(proxy.source), lab.postfix.smtp), "socks@example.test")
			end(t, &rt)
			id := wantDelivered(t, r)
			client := log.clients(t, 1)[id]
			if client.Addr() != netip.MustParseAddr(proxy.outside) {
				t.Errorf("Postfix saw %s, want %s", client, proxy.outside)
			}
			local := "" // a proxy that says 0.0.0.0:0 does not tell
			if test.tells {
				local = client.String()
			}
			if r.Session.LocalAddr != local {
				t.Errorf("the result says %q, want %q: Postfix saw %s", r.Session.LocalAddr, local, client)
			}
			if s := r.Session; s.Proxy != proxy.address || s.RemoteAddr != lab.postfix.smtp || s.Source != test.name {
				t.Errorf("the result says %+v, want the proxy %s and the peer %s", *s, proxy.address, lab.postfix.smtp)
			}
			checkSame(t, withoutTrace(lab.postfix.mail(t, "socks"), postfixTrace...), unixLines(smallMessage))
		})
	}
}

// A mailing goes through the proxy over as many connections as the limit says, of which the first host of the
// list refuses every one. That is the host's failure, and not the proxy's.
func TestSOCKSSink(t *testing.T) {
	const messages, limit = 500, 5
	for name, start := range map[string]func(*testing.T) *socks{"dante": startDante, "microsocks": startMicrosocks} {
		t.Run(name, func(t *testing.T) {
			proxy, s := start(t), startSink(t)
			source, err := proxy.source.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			r := deliver(t, "-n", fmt.Sprint(messages), "-c", "20",
				"-config", via(named("first.test", loopback(mustFreePort(t))), named("second.test", s.address)),
				"-egress-path", path(fields{"connection_limit": limit}), "-egress-source", string(source),
				"-from", "sender@sender.test", "-to", "user@example.test", messageFile(t, smallMessage))
			r.exited(t, 0)
			r.all(t, messages, "delivered")
			for _, res := range r.results {
				if res.Proxy != proxy.address || res.Address != s.address || res.Peer != "second.test" {
					t.Fatalf("got %+v, want the proxy %s and the peer %s", res, proxy.address, s.address)
				}
			}
			if got := s.settled(t); got.messages != messages || got.sessions < r.summary.Sessions || got.sessions > limit {
				t.Errorf("the sink counted %+v, the summary %d sessions; want %d messages over at most %d", got, r.summary.Sessions, messages, limit)
			}
		})
	}
}

// A destination that refuses is named as such, with the proxy's reason, and the source is not suspended.
func TestSOCKSRefused(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *socks{"dante": startDante, "microsocks": startMicrosocks} {
		t.Run(name, func(t *testing.T) {
			proxy, nobody := start(t), loopback(mustFreePort(t))
			var rt delivery.Runtime
			protocol := through(t, &rt, one(proxy.source), nobody)
			for range 2 {
				r := deliverOne(t, protocol, "user@discard.test")
				if text := r.Response.Text; r.Status != delivery.Transient || r.Response.Code != 400 || r.MaybeDelivered ||
					!strings.Contains(text, nobody) || !strings.Contains(text, proxy.address) || !strings.Contains(text, "refused") {
					t.Errorf("%s %s, want 400 with %s, %s and the reason", r.Status, r.Response, nobody, proxy.address)
				}
			}
		})
	}
}

// Without the credentials that the proxy wants, nothing passes it.
func TestSOCKSCredentials(t *testing.T) {
	proxy, s := startMicrosocks(t), startSink(t)
	for _, test := range []struct {
		name, username, password string
	}{
		{"other password", "one", "guess"},
		{"other user", "two", socksPassword},
		{"none", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			rt := delivery.Runtime{Logger: slog.New(slog.DiscardHandler)}
			source := proxy.source
			source.SOCKS5ProxyUsername, source.SOCKS5ProxyPassword = test.username, nil
			if test.username != "" {
				source.SOCKS5ProxyPassword = &delivery.KeySource{Data: test.password}
			}
			protocol := through(t, &rt, one(source), s.address)
			r := deliverOne(t, protocol, "user@example.test")
			if text := r.Response.Text; r.Status != delivery.Transient || r.Response.Code != 400 || r.MaybeDelivered ||
				!strings.Contains(text, "the proxy cannot be used") || !strings.Contains(text, "did not authenticate us") {
				t.Errorf("%s %s, want 400 because of the credentials", r.Status, r.Response)
			}
			if strings.Contains(fmt.Sprintf("%s %v", r.Response.Text, r.Err), socksPassword) {
				t.Errorf("%s %v shows the password", r.Response, r.Err)
			}
			// The proxy is not healthy for this source, which is suspended.
			if r := deliverOne(t, protocol, "user@example.test"); r.Status != delivery.Transient || r.Response.Code != 451 {
				t.Errorf("%s %s, want 451 because there is no other source", r.Status, r.Response)
			}
			end(t, &rt)
		})
	}
	if got := s.settled(t); got != (sinkCounts{}) {
		t.Errorf("the sink counted %+v, want nothing", got)
	}
}

// A proxy by name is looked for at each of its addresses.
func TestProxyByName(t *testing.T) {
	h, microsocks := startHAProxy(t), startMicrosocks(t)
	for _, test := range []struct {
		proxy  string
		source delivery.EgressSource
	}{
		{h.plain, delivery.EgressSource{HAProxyServer: "proxy.test:" + portOf(h.plain), HAProxySourceAddress: claimed}},
		{microsocks.address, func(s delivery.EgressSource) delivery.EgressSource {
			s.SOCKS5ProxyServer = "proxy.test:" + portOf(microsocks.address)
			return s
		}(microsocks.source)},
	} {
		// Nobody listens at the first address.
		rt := delivery.Runtime{Resolver: names{"proxy.test": {netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}}}
		test.source.Name = "by name"
		s := startSink(t)
		r := deliverOne(t, through(t, &rt, one(test.source), s.address), "user@example.test")
		end(t, &rt)
		if r.Status != delivery.Delivered || r.Session.Proxy != test.proxy || r.Session.RemoteAddr != s.address {
			t.Errorf("%s %s through %s to %s, want it delivered through %s to %s", r.Status, r.Response,
				r.Session.Proxy, r.Session.RemoteAddr, test.proxy, s.address)
		}
		if got, want := s.settled(t), (sinkCounts{1, 1, 1}); got != want {
			t.Errorf("the sink counted %+v, want %+v", got, want)
		}
	}
}

// names is a Resolver that knows the IPv4 addresses of some names.
type names map[string][]netip.Addr

func (n names) Lookup(_ context.Context, name string, kind delivery.DNSType) delivery.DNSAnswer {
	addrs, known := n[name]
	switch {
	case !known:
		return delivery.DNSAnswer{Result: delivery.DNSNXDomain}
	case kind != delivery.DNSTypeA:
		return delivery.DNSAnswer{Result: delivery.DNSNoData}
	}
	return delivery.DNSAnswer{Result: delivery.DNSRecords, Name: name, Addrs: addrs}
}
