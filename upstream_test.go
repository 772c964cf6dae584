package delivery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// TestUpstream has those scenarios of KumoMTA's integration tests that concern sessions, each under its name
// there. Where this library differs on purpose, the scenario says so.
func TestUpstream(t *testing.T) {
	for _, scenario := range []struct {
		name string
		play func(*stage)
	}{
		{"perm_fail", permFail},
		{"temp_fail", tempFail},
		{"broken_first_choice_mx", brokenFirstChoiceMX},
		{"disconnect_in_mail_from", disconnectInMailFrom},
		{"disconnect_in_data", disconnectInData},
		{"disconnect_in_data_try_next", disconnectInDataTryNext},
		{"disconnect_reconnect_same_host", disconnectReconnectSameHost},
		{"disconnect_terminate_ok", disconnectTerminateOK},
		{"disconnect_peer_idle_out", disconnectPeerIdleOut},
		{"mx_list_refresh", mxListRefresh},
		{"mx_list_dns_failure", mxListDNSFailure},
		{"rebind_port", rebindPort},
		{"maildir_batch", func(s *stage) { s.batch(5, 4, 2) }},
		{"maildir_batch_quad", func(s *stage) { s.batch(16, 4, 4) }},
		{"maildir_batch_max_per_batch", maildirBatchMaxPerBatch},
		{"maildir_batch_452_a_ambiguous", func(s *stage) { s.crowded("full1", 5) }},
		{"maildir_batch_452_a_unambiguous", func(s *stage) { s.crowded("full-enh1", 5) }},
		{"maildir_batch_452_b", maildirBatch452b},
		{"maildir_batch_452_single", maildirBatch452Single},
		{"maildir_batch_452_pathological", maildirBatch452Pathological},
		{"bad_source_address", badSourceAddress},
		{"source_health_unplumbed_suspends", sourceHealthUnplumbedSuspends},
		{"source_health_proxy_suspends", sourceHealthProxySuspends},
		{"source_health_other_pool_member_still_delivers", sourceHealthOtherPoolMember},
		{"source_selection_rate", sourceSelectionRate},
		{"source_selection_rate_pool", sourceSelectionRatePool},
		{"auth_deliver", authDeliver},
		{"auth_deliver_invalid_password", authDeliverInvalidPassword},
		{"dispatcher_watchdog", dispatcherWatchdog},
		{"inspect_ready_q", inspectReadyQ},
		{"resolve_egress_path", resolveEgressPath},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			s := &stage{T: t, rt: newRuntime(t)}
			s.rt.Logger = slog.New(slog.DiscardHandler)
			s.rt.Egress = s
			scenario.play(s)
		})
	}
}

// stage is where a scenario is played: a runtime, its egress config as JSON, and what was sent.
type stage struct {
	*testing.T
	rt      *Runtime
	path    string            // fields of the egress path, each with a comma behind it
	paths   map[string]string // the same by source, in place of path
	sources map[string]string // fields of egress sources, likewise
	pool    []string
}

func (s *stage) EgressPool(_ context.Context, name string) (EgressPool, error) {
	pool := EgressPool{Name: name}
	for _, source := range s.pool {
		pool.Entries = append(pool.Entries, PoolEntry{Name: source})
	}
	return pool, nil
}

func (s *stage) EgressSource(_ context.Context, name string) (EgressSource, error) {
	return ParseEgressSource([]byte(fmt.Sprintf(`{%s"name": %q}`, s.sources[name], name)))
}

func (s *stage) EgressPath(_ context.Context, _, source, _ string) (EgressPath, error) {
	path, ok := s.paths[source]
	if !ok {
		path = s.path
	}
	return ParseEgressPath([]byte(`{` + path + `"prohibited_hosts": []}`))
}

// to is a protocol with a list of hosts.
func (s *stage) to(addrs ...string) Protocol {
	s.Helper()
	return s.over("", addrs...)
}

// over is one that sends from the sources of a pool.
func (s *stage) over(pool string, addrs ...string) Protocol {
	s.Helper()
	var entries []string
	for i, addr := range addrs {
		entries = append(entries, fmt.Sprintf(`{"name": "host-%d.test", "addr": %q}`, i+1, addr))
	}
	return protocolOf(s.T, s.rt, fmt.Sprintf(`{"egress_pool": %q, "protocol": {"smtp": {"mx_list": [%s]}}}`, pool, strings.Join(entries, ", ")))
}

// sink is a sink that nothing has reached yet.
func (s *stage) sink(sink *smtptest.Sink) (*smtptest.Sink, string) {
	s.Helper()
	addr, err := sink.Listen()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { sink.Close() })
	return sink, addr
}

// nobody is an address where nobody listens.
func (s *stage) nobody() string {
	s.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// send delivers to recipients at x.test.
func (s *stage) send(p Protocol, users ...string) []Result {
	return s.sendFrom(p, "sender@example.org", users...)
}

func (s *stage) sendFrom(p Protocol, from string, users ...string) []Result {
	var to []string
	for _, user := range users {
		to = append(to, user+"@x.test")
	}
	msg := messageTo(to...)
	msg.From = from
	return p.Deliver(s.Context(), msg).Results
}

// want checks a result.
func (s *stage) want(r Result, status Status, code int, command string) {
	s.Helper()
	if r.Status != status || r.Response.Code != code || r.Response.Command != command {
		s.Errorf("%s is %s, %s to %q; want %s, %d to %q", r.Recipient, r.Status, r.Response, r.Response.Command, status, code, command)
	}
}

func (s *stage) wantDelivered(rs ...Result) {
	s.Helper()
	for _, r := range rs {
		s.want(r, Delivered, 250, ".")
	}
}

// TestGreylisting: a host that asks to come again later is asked again later, and no other meanwhile.
func TestGreylisting(t *testing.T) {
	s := &stage{T: t, rt: newRuntime(t)}
	s.rt.Egress = s
	first, addr := s.sink(&smtptest.Sink{})
	second, other := s.sink(&smtptest.Sink{})
	p := s.to(addr, other)
	s.want(s.send(p, "450-greylisted")[0], Transient, 450, "RCPT")
	s.wantDelivered(s.send(p, "user")...)
	if total, _ := second.Sessions(); total != 0 || len(first.Messages()) != 1 {
		t.Errorf("the second host got %d connections, the first %d messages", total, len(first.Messages()))
	}
}

func permFail(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.want(s.send(s.to(addr), "500-user")[0], Permanent, 500, "RCPT")
}

func tempFail(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.want(s.send(s.to(addr), "400-user")[0], Transient, 400, "RCPT")
}

func brokenFirstChoiceMX(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	r := s.send(s.to(s.nobody(), addr), "user")[0]
	s.wantDelivered(r)
	if r.Session.Peer != "host-2.test" || r.Session.RemoteAddr != addr {
		s.Errorf("delivered by %s (%s)", r.Session.Peer, r.Session.RemoteAddr)
	}
}

func disconnectInMailFrom(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.want(s.sendFrom(s.to(addr), "421-me@example.org", "user")[0], Transient, 421, "MAIL")
}

// refuseAndLeave answers content with a 451 and hangs up.
func refuseAndLeave(c net.Conn, r *bufio.Reader) {
	greet(c, r)
	answer(c, r, "250 ok", "250 ok", "354 go")
	for line := ""; line != ".\r\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
	}
	io.WriteString(c, "451 disconnecting\r\n")
}

func disconnectInData(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	p := s.to(peer(s.T, refuseAndLeave), addr)
	first, second := s.send(p, "not-me")[0], s.send(p, "pick-me")[0]
	s.want(first, Transient, 451, ".")
	s.wantDelivered(second)
	if first.Session.ID != second.Session.ID || first.Session.Peer != "host-1.test" || second.Session.Peer != "host-2.test" {
		s.Errorf("session %s at %s, then session %s at %s: want one session that goes to the next host",
			first.Session.ID, first.Session.Peer, second.Session.ID, second.Session.Peer)
	}
}

// disconnectInDataTryNext: the 451 is an answer, and so the message does not go to the next host.
func disconnectInDataTryNext(s *stage) {
	s.path = `"try_next_host_on_transport_error": true, `
	disconnectInData(s)
}

func disconnectReconnectSameHost(s *stage) {
	s.path = `"reconnect_strategy": "ReconnectSameHost", `
	first, addr := s.sink(&smtptest.Sink{})
	_, other := s.sink(&smtptest.Sink{})
	p := s.to(addr, other)
	s.want(s.sendFrom(p, "421-me@example.org", "user")[0], Transient, 421, "MAIL")
	s.wantDelivered(s.send(p, "second")...)
	s.wantDelivered(s.send(p, "third")...)
	if n := len(first.Messages()); n != 2 {
		s.Errorf("the same host got %d messages, want 2", n)
	}
}

func disconnectTerminateOK(s *stage) {
	s.path = `"reconnect_strategy": "TerminateSession", `
	first, addr := s.sink(&smtptest.Sink{})
	_, other := s.sink(&smtptest.Sink{})
	p := s.to(addr, other)
	before := s.sendFrom(p, "421-me@example.org", "user")[0]
	s.want(before, Transient, 421, "MAIL")
	after := s.send(p, "second")[0]
	s.wantDelivered(after)
	s.wantDelivered(s.send(p, "third")...)
	if n := len(first.Messages()); n != 2 || before.Session.ID == after.Session.ID {
		s.Errorf("a new session begins with the first host, which got %d messages of 2; sessions %s, %s", n, before.Session.ID, after.Session.ID)
	}
}

func disconnectPeerIdleOut(s *stage) {
	left := make(chan struct{})
	addr := peer(s.T,
		func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); c.Close(); close(left) },
		func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); farewell(c, r) })
	p := s.to(addr)
	first := s.send(p, "user")[0]
	<-left
	second := s.send(p, "user")[0]
	s.want(first, Delivered, 250, ".")
	s.want(second, Delivered, 250, ".")
	if first.Session.ID == second.Session.ID {
		s.Error("the second message went over the session that the peer had closed")
	}
}

// mxListRefresh: lists that differ in names alone share a ready name; a changed list is in force at once for
// who holds its protocol.
func mxListRefresh(s *stage) {
	one, addr := s.sink(&smtptest.Sink{})
	two, other := s.sink(&smtptest.Sink{})
	named := func(name, addr string) Protocol {
		return protocolOf(s.T, s.rt, fmt.Sprintf(`{"protocol": {"smtp": {"mx_list": [{"name": %q, "addr": %q}]}}}`, name, addr))
	}
	var names []string
	for _, p := range []Protocol{named("a.test", addr), named("b.test", addr), named("a.test", other)} {
		r := s.send(p, "user")[0]
		s.wantDelivered(r)
		names = append(names, r.Session.ReadyName)
	}
	if names[0] != names[1] || names[0] == names[2] || len(one.Messages()) != 2 || len(two.Messages()) != 1 {
		s.Errorf("ready names %q, %d and %d messages", names, len(one.Messages()), len(two.Messages()))
	}
}

// mxListDNSFailure: an entry that cannot be resolved does not stall the others.
func mxListDNSFailure(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.rt.Resolver = zone{"unresolvable.test A": {Result: DNSTempFail}, "unresolvable.test AAAA": {Result: DNSTempFail}}
	p := protocolOf(s.T, s.rt, fmt.Sprintf(`{"protocol": {"smtp": {"mx_list": ["unresolvable.test", %q]}}}`, addr))
	s.wantDelivered(s.send(p, "user")...)
}

// rebindPort: a port in the domain, and one in the routing domain.
func rebindPort(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	_, port, _ := net.SplitHostPort(addr)
	s.rt.Resolver = zone{"x.test MX": {Result: DNSNoData}, "x.test A": addrs("127.0.0.1"), "x.test AAAA": {Result: DNSNoData}}
	p := protocolOf(s.T, s.rt, `{}`)
	for _, queue := range []QueueName{{Domain: "x.test:" + port}, {Domain: "y.test", RoutingDomain: "x.test:" + port}} {
		msg := messageTo("user@x.test")
		msg.Queue = queue
		s.wantDelivered(p.Deliver(s.Context(), msg).Results...)
	}
}

// atMost is a peer that takes so many recipients in one transaction, as KumoMTA's does; "full..." never, and
// "full-enh..." with an enhanced code.
func (s *stage) atMost(n int) (*smtptest.Sink, string) {
	taken := 0
	// The transactions of one test come one after the other: a refusal of the rest, and the next begins.
	return s.sink(&smtptest.Sink{Refuse: func(local string) string {
		switch {
		case strings.HasPrefix(local, "full-enh"):
			return "452 4.1.1 mailbox full"
		case strings.HasPrefix(local, "full"):
			return "452 mailbox full"
		case taken == n:
			taken = 0
			return "451 4.5.3 too many recipients"
		}
		taken++
		return ""
	}})
}

func users(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint("user", i+1))
	}
	return list
}

// batch sends one message to so many recipients, to a peer that takes few at once.
func (s *stage) batch(recipients, limit, transactions int) {
	sink, addr := s.sink(&smtptest.Sink{Offer: []string{fmt.Sprintf("LIMITS RCPTMAX=%d", limit)}})
	s.wantDelivered(s.send(s.to(addr), users(recipients)...)...)
	unasked := &smtptest.Sink{}
	count := 0
	unasked.Refuse = func(string) string {
		if count++; count > limit && count <= recipients {
			return "452 4.5.3 too many recipients"
		}
		return ""
	}
	other, addr := s.sink(unasked)
	s.wantDelivered(s.send(s.to(addr), users(recipients)...)...)
	if n := len(sink.Messages()); n != transactions {
		s.Errorf("%d transactions where the peer names its limit, want %d", n, transactions)
	}
	if n := len(other.Messages()); n != transactions {
		s.Errorf("%d transactions where the peer refuses the rest, want %d", n, transactions)
	}
}

func maildirBatchMaxPerBatch(s *stage) {
	s.path = `"max_recipients_per_batch": 1, `
	sink, addr := s.sink(&smtptest.Sink{})
	s.wantDelivered(s.send(s.to(addr), users(5)...)...)
	if n := len(sink.Messages()); n != 5 {
		s.Errorf("%d transactions, want 5", n)
	}
}

// crowded sends to four whom the peer takes, one whose mailbox is full, and one too many.
func (s *stage) crowded(full string, delivered int) {
	sink, addr := s.atMost(4)
	results := s.send(s.to(addr), "recip1", full, "recip2", "recip3", "recip4", "recip5")
	s.want(results[1], Transient, 452, "RCPT")
	s.wantDelivered(slices.Delete(results, 1, 2)...)
	got := 0
	for _, m := range sink.Messages() {
		got += len(m.Rcpts)
	}
	if got != delivered || len(sink.Messages()) != 2 {
		s.Errorf("%d recipients got it in %d transactions, want %d in 2", got, len(sink.Messages()), delivered)
	}
}

func maildirBatch452b(s *stage) {
	sink, addr := s.atMost(4)
	results := s.send(s.to(addr), "recip1", "full-enh1", "recip2")
	s.wantDelivered(results[0], results[2])
	s.want(results[1], Transient, 452, "RCPT")
	if _, rcpts, commands := sink.Counts(); rcpts != 2 || commands > 8 {
		s.Errorf("%d recipients, %d commands: a full mailbox was asked again", rcpts, commands)
	}
}

func maildirBatch452Single(s *stage) {
	_, addr := s.atMost(4)
	s.want(s.send(s.to(addr), "full1")[0], Transient, 452, "RCPT")
}

// maildirBatch452Pathological: the number of tries is small.
func maildirBatch452Pathological(s *stage) {
	for _, reply := range []string{"452 mailbox full", "452 4.5.3 too many recipients"} {
		asked := 0
		_, addr := s.sink(&smtptest.Sink{Refuse: func(string) string { asked++; return reply }})
		for _, r := range s.send(s.to(addr), users(50)...) {
			s.want(r, Transient, 452, "RCPT")
		}
		if asked > 2*50 {
			s.Errorf("%s: 50 recipients were offered %d times", reply, asked)
		}
	}
}

func badSourceAddress(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.pool, s.sources = []string{"bad"}, map[string]string{"bad": `"source_address": "192.0.2.1", `}
	r := s.send(s.over("pool", addr), "user")[0]
	s.want(r, Transient, 400, "")
	if !strings.Contains(r.Response.Text, "failed to connect to any candidate hosts: source_address is no address of this machine: ") {
		s.Errorf("the text does not name the cause: %s", r.Response.Text)
	}
}

// suspended sends twice from one source that is suspended by the first failure.
func (s *stage) suspended(source string) {
	_, addr := s.sink(&smtptest.Sink{})
	s.pool, s.sources = []string{"bad"}, map[string]string{"bad": source}
	p := s.over("pool", addr)
	s.want(s.send(p, "user")[0], Transient, 400, "")
	r := s.send(p, "user")[0]
	s.want(r, Transient, 451, "")
	if want := "no sources for x.test pool=`pool` are eligible for selection at this time"; !strings.Contains(r.Response.Text, want) {
		s.Errorf("%s, want %s", r.Response, want)
	}
}

func sourceHealthUnplumbedSuspends(s *stage) {
	s.suspended(`"source_address": "192.0.2.1", "suspend_when_unplumbed": {"trigger": "Immediate", "duration": "1h"}, `)
}

func sourceHealthProxySuspends(s *stage) {
	s.suspended(fmt.Sprintf(`"ha_proxy_server": %q, "ha_proxy_source_address": "127.0.0.1", `+
		`"suspend_when_proxy_unhealthy": {"trigger": "Immediate", "duration": "1h"}, `, s.nobody()))
}

func sourceHealthOtherPoolMember(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.pool = []string{"good", "bad"}
	s.sources = map[string]string{"bad": `"source_address": "192.0.2.1", "suspend_when_unplumbed": {"trigger": "Immediate", "duration": "1h"}, `}
	p := s.over("pool", addr)
	failed := 0
	for range 10 {
		if r := s.send(p, "user")[0]; r.Status != Delivered {
			failed++
		} else if r.Session.Source != "good" {
			s.Errorf("delivered from %s", r.Session.Source)
		}
	}
	if failed != 1 {
		s.Errorf("%d messages failed, want the one that found out", failed)
	}
}

func sourceSelectionRate(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.path = `"source_selection_rate": "2/day", `
	p := s.to(addr)
	for i := range 10 {
		r := s.send(p, "user")[0]
		if i < 2 {
			s.wantDelivered(r)
			continue
		}
		s.want(r, Transient, 451, "")
		if want := "delivery: no sources for x.test pool=`unspecified` are eligible for selection at this time"; r.Response.Text != want {
			s.Errorf("%s, want %s", r.Response.Text, want)
		}
	}
}

func sourceSelectionRatePool(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.pool = []string{"warming_a", "warming_b"}
	s.paths = map[string]string{"warming_a": `"source_selection_rate": "2/day", `}
	p := s.over("warming", addr)
	from := map[string]int{}
	for range 10 {
		r := s.send(p, "user")[0]
		s.wantDelivered(r)
		from[r.Session.Source]++
	}
	if from["warming_a"] != 2 || from["warming_b"] != 8 {
		s.Errorf("sent from %v, want 2 from warming_a and 8 from warming_b", from)
	}
}

func authDeliver(s *stage) {
	sink, addr := s.sink(&smtptest.Sink{Username: "scott", Password: "tiger"})
	s.path = `"smtp_auth_plain_username": "scott", "smtp_auth_plain_password": {"key_data": "tiger"}, "allow_smtp_auth_plain_without_tls": true, `
	s.wantDelivered(s.send(s.to(addr), "user")...)
	if user := sink.Messages()[0].User; user != "scott" {
		s.Errorf("sent as %q", user)
	}
}

func authDeliverInvalidPassword(s *stage) {
	_, addr := s.sink(&smtptest.Sink{Username: "scott", Password: "tiger"})
	s.path = `"smtp_auth_plain_username": "scott", "smtp_auth_plain_password": {"key_data": "incorrect"}, "allow_smtp_auth_plain_without_tls": true, `
	s.want(s.send(s.to(addr), "user")[0], Transient, 400, "")
}

// dispatcherWatchdog: a send that never returns is aborted.
func dispatcherWatchdog(s *stage) {
	s.path = `"dispatcher_progress_watchdog_timeout": "50ms", `
	policy, err := s.rt.ParsePolicy(s.Context(), "policy.lua", []byte(
		`kumo.on('make.stuck', function() return { send = function() while true do end end } end)`))
	if err != nil {
		s.Fatal(err)
	}
	s.rt.SetPolicy(policy)
	r := s.send(protocolOf(s.T, s.rt, `{"protocol": {"custom_lua": {"constructor": "make.stuck"}}}`), "user")[0]
	s.want(r, Transient, 451, "")
	if want := "451 4.4.1 dispatcher watchdog aborted task; send did not return within 50ms"; r.Response.String() != want {
		s.Errorf("%s, want %s", r.Response, want)
	}
}

// resolveEgressPath: the site and the source by which a path is asked for, as Plan shows them.
func resolveEgressPath(s *stage) {
	s.rt.Resolver = zone{"x.test MX": mx(MXRecord{10, "mx1.x.test"}, MXRecord{10, "mx2.x.test"}), "mx1.x.test A": addrs("127.0.0.1"), "mx2.x.test A": addrs("127.0.0.2")}
	s.pool = []string{"source"}
	plan, err := protocolOf(s.T, s.rt, `{"egress_pool": "pool"}`).Plan(s.Context(), messageTo("user@x.test"))
	if want := "source->(mx1|mx2).x.test@smtp_client"; err != nil || plan.ReadyName != want || len(plan.Hosts) != 2 {
		s.Errorf("%+v, %v; want the ready name %s", plan, err, want)
	}
}

// inspectReadyQ: the ready name and its limit, as Stats shows them.
func inspectReadyQ(s *stage) {
	_, addr := s.sink(&smtptest.Sink{})
	s.path = `"connection_limit": 16, `
	s.wantDelivered(s.send(s.to(addr), "user")...)
	ready := s.rt.Stats().Ready
	if len(ready) != 1 || ready[0].Name != "unspecified->mx_list:"+addr+"@smtp_client" || ready[0].Limit != 16 ||
		ready[0].Delivered != 1 || ready[0].Opened != 1 || ready[0].Idle != 1 {
		s.Errorf("%+v", ready)
	}
}
