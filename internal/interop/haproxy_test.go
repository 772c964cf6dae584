//go:build interop && linux

package interop

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery"
)

// haproxy is an HAProxy that connects on to where the PROXY header in front of a connection says.
type haproxy struct {
	server *process
	// Addresses: one passes only what follows the header; the other tells the destination, by a header of its
	// own, about the source that it was told.
	plain, telling string
}

// haproxyConf logs each connection at its end: source and destination as the header had them.
const haproxyConf = `
global
  log stdout format raw daemon
defaults
  mode tcp
  log global
  log-format "from %ci:%cp to %[dst]:%[dst_port]"
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  retries 0
listen plain
  bind PLAIN accept-proxy
  server destination 0.0.0.0
listen telling
  bind TELLING accept-proxy
  server destination 0.0.0.0 send-proxy-v2
`

// startHAProxy starts an HAProxy for one test.
func startHAProxy(t *testing.T) *haproxy {
	t.Helper()
	plain, telling := mustFreePort(t), mustFreePort(t)
	h := &haproxy{plain: loopback(plain), telling: loopback(telling)}
	conf := filepath.Join(lab.dir, fmt.Sprintf("haproxy-%d.conf", plain))
	if err := writeFile(conf, strings.NewReplacer("PLAIN", h.plain, "TELLING", h.telling).Replace(haproxyConf)); err != nil {
		t.Fatal(err)
	}
	h.server = serve(t, plain, "/usr/sbin/haproxy", "-db", "-f", conf)
	if err := h.server.listens(telling); err != nil {
		t.Fatal(err)
	}
	return h
}

// connections are the lines that HAProxy has logged of connections, and how often.
func (h *haproxy) connections(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(h.server.said(t)) {
		if strings.HasPrefix(line, "from ") && strings.HasSuffix(line, "\n") {
			counts[strings.TrimSpace(line)]++
		}
	}
	return counts
}

// claimed is the address that HAProxy is told to connect from. It is none of this machine's.
var claimed = netip.MustParseAddr("192.0.2.77")

// Postfix, behind an HAProxy that it believes, takes mail from the address that we claim.
func TestHAProxyPostfix(t *testing.T) {
	log := lab.postfix.log(t)
	h := startHAProxy(t)
	var rt delivery.Runtime
	source := delivery.EgressSource{Name: "claimed", HAProxyServer: h.telling, HAProxySourceAddress: claimed}
	r := deliverOne(t, through(t, &rt, one(source), lab.postfix.proxied), "haproxy@example.test")
	end(t, &rt)
	id := wantDelivered(t, r)
	if s := r.Session; s.Proxy != h.telling || s.RemoteAddr != lab.postfix.proxied || s.LocalAddr != "192.0.2.77:0" || s.Source != "claimed" {
		t.Errorf("the result says %+v, want the proxy %s, the peer %s and the source %s", *s, h.telling, lab.postfix.proxied, claimed)
	}
	if client := log.clients(t, 1)[id]; client != netip.AddrPortFrom(claimed, 0) {
		t.Errorf("Postfix saw %s, want %s", client, claimed)
	}
	want := map[string]int{"from 192.0.2.77:0 to " + lab.postfix.proxied: 1}
	mustSee(t, "the log of HAProxy", func() bool { return len(h.connections(t)) > 0 })
	if got := h.connections(t); !maps.Equal(got, want) {
		t.Errorf("HAProxy saw %v, want %v", got, want)
	}
	mail := lab.postfix.mail(t, "haproxy")
	if !strings.Contains(mail, " (unknown [192.0.2.77])\n") {
		t.Errorf("the mail does not have the address:\n%s", mail)
	}
	checkSame(t, withoutTrace(mail, postfixTrace...), unixLines(smallMessage))
}

// A mailing goes through HAProxy over as many connections as the limit says, of which the first host of the
// list refuses every one. That is the host's failure, and not the proxy's.
func TestHAProxySink(t *testing.T) {
	const messages, limit = 500, 5
	h, s := startHAProxy(t), startSink(t)
	nobody := loopback(mustFreePort(t))
	r := deliver(t, "-n", fmt.Sprint(messages), "-c", "20", "-config", via(named("first.test", nobody), named("second.test", s.address)),
		"-egress-path", path(fields{"connection_limit": limit}),
		"-egress-source", fields{"name": "claimed", "ha_proxy_server": h.plain, "ha_proxy_source_address": claimed.String(),
			"suspend_when_proxy_unhealthy": fields{"trigger": "Immediate", "duration": "1h"}}.json(),
		"-from", "sender@sender.test", "-to", "user@example.test", messageFile(t, smallMessage))
	r.exited(t, 0)
	r.all(t, messages, "delivered")
	for _, res := range r.results {
		if res.Proxy != h.plain || res.Address != s.address || res.Source != "192.0.2.77:0" || res.Peer != "second.test" {
			t.Fatalf("got %+v, want the proxy %s, the peer %s and the source %s", res, h.plain, s.address, claimed)
		}
	}
	got := s.settled(t)
	if got.messages != messages || got.sessions < r.summary.Sessions || got.sessions > limit {
		t.Errorf("the sink counted %+v, the summary %d sessions; want %d messages over at most %d", got, r.summary.Sessions, messages, limit)
	}
	// The end may come upon a connection that is being opened and not needed any more.
	refused, passed := "from 192.0.2.77:0 to "+nobody, "from 192.0.2.77:0 to "+s.address
	mustSee(t, "the log of HAProxy", func() bool {
		to := h.connections(t)
		return to[refused] >= got.sessions && to[passed] >= got.sessions
	})
	if to := h.connections(t); len(to) != 2 || to[refused] > limit || to[passed] > limit {
		t.Errorf("HAProxy saw %v, want %q and %q, %d times at most", to, refused, passed, limit)
	}
}

// A proxy that has gone costs the message that finds out a delay; then its source is passed over for the
// next one of the pool.
func TestHAProxyGone(t *testing.T) {
	log := lab.postfix.log(t)
	h := startHAProxy(t)
	rt := delivery.Runtime{Logger: slog.New(slog.DiscardHandler)}
	protocol := through(t, &rt, []weighted{
		{delivery.EgressSource{Name: "claimed", HAProxyServer: h.plain, HAProxySourceAddress: claimed, SuspendWhenProxyUnhealthy: atOnce}, 1},
		{delivery.EgressSource{Name: "direct"}, 1},
	}, lab.postfix.smtp)
	from := func() string {
		r := deliverOne(t, protocol, "user@discard.test")
		if r.Status == delivery.Transient && r.Response.Code == 400 && strings.Contains(r.Response.Text, "the proxy cannot be used") {
			return "nowhere"
		}
		wantDelivered(t, r)
		return r.Session.Source
	}
	got := []string{from(), from()}
	if err := h.server.stop(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		got = append(got, from())
	}
	if want := "claimed direct nowhere direct direct direct"; strings.Join(got, " ") != want {
		t.Errorf("sent from %v, want %s", got, want)
	}
	end(t, &rt)
	log.dialogues(t, int(rt.Stats().Opened))
}
