//go:build interop && linux

package interop

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtadelivery/delivery"
)

// outlet is an Egress with one path, and with one pool that has these sources.
type outlet struct {
	path    delivery.EgressPath
	sources []weighted
}

// weighted is a source of a pool.
type weighted struct {
	source delivery.EgressSource
	weight int
}

func (o outlet) EgressPool(_ context.Context, name string) (delivery.EgressPool, error) {
	pool := delivery.EgressPool{Name: name}
	for _, w := range o.sources {
		pool.Entries = append(pool.Entries, delivery.PoolEntry{Name: w.source.Name, Weight: &w.weight})
	}
	return pool, nil
}

func (o outlet) EgressSource(_ context.Context, name string) (delivery.EgressSource, error) {
	for _, w := range o.sources {
		if w.source.Name == name {
			return w.source, nil
		}
	}
	return delivery.EgressSource{}, &delivery.ConfigError{Field: "source", Reason: "there is no " + name}
}

func (o outlet) EgressPath(context.Context, string, string, string) (delivery.EgressPath, error) {
	return patient(o.path), nil
}

// through lends a runtime a pool of sources, and is the protocol that sends from it to these addresses.
func through(t *testing.T, rt *delivery.Runtime, sources []weighted, addresses ...string) delivery.Protocol {
	t.Helper()
	rt.Egress = outlet{delivery.EgressPath{ProhibitedHosts: nothing, EnableTLS: "Disabled"}, sources}
	var hosts []delivery.MXEntry
	for _, a := range addresses {
		hosts = append(hosts, delivery.MXEntry{Name: "mx.test", Addr: a})
	}
	protocol, err := rt.Protocol(delivery.QueueConfig{EgressPool: "pool",
		Protocol: delivery.ProtocolConfig{SMTP: &delivery.SMTP{MXList: hosts}}})
	if err != nil {
		t.Fatal(err)
	}
	// Close may end before; the runtime must not outlive the test when it fails.
	t.Cleanup(func() { rt.Close(context.Background()) })
	return protocol
}

// one is a pool of one source.
func one(source delivery.EgressSource) []weighted { return []weighted{{source, 1}} }

// deliverOne sends a message to one recipient.
func deliverOne(t *testing.T, protocol delivery.Protocol, to string) *delivery.Result {
	t.Helper()
	return &protocol.Deliver(t.Context(), message(to)).Results[0]
}

// wantDelivered fails the test unless Postfix took the message, and returns the name of the queue file.
func wantDelivered(t *testing.T, r *delivery.Result) string {
	t.Helper()
	id := postfixQueued.FindStringSubmatch(r.Response.Text)
	if r.Status != delivery.Delivered || id == nil {
		t.Fatalf("%s %s, want it delivered and queued", r.Status, r.Response)
	}
	return id[1]
}

// end closes a runtime: then every QUIT is said.
func end(t *testing.T, rt *delivery.Runtime) {
	t.Helper()
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Postfix sees the addresses of a pool in the proportions of their weights, and each message from the one
// that its result says. Weight 0 has no share; a source without an address leaves it to the system.
func TestPostfixSources(t *testing.T) {
	const messages, callers = 120, 10
	log := lab.postfix.log(t)
	var rt delivery.Runtime
	protocol := through(t, &rt, []weighted{
		{delivery.EgressSource{Name: "two", SourceAddress: netip.MustParseAddr("127.0.0.2")}, 3},
		{delivery.EgressSource{Name: "three", SourceAddress: netip.MustParseAddr("127.0.0.3")}, 2},
		{delivery.EgressSource{Name: "four", SourceAddress: netip.MustParseAddr("127.0.0.4")}, 0},
		{delivery.EgressSource{Name: "any"}, 1},
	}, lab.postfix.smtp)
	results := make([]*delivery.Result, messages)
	var senders sync.WaitGroup
	for first := range callers {
		senders.Go(func() {
			for i := first; i < messages; i += callers {
				results[i] = deliverOne(t, protocol, "user@discard.test")
			}
		})
	}
	senders.Wait()
	end(t, &rt)

	clients := log.clients(t, int(rt.Stats().Opened))
	shares := map[netip.Addr]int{}
	addresses := map[string]string{"two": "127.0.0.2", "three": "127.0.0.3", "any": "127.0.0.1"}
	for _, r := range results {
		client := clients[wantDelivered(t, r)]
		shares[client.Addr()]++
		if s := r.Session; s.LocalAddr != client.String() || client.Addr().String() != addresses[s.Source] ||
			s.RemoteAddr != lab.postfix.smtp || s.Proxy != "" {
			t.Errorf("Postfix saw %s, the result says %+v", client, *s)
		}
	}
	for address, want := range map[string]int{"127.0.0.2": messages * 3 / 6, "127.0.0.3": messages * 2 / 6, "127.0.0.1": messages / 6} {
		if got := shares[netip.MustParseAddr(address)]; got != want {
			t.Errorf("%d messages from %s, want %d; in all %v", got, address, want, shares)
		}
	}
}

// A source whose address is none of this machine's costs the message that finds out a delay, and is then
// passed over.
func TestPostfixUnplumbed(t *testing.T) {
	const messages = 20
	log := lab.postfix.log(t)
	var said bytes.Buffer
	rt := delivery.Runtime{Logger: slog.New(slog.NewTextHandler(&said, nil))}
	protocol := through(t, &rt, []weighted{
		{delivery.EgressSource{Name: "unplumbed", SourceAddress: netip.MustParseAddr("192.0.2.1"),
			SuspendWhenUnplumbed: atOnce}, 5},
		{delivery.EgressSource{Name: "two", SourceAddress: netip.MustParseAddr("127.0.0.2")}, 1},
	}, lab.postfix.smtp)
	for i := range messages {
		r := deliverOne(t, protocol, "user@discard.test")
		if i > 0 {
			wantDelivered(t, r)
		} else if r.Status != delivery.Transient || r.Response.Code != 400 ||
			!strings.Contains(r.Response.Text, "source_address is no address of this machine") {
			t.Errorf("%s %s, want 400 because of the source_address", r.Status, r.Response)
		}
	}
	end(t, &rt)
	clients := log.clients(t, int(rt.Stats().Opened))
	for _, client := range clients {
		if client.Addr() != netip.MustParseAddr("127.0.0.2") {
			t.Errorf("a message from %s", client)
		}
	}
	if len(clients) != messages-1 {
		t.Errorf("Postfix has %d messages, want %d", len(clients), messages-1)
	}
	if n := strings.Count(said.String(), `"egress source is suspended" source=unplumbed`); n != 1 {
		t.Errorf("%d warnings of a suspended source, want one:\n%s", n, &said)
	}
}

// atOnce suspends a source at its first failure, for longer than tests take.
var atOnce = &delivery.Suspension{Trigger: delivery.Trigger{Immediate: true}, Duration: delivery.Duration(time.Hour)}
