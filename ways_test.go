package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// registrar is a Resolver and an Egress whose answers can be changed, and which counts the questions.
type registrar struct {
	zone
	path  string
	asked atomic.Int32
}

func (r *registrar) Lookup(ctx context.Context, name string, t DNSType) DNSAnswer {
	r.asked.Add(1)
	return r.zone.Lookup(ctx, name, t)
}

func (r *registrar) EgressPool(context.Context, string) (EgressPool, error) {
	return ParseEgressPool([]byte(`{"name": "pool", "entries": [{"name": "one"}, {"name": "two"}]}`))
}

func (r *registrar) EgressSource(_ context.Context, name string) (EgressSource, error) {
	return EgressSource{Name: name}, nil
}

func (r *registrar) EgressPath(context.Context, string, string, string) (EgressPath, error) {
	return ParseEgressPath([]byte(r.path))
}

// planned is the addresses of the plan for a message to example.test, and how many questions it took.
func (r *registrar) planned(t *testing.T, p Protocol) string {
	t.Helper()
	before := r.asked.Load()
	plan, err := p.Plan(t.Context(), messageTo("user@example.test"))
	if err != nil {
		return err.Error()
	}
	var addresses []string
	for _, h := range plan.Hosts {
		if h.Err == nil {
			addresses = append(addresses, h.Address)
		}
	}
	return fmt.Sprintf("%s, %d questions", strings.Join(addresses, " "), r.asked.Load()-before)
}

func lasting(a DNSAnswer, ttl time.Duration) DNSAnswer {
	a.TTL = ttl
	return a
}

// TestAWayServesAsLongAsItHolds: what was found for a queue is taken again, and no longer than the shortest
// of its inputs allows.
func TestAWayServesAsLongAsItHolds(t *testing.T) {
	const none = "192.0.2.1:25, 0 questions"
	expect := func(t *testing.T, r *registrar, p Protocol, want string) {
		t.Helper()
		if got := r.planned(t, p); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	start := func(t *testing.T, path string, ttl ...time.Duration) (*Runtime, *registrar, Protocol) {
		r := &registrar{path: path, zone: zone{
			"example.test MX":      lasting(mx(MXRecord{10, "mx.example.test"}), ttl[0]),
			"mx.example.test A":    lasting(addrs("192.0.2.1"), ttl[1]),
			"mx.example.test AAAA": lasting(DNSAnswer{Result: DNSNoData}, ttl[2]),
		}}
		rt := newRuntime(t)
		rt.Resolver, rt.Egress, rt.MTASTS.Off = r, r, true
		return rt, r, protocolOf(t, rt, `{}`)
	}
	const hour, second = time.Hour, time.Second

	for _, ttl := range [][]time.Duration{{second, hour, hour}, {hour, second, hour}, {hour, hour, second}} {
		t.Run(fmt.Sprint("the shortest TTL counts: ", ttl), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, r, p := start(t, `{}`, ttl...)
				expect(t, r, p, "192.0.2.1:25, 3 questions")
				expect(t, r, p, none)
				time.Sleep(second - time.Nanosecond)
				expect(t, r, p, none)
				r.zone["mx.example.test A"] = lasting(addrs("192.0.2.2"), hour)
				time.Sleep(time.Nanosecond)
				expect(t, r, p, "192.0.2.2:25, 3 questions")
			})
		})
	}

	t.Run("an answer without TTL, a failure and a plan that fails serve once", func(t *testing.T) {
		_, r, p := start(t, `{}`, 0, hour, hour)
		expect(t, r, p, "192.0.2.1:25, 3 questions")
		expect(t, r, p, "192.0.2.1:25, 3 questions")
		_, r, p = start(t, `{}`, hour, hour, hour)
		r.zone["mx.example.test AAAA"] = lasting(serverFailure, hour)
		expect(t, r, p, "192.0.2.1:25, 3 questions")
		expect(t, r, p, "192.0.2.1:25, 3 questions")
		_, r, p = start(t, `{"skip_hosts": ["192.0.2.1"]}`, hour, hour, hour)
		for range 2 {
			before := r.asked.Load()
			expect(t, r, p, errAllSkipped.Error())
			if asked := r.asked.Load() - before; asked != 3 {
				t.Errorf("%d questions", asked)
			}
		}
	})

	t.Run("until the egress path is refreshed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, r, p := start(t, `{"refresh_interval": "2s"}`, hour, hour, hour)
			expect(t, r, p, "192.0.2.1:25, 3 questions")
			r.path = `{"smtp_port": 26}`
			time.Sleep(2*second - time.Nanosecond)
			expect(t, r, p, none)
			time.Sleep(time.Nanosecond)
			expect(t, r, p, "192.0.2.1:26, 3 questions")
		})
	})

	t.Run("until the policy changes", func(t *testing.T) {
		rt, r, p := start(t, `{"refresh_strategy": "Epoch"}`, hour, hour, hour)
		expect(t, r, p, "192.0.2.1:25, 3 questions")
		expect(t, r, p, none)
		r.path = `{"smtp_port": 26}`
		rt.SetPolicy(nil)
		expect(t, r, p, "192.0.2.1:26, 3 questions")
	})
}

// TestAKnownWayIsStillByTurnsAndByChance: sources take turns, and equals are in random order, also where
// nothing is asked for again.
func TestAKnownWayIsStillByTurnsAndByChance(t *testing.T) {
	r := &registrar{path: `{}`, zone: zone{
		"example.test MX": lasting(mx(MXRecord{10, "a.test"}, MXRecord{10, "b.test"}, MXRecord{10, "c.test"}, MXRecord{20, "d.test"}), time.Hour),
	}}
	for i, host := range []string{"a.test", "b.test", "c.test", "d.test"} {
		r.zone[host+" A"] = lasting(addrs(fmt.Sprintf("192.0.2.%d", i+1)), time.Hour)
		r.zone[host+" AAAA"] = lasting(DNSAnswer{Result: DNSNoData}, time.Hour)
	}
	rt := newRuntime(t)
	rt.Resolver, rt.Egress, rt.MTASTS.Off = r, r, true
	var dialed []string
	rt.Dial = func(_ context.Context, to DialRequest) (net.Conn, error) {
		dialed = append(dialed, to.Host)
		return nil, errors.New("refused")
	}
	p := protocolOf(t, rt, `{"egress_pool": "pool"}`)
	seen, sources := map[string]int{}, map[string]int{}
	for range 400 {
		dialed = nil
		result := p.Deliver(t.Context(), messageTo("user@example.test")).Results[0]
		if len(dialed) != 4 || dialed[3] != "d.test" {
			t.Fatalf("%s: dialed %s", result.Response, dialed)
		}
		seen[dialed[0]]++
		sources[result.Session.Source]++
	}
	if len(seen) != 3 || sources["one"] != 200 || sources["two"] != 200 {
		t.Errorf("first came %v, from %v", seen, sources)
	}
	if asked := r.asked.Load(); asked != 2*9 { // once for each source
		t.Errorf("%d questions", asked)
	}
}

// stalled lends what waits until its context ends: the resolver, the egress or the dialer.
type stalled struct {
	loopback
	at string
}

func (s stalled) wait(ctx context.Context, at string) error {
	if s.at != at {
		return nil
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (s stalled) Lookup(ctx context.Context, name string, t DNSType) DNSAnswer {
	return DNSAnswer{Err: s.wait(ctx, "resolver")}
}

func (s stalled) EgressPath(ctx context.Context, routing, source, site string) (EgressPath, error) {
	if err := s.wait(ctx, "egress"); err != nil {
		return EgressPath{}, err
	}
	return s.loopback.EgressPath(ctx, routing, source, site)
}

func (s stalled) Dial(ctx context.Context, _ DialRequest) (net.Conn, error) {
	return nil, s.wait(ctx, "dialer")
}

// TestWhatWaitsEndsWithCloseAndWithItsContext: whatever a delivery waits for before it has a session, it is
// Unsent when it may wait no longer.
func TestWhatWaitsEndsWithCloseAndWithItsContext(t *testing.T) {
	impatient := errors.New("no patience")
	for _, at := range []string{"resolver", "egress", "dialer"} {
		for _, want := range []error{ErrClosed, impatient} {
			t.Run(fmt.Sprint(at, ", ", want), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := stalled{at: at}
					rt := &Runtime{Resolver: s, Egress: s, Dial: s.Dial}
					config := `{"protocol": {"smtp": {"mx_list": ["127.0.0.1"]}}}`
					if at == "resolver" {
						config = `{}`
					}
					c, err := ParseQueueConfig([]byte(config))
					if err != nil {
						t.Fatal(err)
					}
					p, err := rt.Protocol(c)
					if err != nil {
						t.Fatal(err)
					}
					ctx, leave := context.WithCancelCause(t.Context())
					defer leave(nil)
					var outcome Outcome
					var call sync.WaitGroup
					call.Go(func() { outcome = p.Deliver(ctx, messageTo("user@example.test")) })
					synctest.Wait()
					ended, end := context.WithCancel(t.Context())
					end()
					if want == impatient {
						leave(impatient)
						call.Wait()
					}
					rt.Close(ended)
					call.Wait()
					if r := outcome.Results[0]; r.Status != Unsent || !errors.Is(r.Err, want) {
						t.Errorf("%s, %v", r.Status, r.Err)
					}
				})
			})
		}
	}
}
