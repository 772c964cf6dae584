package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// virtual plays a story in virtual time: a runtime whose connections are in memory, to a sink, over a link.
func virtual(t *testing.T, path string, link smtptest.Link, sink *smtptest.Sink, play func(t *testing.T, rt *Runtime, p Protocol)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rt := newRuntime(t)
		rt.Logger = slog.New(slog.DiscardHandler)
		rt.Egress = loopback(path)
		rt.Dial = func(context.Context, DialRequest) (net.Conn, error) { return link.Dial(sink.ServeConn), nil }
		defer sink.Close()
		play(t, rt, smtpTo(t, rt, "127.0.0.1"))
		if err := rt.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// atOnce calls Deliver so many times at once, and returns what became of each message.
func atOnce(p Protocol, n int) []Result {
	results := make([]Result, n)
	var callers sync.WaitGroup
	for i := range results {
		callers.Go(func() { results[i] = p.Deliver(context.Background(), messageTo("a@x.test")).Results[0] })
	}
	callers.Wait()
	return results
}

func statuses(results []Result) map[Status]int {
	count := map[Status]int{}
	for _, r := range results {
		count[r.Status]++
	}
	return count
}

// TestMessageRate: what a rate lets pass passes, who would have to wait too long is told when to come again.
func TestMessageRate(t *testing.T) {
	virtual(t, `"max_message_rate": "10/s,max_burst=1", "idle_timeout": "5s", `, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
		start := time.Now()
		results := atOnce(p, 200)
		count := statuses(results)
		if took := time.Since(start); count[Delivered] < 50 || count[Delivered] > 51 || count[Unsent] != 200-count[Delivered] || took < 4900*time.Millisecond || took > 5100*time.Millisecond {
			t.Errorf("%v in %v, want 50 or 51 delivered in 5 s", count, took)
		}
		for _, r := range results {
			throttled, ok := errors.AsType[*ThrottledError](r.Err)
			if r.Status == Unsent && (!ok || throttled.Option != "max_message_rate" || r.Scope != ScopeReadyName || r.RetryAfter < 5*time.Second || r.RetryAfter != throttled.RetryAfter) {
				t.Fatalf("sent away with %v, after %v, scope %v", r.Err, r.RetryAfter, r.Scope)
			}
		}
		if n := rt.Stats().Ready[0]; n.Throttled != uint64(count[Unsent]) || n.Unsent != n.Throttled || n.Delivered != uint64(count[Delivered]) {
			t.Errorf("counted %+v", n)
		}
	})
}

// TestRatesOverAnHour: a host that takes its messages back when it is told keeps the rate, within 2 %.
func TestRatesOverAnHour(t *testing.T) {
	for _, test := range []struct {
		path string
		want int
	}{
		{`"max_message_rate": "20/min,max_burst=1", `, 20 * 60},
		{`"additional_message_rate_throttles": {"provider": "600/h,max_burst=1"}, "max_message_rate": "1000/min", `, 600},
		{`"max_connection_rate": "300/h,max_burst=1", "max_deliveries_per_connection": 1, `, 300},
	} {
		t.Run(test.path, func(t *testing.T) {
			sink := &smtptest.Sink{CountOnly: true}
			virtual(t, test.path, smtptest.Link{}, sink, func(t *testing.T, rt *Runtime, p Protocol) {
				deadline := time.Now().Add(time.Hour)
				var callers sync.WaitGroup
				for range 8 {
					callers.Go(func() {
						for time.Now().Before(deadline) {
							if r := p.Deliver(context.Background(), messageTo("a@x.test")).Results[0]; r.Status == Unsent {
								time.Sleep(max(r.RetryAfter, time.Millisecond))
							}
						}
					})
				}
				callers.Wait()
				got, _, _ := sink.Counts()
				if low, high := test.want*98/100, test.want*102/100+8; int(got) < low || int(got) > high {
					t.Errorf("%d messages in an hour, want %d within 2 %%", got, test.want)
				}
			})
		})
	}
}

// TestConnectionRate: who finds no connection waits for one that is allowed soon, or comes again.
func TestConnectionRate(t *testing.T) {
	virtual(t, `"max_connection_rate": "1/h", "max_deliveries_per_connection": 1, `, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
		if r := atOnce(p, 1)[0]; r.Status != Delivered {
			t.Fatalf("the first: %s %v", r.Status, r.Err)
		}
		r := atOnce(p, 1)[0]
		throttled, ok := errors.AsType[*ThrottledError](r.Err)
		if r.Status != Unsent || !ok || throttled.Option != "max_connection_rate" || r.RetryAfter < 59*time.Minute {
			t.Errorf("the second: %s %v", r.Status, r.Err)
		}
	})
}

// TestAdditionalLimits: ready names share a limit by its name.
func TestAdditionalLimits(t *testing.T) {
	sink := &smtptest.Sink{Delay: time.Second, Hide: []string{"PIPELINING", "CHUNKING"}}
	virtual(t, `"additional_connection_limits": {"provider": 3}, `, smtptest.Link{}, sink, func(t *testing.T, rt *Runtime, p Protocol) {
		other := smtpTo(t, rt, "127.0.0.2")
		var both sync.WaitGroup
		for _, p := range []Protocol{p, other} {
			both.Go(func() {
				if count := statuses(atOnce(p, 9)); count[Delivered] != 9 {
					t.Errorf("%v", count)
				}
			})
		}
		both.Wait()
		if _, most := sink.Sessions(); most != 3 {
			t.Errorf("%d sessions at once, want 3", most)
		}
	})
}

// TestLimitsThatProcessesShare: two runtimes with one Limits keep to it together.
func TestLimitsThatProcessesShare(t *testing.T) {
	const path = `"connection_limit": 3, "additional_connection_limits": {"all": 4, "here": "local:1"}, "max_message_rate": "1000/s", `
	sink := &smtptest.Sink{Delay: time.Second, Hide: []string{"PIPELINING", "CHUNKING"}}
	virtual(t, path, smtptest.Link{}, sink, func(t *testing.T, rt *Runtime, p Protocol) {
		another := newRuntime(t)
		another.Egress, another.Dial = rt.Egress, rt.Dial
		shared := &LocalLimits{}
		rt.Limits, another.Limits = shared, shared
		q := smtpTo(t, another, "127.0.0.1")
		var both sync.WaitGroup
		for _, p := range []Protocol{p, q} {
			both.Go(func() {
				for _, r := range atOnce(p, 6) {
					if r.Status != Delivered {
						t.Errorf("%s %v", r.Status, r.Err)
					}
				}
			})
		}
		both.Wait()
		if _, most := sink.Sessions(); most != 2 {
			t.Errorf("%d sessions at once, want one for each process", most)
		}
		another.Close(context.Background())
		rt.Close(context.Background())
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if len(shared.held) != 0 {
			t.Errorf("still held: %v", shared.held)
		}
	})
}

// greedy is a Limits in whose store another process has everything.
type greedy struct {
	pass time.Duration
	err  error
}

func (g greedy) Pass(context.Context, string, Rate) (time.Duration, error) { return g.pass, g.err }
func (g greedy) Hold(context.Context, string, Limit) (func(), error)       { return nil, g.err }

// TestLimitsThatOthersHold: a message is sent away where others have all the room, and where the store fails.
func TestLimitsThatOthersHold(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits greedy
		path   string
		status Status
		option string
	}{
		{"no connection", greedy{}, `"idle_timeout": "500ms", `, Unsent, "max_connection_rate"},
		{"no connection for long", greedy{}, "", Unsent, "max_connection_rate"},
		{"no message", greedy{pass: time.Minute}, `"max_message_rate": "1/s", `, Unsent, "max_message_rate"},
		{"no store", greedy{err: errors.New("connection refused")}, "", Transient, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtual(t, test.path, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
				rt.Limits = test.limits
				r := atOnce(p, 1)[0]
				throttled, ok := errors.AsType[*ThrottledError](r.Err)
				if r.Status != test.status || ok != (test.option != "") || ok && throttled.Option != test.option || r.Scope != ScopeReadyName {
					t.Errorf("%s %v %v", r.Status, r.Response, r.Err)
				}
			})
		})
	}
}

// TestWhereCallsGo: a slow peer gets many connections, a far one few and deep pipelines.
func TestWhereCallsGo(t *testing.T) {
	for _, test := range []struct {
		name        string
		link        smtptest.Link
		delay       time.Duration
		least, most int64
	}{
		{"slow", smtptest.Link{Latency: time.Millisecond}, 500 * time.Millisecond, 32, 32},
		{"far", smtptest.Link{Latency: 50 * time.Millisecond}, 0, 1, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			sink := &smtptest.Sink{CountOnly: true, Delay: test.delay}
			virtual(t, "", test.link, sink, func(t *testing.T, rt *Runtime, p Protocol) {
				atOnce(p, 1) // so that the peer is known
				for range 4 {
					if count := statuses(atOnce(p, 60)); count[Delivered] != 60 {
						t.Fatalf("%v", count)
					}
				}
				if _, most := sink.Sessions(); most < test.least || most > test.most {
					t.Errorf("%d connections, want %d to %d", most, test.least, test.most)
				}
			})
		})
	}
}

// TestABurst: ten thousand calls at once reach the limit, and no more.
func TestABurst(t *testing.T) {
	sink := &smtptest.Sink{CountOnly: true}
	virtual(t, `"max_ready": 10000, "connection_limit": 20, `, smtptest.Link{Latency: 10 * time.Millisecond}, sink, func(t *testing.T, rt *Runtime, p Protocol) {
		if count := statuses(atOnce(p, 10_000)); count[Delivered] != 10_000 {
			t.Errorf("%v", count)
		}
		if total, most := sink.Sessions(); most != 20 || total < 20 {
			t.Errorf("%d connections at once of %d in all, want 20", most, total)
		}
	})
}

// TestTryNextHost: what the connection failed goes to the next host within the call, and what the first may
// have does not.
func TestTryNextHost(t *testing.T) {
	hangUp := func(c net.Conn, r *bufio.Reader) { greet(c, r); r.ReadString('\n') }
	goodbye := func(c net.Conn, r *bufio.Reader) { greet(c, r); answer(c, r, "421 4.3.2 not now") }
	afterDot := func(c net.Conn, r *bufio.Reader) {
		greet(c, r)
		answer(c, r, "250 ok", "250 ok", "354 go")
		for line := ""; line != ".\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name   string
		on     bool
		first  func(net.Conn, *bufio.Reader)
		status Status
		maybe  bool
	}{
		{"off", false, goodbye, Transient, false},
		{"421", true, goodbye, Delivered, false},
		{"hangs up", true, hangUp, Delivered, false},
		{"hangs up after the dot", true, afterDot, Transient, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &stage{T: t, rt: newRuntime(t), path: fmt.Sprintf(`"try_next_host_on_transport_error": %v, `, test.on)}
			s.rt.Egress = s
			sink, addr := s.sink(&smtptest.Sink{})
			r := s.send(s.to(peer(t, test.first), addr), "user")[0]
			if r.Status != test.status || r.MaybeDelivered != test.maybe || (len(sink.Messages()) == 1) != (test.status == Delivered) {
				t.Errorf("%s %s, maybe delivered %v, %d at the next host", r.Status, r.Response, r.MaybeDelivered, len(sink.Messages()))
			}
		})
	}
	t.Run("nowhere to go", func(t *testing.T) {
		s := &stage{T: t, rt: newRuntime(t), path: `"try_next_host_on_transport_error": true, `}
		s.rt.Egress = s
		if r := s.send(s.to(peer(t, goodbye), peer(t, goodbye)), "user")[0]; r.Status != Transient || r.Response.Code != 421 {
			t.Errorf("%s %s", r.Status, r.Response)
		}
	})
}

// TestFailuresInARow: when no host could be reached too often, those who wait are told so too.
func TestFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRuntime(t)
		rt.Egress = loopback(`"connection_limit": 1, "consecutive_connection_failures_before_delay": 2, `)
		refuse := make(chan struct{})
		rt.Dial = func(context.Context, DialRequest) (net.Conn, error) {
			<-refuse
			return nil, errors.New("refused")
		}
		p := smtpTo(t, rt, "127.0.0.1")
		results := make(chan Result, 10)
		for range cap(results) {
			go func() { results <- p.Deliver(context.Background(), messageTo("a@x.test")).Results[0] }()
		}
		synctest.Wait()
		close(refuse)
		codes := map[string]int{}
		for range cap(results) {
			r := <-results
			if r.Status != Transient {
				t.Errorf("%s %s", r.Status, r.Response)
			}
			codes[fmt.Sprint(r.Response.Code, " ", r.Response.Enhanced, " ", r.Scope)]++
		}
		if codes["400  message"] != 2 || codes["400  ready name"] != 1 || codes["451 4.4.1 ready name"] != 7 {
			t.Errorf("%v", codes)
		}
	})
}

// TestRewrite: a policy gives replies another code, but for 250 and for failures that are no reply.
func TestRewrite(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t)}
	s.rt.Egress = s
	s.rt.Logger = slog.New(slog.DiscardHandler)
	policy, err := s.rt.ParsePolicy(t.Context(), "policy.lua", []byte(`
		kumo.on('smtp_client_rewrite_delivery_status', function(response, domain, tenant, campaign, routing_domain)
			if response == '450 4.2.0 tempfail1 is not available now' and domain == 'x.test' and tenant == nil and routing_domain == 'x.test' then
				return 550
			end
			if response:find '^550' then return 450 end
			if response:find '^500' then error 'oops' end
			if response:find '^501' then return 'soon' end
			if response:find '^250' then return 550 end
		end)`))
	if err != nil {
		t.Fatal(err)
	}
	s.rt.SetPolicy(policy)
	_, addr := s.sink(&smtptest.Sink{})
	results := s.send(s.to(addr), "user", "tempfail1", "permfail1", "tempfail2", "500-error", "501-type")
	for i, want := range []struct {
		status Status
		reply  string
	}{
		{Delivered, "250 2.0.0 taken"},
		{Permanent, "550 4.2.0 tempfail1 is not available now (delivery: status was rewritten from 450 -> 550)"},
		{Transient, "450 5.1.1 permfail1 is not known (delivery: status was rewritten from 550 -> 450)"},
		{Transient, "450 4.2.0 tempfail2 is not available now"},
		{Permanent, "500 as asked"},
		{Permanent, "501 as asked"},
	} {
		if r := results[i]; r.Status != want.status || r.Response.String() != want.reply {
			t.Errorf("%s: %s %s, want %s %s", r.Recipient, r.Status, r.Response, want.status, want.reply)
		}
	}
}

// TestRewriteOfWhatWasTaken: what the peer has is delivered, or it would be sent again.
func TestRewriteOfWhatWasTaken(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t)}
	s.rt.Egress = s
	policy, err := s.rt.ParsePolicy(t.Context(), "policy.lua", []byte(`kumo.on('smtp_client_rewrite_delivery_status', function() return 451 end)`))
	if err != nil {
		t.Fatal(err)
	}
	s.rt.SetPolicy(policy)
	addr := peer(t, func(c net.Conn, r *bufio.Reader) {
		greet(c, r)
		answer(c, r, "250 ok", "250 ok", "354 go")
		for line := ""; line != ".\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		io.WriteString(c, "252 taken\r\n")
		farewell(c, r)
	})
	s.want(s.send(s.to(addr), "user")[0], Delivered, 252, ".")
}

// TestConfigRefresh: new messages go by the new path, and what was opened by the old one ends.
func TestConfigRefresh(t *testing.T) {
	var name atomic.Value
	name.Store("old.test")
	synctest.Test(t, func(t *testing.T) {
		var hellos []string
		closed := map[string]string{}
		var mu sync.Mutex
		rt := newRuntime(t)
		rt.Egress = pathBy(func() string {
			return fmt.Sprintf(`"ehlo_domain": %q, "refresh_interval": "1m", "idle_timeout": "1h", `, name.Load())
		})
		sink := &smtptest.Sink{}
		defer sink.Close()
		rt.Dial = func(context.Context, DialRequest) (net.Conn, error) { return smtptest.Link{}.Dial(sink.ServeConn), nil }
		rt.Trace = &Trace{
			Sent: func(s *Session, line string) {
				mu.Lock()
				defer mu.Unlock()
				if strings.HasPrefix(line, "EHLO") {
					hellos = append(hellos, line)
				}
			},
			Closed: func(s *Session, why string) {
				mu.Lock()
				defer mu.Unlock()
				closed[s.ID] = why
			},
		}
		p := smtpTo(t, rt, "127.0.0.1")
		send := func() string { return p.Deliver(t.Context(), messageTo("a@x.test")).Results[0].Session.ID }
		first := send()
		if again := send(); again != first {
			t.Error("the connection was not kept")
		}
		time.Sleep(2 * time.Minute)
		if again := send(); again != first {
			t.Error("a config that has not changed does not keep its connection")
		}
		name.Store("new.test")
		time.Sleep(2 * time.Minute)
		second := send()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if second == first || len(hellos) != 2 || hellos[1] != "EHLO new.test" || closed[first] != "drained" {
			t.Errorf("sessions %s, %s; %q; closed %v", first, second, hellos, closed)
		}
	})
}

// pathBy is an Egress whose path may change.
type pathBy func() string

func (pathBy) EgressPool(context.Context, string) (EgressPool, error) {
	return EgressPool{}, errors.New("no pool")
}
func (pathBy) EgressSource(context.Context, string) (EgressSource, error) {
	return EgressSource{}, errors.New("no source")
}
func (p pathBy) EgressPath(context.Context, string, string, string) (EgressPath, error) {
	return ParseEgressPath([]byte(`{` + p() + `"prohibited_hosts": []}`))
}

// TestShutdownTimeout: Close lets what is under way end, but no longer than its path says.
func TestShutdownTimeout(t *testing.T) {
	for _, test := range []struct {
		delay, took time.Duration
		status      Status
	}{
		{10 * time.Second, 10 * time.Second, Delivered},
		{time.Hour, 20 * time.Second, Transient},
	} {
		virtual(t, `"system_shutdown_timeout": "20s", `, smtptest.Link{}, &smtptest.Sink{Delay: test.delay}, func(t *testing.T, rt *Runtime, p Protocol) {
			result := make(chan Result, 1)
			go func() { result <- p.Deliver(context.Background(), messageTo("a@x.test")).Results[0] }()
			synctest.Wait()
			start := time.Now()
			if err := rt.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
			r := <-result
			if took := time.Since(start); took != test.took || r.Status != test.status || r.MaybeDelivered != (test.status == Transient) {
				t.Errorf("a peer that needs %v: %s %v after %v", test.delay, r.Status, r.Err, took)
			}
		})
	}
}

// TestTrace: what the hooks are told of two messages over one connection.
func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var told []string
	tell := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf(format, args...))
	}
	virtual(t, `"idle_timeout": "5s", `, smtptest.Link{Latency: time.Second}, &smtptest.Sink{Hide: []string{"CHUNKING"}}, func(t *testing.T, rt *Runtime, p Protocol) {
		rt.Trace = &Trace{
			Resolved:  func(q QueueName, plan Plan, err error) { tell("resolved %s: %s %v", q, plan.Hosts[0].Address, err) },
			Throttled: func(ready string, wait time.Duration, err error) { tell("throttled %v %v", wait, err) },
			Dialing:   func(ready string, to DialRequest) { tell("dialing %s", to.Address) },
			Dialed:    func(ready string, to DialRequest, err error) { tell("dialed %v", err) },
			Stage: func(s *Session, stage string, took time.Duration, err error) {
				tell("%s took %v: %v", stage, took, err)
			},
			Opened: func(s *Session) { tell("opened %s", s.Peer) },
			Reused: func(s *Session) { tell("reused %s", s.Peer) },
			Reply:  func(s *Session, r Response, took time.Duration) { tell("%s: %s", r.Command, r) },
			Transaction: func(s *Session, tx TransactionTrace) {
				tell("transaction: %d of %d, %d bytes in %v, %v", tx.Accepted, tx.Recipients, tx.Bytes, tx.Took, tx.Err)
			},
			Closed: func(s *Session, why string) { tell("closed %s", why) },
		}
		for range 2 {
			p.Deliver(t.Context(), messageTo("a@x.test", "permfail@x.test"))
		}
		time.Sleep(10 * time.Second)
	})
	const want = `resolved x.test: 127.0.0.1:25 <nil>
dialing 127.0.0.1:25
dialed <nil>
banner took 2s: <nil>
EHLO took 2s: <nil>
opened peer.test
MAIL: 250 2.1.0 ok
RCPT: 250 2.1.5 ok
RCPT: 550 5.1.1 permfail is not known
DATA: 354 go ahead
.: 250 2.0.0 taken
transaction: 1 of 2, 25 bytes in 4s, <nil>
reused peer.test
MAIL: 250 2.1.0 ok
RCPT: 250 2.1.5 ok
RCPT: 550 5.1.1 permfail is not known
DATA: 354 go ahead
.: 250 2.0.0 taken
transaction: 1 of 2, 25 bytes in 4s, <nil>
closed idle`
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
}

// TestPlanCountsNothing: to ask for a plan uses up no rate.
func TestPlanCountsNothing(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t), path: `"source_selection_rate": "1/day", "max_message_rate": "1/day", `}
	s.rt.Egress = s
	_, addr := s.sink(&smtptest.Sink{})
	p := s.to(addr)
	for range 3 {
		if _, err := p.Plan(t.Context(), messageTo("a@x.test")); err != nil {
			t.Error(err)
		}
	}
	s.wantDelivered(s.send(p, "user")...)
	if _, err := p.Plan(t.Context(), messageTo("a@x.test")); err == nil || !strings.Contains(err.Error(), "eligible") {
		t.Errorf("a plan from a source whose rate is used up: %v", err)
	}
}

// TestPlanTakesNoTurn: the source that a plan names is the one that the next message goes from.
func TestPlanTakesNoTurn(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t), pool: []string{"a", "b"}}
	s.rt.Egress = s
	_, addr := s.sink(&smtptest.Sink{})
	p := s.over("pool", addr)
	from := map[string]int{}
	for range 6 {
		plan, err := p.Plan(t.Context(), messageTo("a@x.test"))
		if err != nil {
			t.Fatal(err)
		}
		r := s.send(p, "user")[0]
		if from[r.Session.Source]++; plan.ReadyName != r.Session.ReadyName {
			t.Errorf("planned %s, sent by %s", plan.ReadyName, r.Session.ReadyName)
		}
	}
	if from["a"] != 3 || from["b"] != 3 {
		t.Errorf("sent from %v", from)
	}
}

// TestAFullSourceIsPassedOver: a message goes by the other source of its pool rather than nowhere.
func TestAFullSourceIsPassedOver(t *testing.T) {
	stall := make(chan struct{})
	s := &stage{T: t, rt: newRuntime(t), pool: []string{"full", "other"},
		paths: map[string]string{"full": `"connection_limit": 1, "max_ready": 1, "max_pipelined_messages": 1, `, "other": ""}}
	s.rt.Egress = s
	_, addr := s.sink(&smtptest.Sink{})
	var dialer net.Dialer
	s.rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
		select {
		case <-stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return dialer.DialContext(ctx, to.Network, to.Address)
	}
	p := s.over("pool", addr)
	results := make(chan Result, 20)
	for range cap(results) {
		go func() { results <- p.Deliver(context.Background(), messageTo("a@x.test")).Results[0] }()
	}
	for {
		var at int
		for _, n := range s.rt.Stats().Ready {
			at += n.Busy + n.Opening + n.Waiting
		}
		if at == cap(results) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(stall)
	from := map[string]int{}
	for range cap(results) {
		r := <-results
		s.wantDelivered(r)
		from[r.Session.Source]++
	}
	if from["full"] != 2 || from["other"] != 18 {
		t.Errorf("sent from %v, want 2 from full and the rest from other", from)
	}
}

// TestNoSourceAddressToBlame: a machine without an address of the destination's family says EADDRNOTAVAIL to connect, too: a container
// without ::1 does. A source that binds no address has no part in that, and is not suspended for it.
func TestNoSourceAddressToBlame(t *testing.T) {
	rt := Runtime{
		Egress: onlySource{EgressSource{Name: "any", SuspendWhenUnplumbed: &Suspension{Trigger: Trigger{Immediate: true}, Duration: 1e12}}},
		Dial: func(context.Context, DialRequest) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
		},
	}
	defer rt.Close(context.Background())
	p, err := rt.Protocol(QueueConfig{EgressPool: "pool",
		Protocol: ProtocolConfig{SMTP: &SMTP{MXList: []MXEntry{{Name: "mx.test", Addr: "192.0.2.1:25"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := p.Deliver(t.Context(), &Message{From: "a@x.test", Recipients: []Recipient{{Address: "b@x.test"}},
			Body: Bytes("Subject: x\r\n\r\n")}).Results[0]
		if r.Status != Transient || r.Response.Code != 400 || strings.Contains(r.Response.Text, "source_address") {
			t.Errorf("%s %s, want 400 and nothing about a source_address", r.Status, r.Response)
		}
	}
}

// onlySource is an Egress with one source.
type onlySource struct{ source EgressSource }

func (o onlySource) EgressPool(_ context.Context, name string) (EgressPool, error) {
	return EgressPool{Name: name, Entries: []PoolEntry{{Name: o.source.Name}}}, nil
}

func (o onlySource) EgressSource(context.Context, string) (EgressSource, error) {
	return o.source, nil
}

func (o onlySource) EgressPath(context.Context, string, string, string) (EgressPath, error) {
	return EgressPath{}, nil
}

// TestAPeerThatTakesFewMessages: calls do not crowd at a session that has no message left for them (RFC 9422).
func TestAPeerThatTakesFewMessages(t *testing.T) {
	for _, most := range []int{1, 2, 5} {
		sink := &smtptest.Sink{Offer: []string{fmt.Sprintf("LIMITS MAILMAX=%d", most)}, CountOnly: true}
		virtual(t, `"connection_limit": 2, `, smtptest.Link{Latency: 10 * time.Millisecond}, sink, func(t *testing.T, rt *Runtime, p Protocol) {
			if count := statuses(atOnce(p, 400)); count[Delivered] != 400 {
				t.Errorf("%v", count)
			}
			if n := rt.Stats().Ready[0]; n.Opened+n.Reused > 500 {
				t.Errorf("400 messages took a session %d times", n.Opened+n.Reused)
			}
		})
	}
}

// TestTheCallersEndBlamesNobody: a source is not suspended because a caller gave up in the middle of the dialogue
// with its proxy.
func TestTheCallersEndBlamesNobody(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t)}
	s.rt.Egress = s
	ctx, cancel := context.WithCancel(t.Context())
	proxy := peer(t, func(c net.Conn, r *bufio.Reader) { r.ReadByte(); cancel(); io.Copy(io.Discard, r) })
	s.pool, s.sources = []string{"source"}, map[string]string{"source": fmt.Sprintf(
		`"socks5_proxy_server": %q, "suspend_when_proxy_unhealthy": {"trigger": "Immediate", "duration": "1h"}, `, proxy)}
	r := s.over("pool", s.nobody()).Deliver(ctx, messageTo("a@x.test")).Results[0]
	if _, suspended := s.rt.state.health.Suspended("source"); r.Status != Unsent || suspended {
		t.Errorf("%s %v, suspended: %v", r.Status, r.Err, suspended)
	}
}

func TestIsUnplumbed(t *testing.T) {
	for call, want := range map[string]bool{"bind": true, "connect": false} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError(call, syscall.EADDRNOTAVAIL)}
		if isUnplumbed(err) != want || isUnplumbed(syscall.ECONNREFUSED) {
			t.Errorf("%v is one: %v", err, !want)
		}
	}
}

// TestTheSourceOfASession: a result names its source also where no session was opened, and a proxy only where the
// connection went through it.
func TestTheSourceOfASession(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t), pool: []string{"source"}, sources: map[string]string{"source": `"socks5_proxy_server": "127.0.0.1:1", `}}
	s.rt.Egress = s
	socket := t.TempDir() + "/lmtp.sock"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skip(err)
	}
	sink := &smtptest.Sink{}
	sink.Serve(l)
	t.Cleanup(func() { sink.Close() })
	local := protocolOf(t, s.rt, fmt.Sprintf(`{"egress_pool": "pool", "protocol": {"smtp": {"mx_list": [%q]}}}`, socket))
	r := s.send(local, "user")[0]
	s.wantDelivered(r)
	if r.Session.Source != "source" || r.Session.Proxy != "" || r.Session.RemoteAddr != socket {
		t.Errorf("%+v", r.Session)
	}
	if r := s.send(s.over("pool", "127.0.0.1:2"), "user")[0]; r.Session.Source != "source" || r.Session.ID != "" {
		t.Errorf("%+v", r.Session)
	}
}

// TestASourceThatIsNotDefined: the other sources of its pool send its share.
func TestASourceThatIsNotDefined(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t), pool: []string{"good", "bad"}, sources: map[string]string{"bad": `"source_address": "none", `}}
	s.rt.Egress = s
	_, addr := s.sink(&smtptest.Sink{})
	p := s.over("pool", addr)
	for range 4 {
		s.wantDelivered(s.send(p, "user")...)
	}
	s.pool = []string{"bad"}
	r := s.send(s.over("another", addr), "user")[0]
	s.want(r, Transient, 451, "")
	if r.Scope != ScopeMessage || !strings.Contains(r.Response.Text, "source_address") {
		t.Errorf("scope %s: %s", r.Scope, r.Response)
	}
}

// TestASessionRemembersEachHostOnce: one that goes on with the same host for ever does not grow.
func TestASessionRemembersEachHostOnce(t *testing.T) {
	sink := &smtptest.Sink{}
	addr, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	rt := newRuntime(t)
	rt.Egress = loopback(`"reconnect_strategy": "ReconnectSameHost", `)
	p := smtpTo(t, rt, addr)
	sessions := map[string]bool{}
	var name string
	for range 5 {
		msg := messageTo("a@x.test")
		msg.From = "421-me@x.test"
		r := p.Deliver(t.Context(), msg).Results[0]
		sessions[r.Session.ID], name = true, r.Session.ReadyName
	}
	chain, ok := rt.state.names.Name(name).Successor()
	if n, _ := sink.Sessions(); !ok || len(chain.Tried) != 1 || len(sessions) != 1 || n != 5 {
		t.Errorf("%d connections of %d sessions; %v, tried %d hosts", n, len(sessions), ok, len(chain.Tried))
	}
}
