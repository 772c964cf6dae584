package delivery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// mute is a Limits whose store does not answer.
type mute struct{ pass, hold bool }

func (m mute) Pass(ctx context.Context, _ string, _ Rate) (time.Duration, error) {
	if m.pass {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, nil
}

func (m mute) Hold(ctx context.Context, _ string, _ Limit) (func(), error) {
	if m.hold {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return func() {}, nil
}

// TestTheCallersEndAtTheStore: who gives up while the store is asked has tried nothing, and it says nothing of
// the others.
func TestTheCallersEndAtTheStore(t *testing.T) {
	for _, limits := range []mute{{pass: true}, {hold: true}} {
		t.Run(fmt.Sprintf("%+v", limits), func(t *testing.T) {
			virtual(t, `"max_message_rate": "100/s", `, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
				rt.Limits = limits
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				r := p.Deliver(ctx, messageTo("a@x.test")).Results[0]
				if r.Status != Unsent || r.Scope != ScopeMessage || r.Err != context.DeadlineExceeded {
					t.Errorf("%s of the %s: %v", r.Status, r.Scope, r.Err)
				}
			})
		})
	}
}

// rationed is a Limits whose store lets nothing pass for a while.
type rationed struct {
	mute
	until time.Time
}

func (r rationed) Pass(context.Context, string, Rate) (time.Duration, error) {
	return max(0, time.Until(r.until)), nil
}

// TestALongWaitIsNotKept: what the store says of one call is said to that call. When the store thinks otherwise,
// which may be long before, the ready name opens connections again.
func TestALongWaitIsNotKept(t *testing.T) {
	for _, wait := range []time.Duration{20 * time.Hour, math.MaxInt64} {
		virtual(t, `"max_connection_rate": "1/d,max_burst=5", `, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
			rt.Limits = rationed{until: time.Now().Add(wait)}
			if r := atOnce(p, 1)[0]; r.Status != Unsent || r.RetryAfter != wait && wait < math.MaxInt64 {
				t.Errorf("%s %v, %v", r.Status, r.Err, r.RetryAfter)
			}
			rt.Limits = mute{}
			time.Sleep(time.Minute)
			if r := atOnce(p, 1)[0]; r.Status != Delivered {
				t.Errorf("a minute later: %s %v", r.Status, r.Err)
			}
		})
	}
}

// TestCloseBeforeASessionIsOpen: what keeps a session from being opened may do so for system_shutdown_timeout, and
// nothing was tried then.
func TestCloseBeforeASessionIsOpen(t *testing.T) {
	const path = `"system_shutdown_timeout": "20s", "max_message_rate": "100/s", "connect_timeout": "10min", "banner_timeout": "10min", `
	for at, stall := range map[string]func(rt *Runtime){
		"pass": func(rt *Runtime) { rt.Limits = mute{pass: true} },
		"hold": func(rt *Runtime) { rt.Limits = mute{hold: true} },
		"dial": func(rt *Runtime) {
			rt.Dial = func(ctx context.Context, _ DialRequest) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		},
		"banner": func(rt *Runtime) {
			rt.Dial = func(context.Context, DialRequest) (net.Conn, error) {
				return smtptest.Link{}.Dial(func(c net.Conn) { go io.Copy(io.Discard, c) }), nil
			}
		},
	} {
		t.Run(at, func(t *testing.T) {
			virtual(t, path, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
				stall(rt)
				result := make(chan Result, 1)
				go func() { result <- p.Deliver(context.Background(), messageTo("a@x.test")).Results[0] }()
				time.Sleep(time.Minute)
				start := time.Now()
				if err := rt.Close(context.Background()); err != nil {
					t.Error(err)
				}
				r := <-result
				if took := time.Since(start); took != 20*time.Second || r.Status != Unsent || r.Err != ErrClosed {
					t.Errorf("Close took %v; %s %s %v", took, r.Status, r.Response, r.Err)
				}
			})
		})
	}
}

// fragileHost is a host's part that panics at one point.
type fragileHost struct {
	LocalLimits
	at string
}

func (f *fragileHost) panicAt(point string) {
	if point == f.at {
		panic(point)
	}
}

func (f *fragileHost) Pass(ctx context.Context, name string, rate Rate) (time.Duration, error) {
	f.panicAt("pass")
	return f.LocalLimits.Pass(ctx, name, rate)
}

func (f *fragileHost) Hold(ctx context.Context, name string, limit Limit) (func(), error) {
	if strings.HasPrefix(name, "connections:") { // the second
		f.panicAt("hold")
	}
	return f.LocalLimits.Hold(ctx, name, limit)
}

// TestPanicsOfTheHost: what a host recovers from leaves no permission and no share of a limit behind, or Close
// would wait for it.
func TestPanicsOfTheHost(t *testing.T) {
	const path = `"max_message_rate": "100/s", "additional_connection_limits": {"all": 4}, `
	play := func(t *testing.T, rt *Runtime, p Protocol, at string) {
		host := &fragileHost{at: at}
		rt.Limits = host
		rt.Trace = &Trace{
			Dialing: func(string, DialRequest) { host.panicAt("dialing") },
			Opened:  func(*Session) { host.panicAt("opened") },
			Reused:  func(*Session) { host.panicAt("reused") },
		}
		func() {
			defer func() {
				if recover() != at {
					t.Error("no panic")
				}
			}()
			for range 2 {
				p.Deliver(t.Context(), messageTo("a@x.test"))
			}
		}()
		for _, n := range rt.Stats().Ready {
			if n.Opening+n.Busy > 0 {
				t.Errorf("still lent: %+v", n)
			}
		}
		if err := rt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		host.mu.Lock()
		defer host.mu.Unlock()
		if len(host.held) > 0 {
			t.Errorf("still held: %v", host.held)
		}
	}
	for _, at := range []string{"pass", "hold", "dialing", "opened", "reused"} {
		t.Run("SMTP, "+at, func(t *testing.T) {
			virtual(t, path, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) { play(t, rt, p, at) })
		})
	}
	for _, at := range []string{"pass", "hold", "opened", "reused"} {
		t.Run("Lua, "+at, func(t *testing.T) {
			rt := newRuntime(t)
			rt.Egress = loopback(path)
			policy, err := rt.ParsePolicy(t.Context(), "policy.lua", []byte(`kumo.on('make', function()
				return { send = function() return 'ok' end }
			end)`))
			if err != nil {
				t.Fatal(err)
			}
			rt.SetPolicy(policy)
			play(t, rt, protocolOf(t, rt, `{"protocol": {"custom_lua": {"constructor": "make"}}}`), at)
		})
	}
}

// TestWhatWasTriedIsNotUnsent: where nothing more can be done for a recipient that has been refused, that
// refusal is its result.
func TestWhatWasTriedIsNotUnsent(t *testing.T) {
	for _, test := range []struct {
		name    string
		first   func(c net.Conn, r *bufio.Reader)
		results []int
	}{
		{"goodbye", func(c net.Conn, r *bufio.Reader) { greet(c, r); answer(c, r, "421 4.3.2 not now") }, []int{421, 421}},
		{"too many", func(c net.Conn, r *bufio.Reader) {
			greet(c, r)
			answer(c, r, "250 ok", "250 ok", "452 4.5.3 too many", "354 go")
			for line := ""; line != ".\r\n"; line, _ = r.ReadString('\n') {
			}
			io.WriteString(c, "250 ok\r\n421 bye\r\n")
		}, []int{250, 452}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &stage{T: t, rt: newRuntime(t), path: `"try_next_host_on_transport_error": true, `}
			s.rt.Egress = s
			ctx, cancel := context.WithCancel(t.Context())
			giveUp := func(c net.Conn, r *bufio.Reader) { cancel(); r.ReadByte() }
			p := s.to(peer(t, test.first), peer(t, giveUp))
			for i, r := range p.Deliver(ctx, messageTo("a@x.test", "b@x.test")).Results {
				if r.Status == Unsent || r.Response.Code != test.results[i] || r.Session.Peer != "host-1.test" {
					t.Errorf("%s: %s %s %v", r.Recipient, r.Status, r.Response, r.Err)
				}
			}
		})
	}
}

// TestAMessageCountsOnce: a reused connection that turns out dead costs a new connection, and no second place in
// the rate.
func TestAMessageCountsOnce(t *testing.T) {
	addr := peer(t,
		func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); r.ReadString('\n') },
		func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); farewell(c, r) })
	rt := newRuntime(t)
	rt.Egress = loopback(`"max_message_rate": "2/h", `)
	p := smtpTo(t, rt, addr)
	for i, want := range []Status{Delivered, Delivered, Unsent} {
		if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != want {
			t.Fatalf("message %d: %s %s %v", i, r.Status, r.Response, r.Err)
		}
	}
}
